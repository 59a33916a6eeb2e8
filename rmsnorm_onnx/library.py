"""The compiled custom-op library: where it is, registering it, and what it says of itself.

onnxruntime is imported late: it is an extra (``cpu`` or ``cuda``), not a dependency.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .errors import CannotRun, LibraryMissing
from .spec import DOMAIN, ORT_API_VERSION, VERSION

if TYPE_CHECKING:
    import onnxruntime

LIBRARY_NAME: Final = "librmsnorm_onnx.so"

#: Operator without inputs by which the library describes itself, as JSON in a uint8 tensor.
INFO_OP: Final = "LibraryInfo"

PACKAGE: Final = "rmsnorm-onnx"

#: Session configuration entry by which a SessionOptions remembers that it has the library.
REGISTERED: Final = "rmsnorm_onnx.registered"


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


def register(session_options: onnxruntime.SessionOptions) -> None:
    """Let sessions made from ``session_options`` run the operators of this package.

    A second call on the same object does nothing: onnxruntime would refuse every session made from it.

    Raises:
        CannotRun: onnxruntime is missing or too old, or cannot load the library.
        LibraryMissing: the library was not built.
    """
    ort = _onnxruntime()
    if not isinstance(session_options, ort.SessionOptions):
        raise CannotRun(f"expected onnxruntime.SessionOptions, got {type(session_options).__name__}")
    if _is_registered(session_options):
        return
    path = get_library_path()
    try:
        session_options.register_custom_ops_library(path)
    except Exception as error:
        raise CannotRun(_registration_advice(str(error), path, ort.__version__)) from error
    session_options.add_session_config_entry(REGISTERED, "1")


def info() -> LibraryInfo:
    """Ask the library itself, through a session of one node."""
    import onnx
    from onnx import helper

    ort = _onnxruntime()
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
    path = get_library_path()
    return LibraryInfo(
        path=path,
        size_bytes=Path(path).stat().st_size,
        package_version=_package_version(),
        onnxruntime_version=ort.__version__,
        isa_supported=tuple(said["isa"]["supported"]),
        isa_active=said["isa"]["active"],
        spec=said["spec"],
    )


def _package_version() -> str:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "not installed"


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise CannotRun(
            f"onnxruntime is not installed; install one of the extras, not both (they overwrite each other): "
            f"pip install '{PACKAGE}[cpu]' or pip install '{PACKAGE}[cuda]'"
        ) from error
    return onnxruntime


def _is_registered(session_options: Any) -> bool:
    try:
        return bool(session_options.get_session_config_entry(REGISTERED) == "1")
    except RuntimeError:  # no such entry
        return False


def _registration_advice(text: str, path: str, version: str) -> str:
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    if numbers < [1, ORT_API_VERSION]:
        return f"the library needs onnxruntime 1.{ORT_API_VERSION} or newer, this is {version}; upgrade onnxruntime"
    return f"onnxruntime {version} cannot load {path}: {text}"
