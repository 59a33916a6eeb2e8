"""The compiled custom-op library: where it is, registering it, and what it says of itself.

onnxruntime is imported late: it is an extra (``cpu`` or ``cuda``), not a dependency.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from .errors import CannotRun, LibraryMissing
from .spec import DOMAIN, ORT_API_VERSION, VERSION

if TYPE_CHECKING:
    import onnxruntime

LIBRARY_NAME: Final = "librmsnorm_onnx.so"

#: Operator without inputs by which the library describes itself, as JSON in a uint8 tensor.
INFO_OP: Final = "LibraryInfo"

PACKAGE: Final = "rmsnorm-onnx"

#: Session configuration entries by which the library is told, as it is registered, what to add besides our
#: operators. An entry and ".registered" remembers that the SessionOptions have it.
OURS: Final = "rmsnorm_onnx"
OVERRIDE_ONNX: Final = "rmsnorm_onnx.override"
OVERRIDE_MICROSOFT: Final = "rmsnorm_onnx.override.com.microsoft"

#: Held from the question what the options lack until they have it.
_REGISTERING: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class CudaInfo:
    """The CUDA part of a library that has one."""

    architectures: tuple[str, ...]
    #: What the driver says of the device, or a sentence about why there is none.
    device: dict[str, Any] | str


@dataclass(frozen=True, slots=True)
class LibraryInfo:
    """One built library: the file, and what the code in it answered when asked."""

    path: str
    size_bytes: int
    package_version: str
    onnxruntime_version: str
    isa_supported: tuple[str, ...]
    isa_active: str
    spec: dict[str, Any]
    cuda: CudaInfo | None


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        CannotRun: it is not installed, cannot be imported, or is older than the library and the models that
            this package runs (IR version 10).
    """
    try:
        import onnxruntime
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            raise CannotRun(
                "onnxruntime is not installed; install one of the extras, not both (they overwrite each other's "
                f"files): pip install '{PACKAGE}[cpu]' or pip install '{PACKAGE}[cuda]'"
            ) from error
        import numpy

        # Under a numpy that it was not made for, onnxruntime raises an error without words.
        raise CannotRun(
            f"onnxruntime is installed but cannot be imported ({error or type(error).__name__}); releases before 1.19 "
            f"need numpy below 2, this is {numpy.__version__}; pip install --upgrade onnxruntime, or 'numpy<2'"
        ) from error
    if not hasattr(onnxruntime, "SessionOptions"):  # an empty folder
        raise CannotRun(
            "what is left of onnxruntime holds no SessionOptions, as after removing one of onnxruntime and "
            "onnxruntime-gpu where both were installed; pip uninstall both, then install one"
        )
    version = onnxruntime.__version__
    if [int(number) for number in re.findall(r"\d+", version)[:2]] < [1, ORT_API_VERSION]:
        raise CannotRun(
            f"expected onnxruntime 1.{ORT_API_VERSION} or newer, got {version}; pip install --upgrade onnxruntime"
        )
    return onnxruntime


def get_library_path() -> str:
    """Absolute path of the library, as ``SessionOptions.register_custom_ops_library`` takes it."""
    # An editable install spreads the package over two folders.
    package = sys.modules[__package__ or "rmsnorm_onnx"]
    folders = [Path(folder).resolve() for folder in package.__path__]
    for folder in folders:
        path = folder / LIBRARY_NAME
        if path.is_file():
            return str(path)
    looked = " or ".join(str(folder) for folder in folders)
    raise LibraryMissing(
        f"no {LIBRARY_NAME} in {looked}; install the package so that it is built: pip install . in a checkout "
        f"(needs a C++ compiler), or pip install --force-reinstall {PACKAGE}"
    )


def register(session_options: onnxruntime.SessionOptions, *, override: bool | Literal["all"] = False) -> None:
    """Let sessions made from ``session_options`` run the operators of this package.

    With ``override=True``, the built-in RMSNormalization and SimplifiedLayerNormalization of onnxruntime run on
    our kernels too: in models as they are, also where onnxruntime's optimizer makes such nodes, with every mix
    of element types that the operators allow.

    ``override="all"`` adds SkipSimplifiedLayerNormalization, for models that import the domain com.microsoft, as
    those that hold such nodes do. Where a model does not import it, onnxruntime rewrites nodes to its own
    operators of that domain and then does not find them, so such a model may fail to load.

    A call that asks for nothing new does nothing: onnxruntime would refuse every session made from options
    that hold an operator twice. Threads may call it at once, also with the same options.

    Raises:
        CannotRun: onnxruntime is missing, broken or too old, or cannot load the library.
        LibraryMissing: the library was not built.
    """
    ort = import_onnxruntime()
    if not isinstance(session_options, ort.SessionOptions):
        raise CannotRun(f"expected onnxruntime.SessionOptions, got {type(session_options).__name__}")
    wanted = [OURS, OVERRIDE_ONNX, OVERRIDE_MICROSOFT][: 3 if override == "all" else 1 + bool(override)]
    with _REGISTERING:
        missing = [entry for entry in wanted if not _has_entry(session_options, f"{entry}.registered")]
        if not missing:
            return
        path = get_library_path()
        for entry in missing:
            session_options.add_session_config_entry(entry, "1")
        try:
            session_options.register_custom_ops_library(path)
        except Exception as error:
            raise CannotRun(f"onnxruntime {ort.__version__} cannot load {path}: {error}") from error
        for entry in missing:
            session_options.add_session_config_entry(f"{entry}.registered", "1")


def info() -> LibraryInfo:
    """Ask the library itself, through a session of one node."""
    import onnx
    from onnx import helper

    ort = import_onnxruntime()
    output = helper.make_tensor_value_info("json", onnx.TensorProto.UINT8, ["size"])
    graph = helper.make_graph([helper.make_node(INFO_OP, [], ["json"], domain=DOMAIN)], "info", [], [output])
    opsets = [helper.make_opsetid(DOMAIN, VERSION), helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    register(options)
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        said = json.loads(session.run(None, {})[0].tobytes())
    except Exception as error:
        raise CannotRun(f"the library does not answer: {error}") from error
    path, cuda = get_library_path(), said["cuda"]
    return LibraryInfo(
        path=path,
        size_bytes=Path(path).stat().st_size,
        package_version=package_version(),
        onnxruntime_version=ort.__version__,
        isa_supported=tuple(said["isa"]["supported"]),
        isa_active=said["isa"]["active"],
        spec=said["spec"],
        cuda=cuda and CudaInfo(tuple(cuda["architectures"].split()), cuda["device"]),
    )


def package_version() -> str:
    """Of the installed package, or words to that effect."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "not installed"


def _has_entry(session_options: Any, name: str) -> bool:
    try:
        return bool(session_options.get_session_config_entry(name) == "1")
    except RuntimeError:  # no such entry
        return False
