"""The Keras operation and layer on numpy arrays, computed by the library's kernel in a session of one node.

Where Keras' documentation is silent, its source (`keras.src.ops.nn.rms_normalization`) is followed, with
two differences: integers give float32 instead of being cast back, and a layer's scale lies along the
normalized axes instead of the last ones, so that ``axis=1`` scales channels.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InvalidInput
from .library import import_onnxruntime
from .runtime.session import session_options
from .spec import DOMAIN, RMS, VERSION, DType

#: `keras.backend.epsilon()` as Keras ships it.
KERAS_EPSILON: Final = 1e-7

#: Sessions kept: each holds a thread pool.
_SESSIONS: Final = 16

_FLOATS: Final[dict[np.dtype[Any], DType]] = {
    np.dtype(np.float16): DType.FLOAT16,
    np.dtype(np.float32): DType.FLOAT,
    np.dtype(np.float64): DType.DOUBLE,
    np.dtype(ml_dtypes.bfloat16): DType.BFLOAT16,
}
#: What a Keras layer's config holds beside its arguments; nothing here depends on it.
_KERAS_KEYS: Final = {"name", "trainable", "dtype"}


def rms_normalization(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    axis: int | Sequence[int] = -1,
    epsilon: float | None = None,
) -> NDArray[Any]:
    """Return ``x / sqrt(mean(x**2) + epsilon) * scale``, the mean taken over ``axis``.

    The formula is that of `keras.ops.rms_normalization` and of Zhang and Sennrich, "Root Mean Square
    Layer Normalization" (2019).

    Args:
        x: float16, bfloat16 (ml_dtypes), float32 or float64, of any shape. Integers, booleans and Python
            numbers are taken as float32. A scalar is taken as one element, as Keras does.
        scale: broadcast to the shape of ``x`` by numpy's rules, last axes first; None means 1.
        axis: one axis or several, in any order, negative ones counted from the end.
        epsilon: added to the mean square; None means 1e-7.

    Returns:
        An array with the shape and dtype of ``x``. float64 is computed in float64, everything else in
        float32 and rounded once.

    Raises:
        InvalidInput: a dtype, shape, axis or epsilon that cannot be used.
        CannotRun: onnxruntime is missing; LibraryMissing: the compiled library is.
    """
    array = np.atleast_1d(_numbers("x", x))
    axes = _axes(axis, array.ndim)
    value = _epsilon(KERAS_EPSILON if epsilon is None else epsilon)
    working = np.dtype(np.float64 if array.dtype == np.float64 else np.float32)
    factor = None if scale is None else _numbers("scale", scale).astype(working)
    if factor is not None and _broadcast(factor.shape, array.shape) != array.shape:
        raise InvalidInput(
            f"expected a scale that broadcasts to x of shape {array.shape} without making it larger, "
            f"got shape {factor.shape}"
        )
    if not array.size:
        return array.copy()
    # onnxruntime's Python API has no bfloat16 arrays; the kernel would widen to float32 as well, and round once
    given = array.astype(working) if _FLOATS[array.dtype] is DType.BFLOAT16 else array
    session = _session(_FLOATS[given.dtype], tuple(a - array.ndim for a in axes), value, factor is not None)
    feeds = {"X": np.ascontiguousarray(given)}
    if factor is not None:
        feeds["scale"] = np.ascontiguousarray(factor)
    result: NDArray[Any] = session.run(["Y"], feeds)[0]
    return result.astype(array.dtype, copy=False)


class RMSNormalization:
    """RMS normalization with a scale for each element along the normalized axes, like `keras.layers.RMSNormalization`.

    Args:
        axis: one axis or several; negative ones count from the end.
        epsilon: added to the mean square.

    Attributes:
        axis: as given; a tuple becomes a list.
        epsilon: as given.
        built: whether ``scale`` is there.

    Raises:
        InvalidInput: ``axis`` is neither an integer nor some, or ``epsilon`` is negative or not finite.

    >>> layer = RMSNormalization()
    >>> layer.build([5, 20, 30, 10])
    >>> layer.scale.shape
    (10,)
    """

    def __init__(self, axis: int | Sequence[int] = -1, epsilon: float = 1e-6):
        indices = _indices(axis)
        self.axis: int | list[int] = list(indices) if isinstance(axis, Sequence) else indices[0]
        self.epsilon = _epsilon(epsilon)
        self._scale: NDArray[Any] | None = None

    @property
    def built(self) -> bool:
        """Whether the scale has been made."""
        return self._scale is not None

    @property
    def scale(self) -> NDArray[Any]:
        """The weights, float32 ones of the sizes along the normalized axes (in their order in x) until set.

        Raises:
            AttributeError: before ``build`` or the first call.
            InvalidInput: set to another shape.
        """
        if self._scale is None:
            raise AttributeError("there is no scale yet: call build(input_shape) or the layer first")
        return self._scale

    @scale.setter
    def scale(self, values: ArrayLike) -> None:
        given = _numbers("scale", values)
        if given.shape != self.scale.shape:
            raise InvalidInput(f"expected a scale of shape {self.scale.shape}, got {given.shape}")
        self._scale = given

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the scale for inputs of this shape; only the sizes along ``axis`` need be known.

        Raises:
            InvalidInput: ``axis`` is not in the shape, or a size along it is not known.
        """
        shape = tuple(input_shape[a] for a in _axes(self.axis, len(input_shape)))
        sizes = [size for size in shape if size is not None]
        if len(sizes) != len(shape):
            raise InvalidInput(f"expected known sizes along axis {self.axis}, got input shape {tuple(input_shape)}")
        self._scale = np.ones(sizes, np.float32)

    def __call__(self, x: ArrayLike) -> NDArray[Any]:
        """Return ``x`` normalized and scaled, its shape and dtype kept (see `rms_normalization`); builds first.

        Raises:
            InvalidInput: ``x`` has other sizes along ``axis`` than the layer was built for.
        """
        array = np.atleast_1d(_numbers("x", x))
        if not self.built:
            self.build(array.shape)
        return self.call(array)

    def call(self, x: ArrayLike) -> NDArray[Any]:
        """As ``__call__``, for a layer that is built."""
        array = np.atleast_1d(_numbers("x", x))
        axes = _axes(self.axis, array.ndim)
        sizes = tuple(array.shape[a] for a in axes)
        if sizes != self.scale.shape:
            raise InvalidInput(
                f"expected x with sizes {self.scale.shape} along axis {self.axis}, for which the layer was built, "
                f"got x of shape {array.shape}"
            )
        aligned = [size if a in axes else 1 for a, size in enumerate(array.shape)]
        return rms_normalization(array, self.scale.reshape(aligned), axis=axes, epsilon=self.epsilon)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return ``input_shape``.

        Raises:
            InvalidInput: ``axis`` is not in it.
        """
        _axes(self.axis, len(input_shape))
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` makes an equal, unbuilt layer of."""
        return {"axis": self.axis, "epsilon": self.epsilon}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RMSNormalization:
        """Make a layer from the config of one of these or of Keras', whose name, trainable and dtype are left out.

        Raises:
            InvalidInput: an entry that no such layer has.
        """
        if unknown := set(config) - {"axis", "epsilon"} - _KERAS_KEYS:
            raise InvalidInput(f"expected a config with axis and epsilon, got {sorted(unknown)} as well")
        return cls(**{key: value for key, value in config.items() if key not in _KERAS_KEYS})


def _numbers(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return ``values`` as an array of a float dtype."""
    try:
        array = np.asarray(values, None if hasattr(values, "dtype") else np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"expected numbers for {name}, got {type(values).__name__}: {error}") from error
    native = array.dtype.newbyteorder("=")
    if native in _FLOATS:
        return array.astype(native, copy=False)
    if array.dtype.kind in "iub":
        return array.astype(np.float32)
    raise InvalidInput(
        f"expected {name} of dtype float16, bfloat16, float32, float64 or an integer type, got {array.dtype}"
    )


def _indices(axis: int | Sequence[int]) -> tuple[int, ...]:
    try:
        indices = tuple(map(operator.index, axis)) if isinstance(axis, Sequence) else (operator.index(axis),)
    except TypeError as error:
        raise InvalidInput(f"expected axis to be an integer or a list of integers, got {axis!r}") from error
    if not indices:
        raise InvalidInput("expected at least one axis, got none")
    return indices


def _axes(axis: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """Return the axes sorted, counted from the front."""
    indices = _indices(axis)
    if any(not -rank <= i < rank for i in indices):
        raise InvalidInput(f"expected axis from {-rank} to {rank - 1} for rank {rank}, got {axis}")
    axes = tuple(sorted({i % rank for i in indices}))
    if len(axes) != len(indices):
        raise InvalidInput(f"expected different axes, got {axis} for rank {rank}")
    return axes


def _epsilon(epsilon: float) -> float:
    try:
        value = float(epsilon)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"expected epsilon to be a number, got {epsilon!r}") from error
    if not 0 <= value <= float(np.finfo(np.float32).max):
        raise InvalidInput(f"expected epsilon to be 0 or more and a float32, got {value}")
    return value


def _broadcast(scale: tuple[int, ...], x: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(scale, x)
    except ValueError:
        return None


@lru_cache(maxsize=_SESSIONS)
def _session(dtype: DType, axes: tuple[int, ...], epsilon: float, scaled: bool) -> Any:
    """Return a session of one node on X of any shape; sessions may run in several threads at once."""
    import onnx
    from onnx import helper

    working = DType.DOUBLE if dtype is DType.DOUBLE else DType.FLOAT
    high = float(np.float32(epsilon))
    written: dict[str, Any] = {a.name: a.default for a in RMS.attributes}
    written |= {"axes": list(axes), "epsilon": high, "stash_type": int(working), "normalized_type": int(working)}
    if working is DType.DOUBLE:
        written["epsilon_low"] = float(np.float32(epsilon - high))
        if not math.isclose(high + written["epsilon_low"], epsilon, rel_tol=2**-45):
            raise InvalidInput(f"expected an epsilon of at least 1e-30 or 0 with float64, got {epsilon}")
    node = helper.make_node(RMS.name, RMS.inputs, RMS.outputs, domain=DOMAIN, **written)
    inputs = [onnx.ValueInfoProto(name="X"), onnx.ValueInfoProto(name="scale")]
    output = onnx.ValueInfoProto(name="Y")
    # no shape: one session serves every rank
    for value, element in zip((*inputs, output), (dtype, working, dtype), strict=True):
        value.type.tensor_type.elem_type = int(element)
    one = helper.make_tensor("scale", int(working), [1], [1.0])
    graph = helper.make_graph(
        [node], RMS.name, inputs if scaled else inputs[:1], [output], initializer=[] if scaled else [one]
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = session_options(library=True)
    # cached sessions wait for their next call without burning a core
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return import_onnxruntime().InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
