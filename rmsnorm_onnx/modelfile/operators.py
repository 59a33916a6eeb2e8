"""Nodes that are what their operators ask for: as many inputs as they take, and attributes of the types they have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import onnx
import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.modelfile.flaw import Place, flaw, shown

#: ONNX's own operators have two names for one domain.
DEFAULT_DOMAINS: Final = frozenset({"", "ai.onnx"})
_CONTRIB: Final = "com.microsoft"
_KINDS: Final = onnx.AttributeProto.AttributeType
_SINGLE: Final = onnx.defs.OpSchema.FormalParameterOption.Single
#: Variadic operators state 2**31 - 1.
_ANY: Final = 2**31 - 1
#: onnxruntime's operators that the matcher reads, some of which stand in ONNX's own domain: fewest and most inputs.
_CONTRIB_INPUTS: Final = {
    "GatedRMSNorm": (3, 3),
    "QuickGelu": (1, 1),
    "SimplifiedLayerNormalization": (2, 3),
    "SkipSimplifiedLayerNormalization": (3, 4),
}
#: Types of the attributes that the matcher reads of them.
_CONTRIB_TYPES: Final = {
    "activation": _KINDS.STRING,
    "alpha": _KINDS.FLOAT,
    "axis": _KINDS.INT,
    "epsilon": _KINDS.FLOAT,
    "N": _KINDS.INT,
    "stash_type": _KINDS.INT,
}
_ELEMENT_TYPES: Final = frozenset(int(dtype) for dtype in ir.DataType if dtype is not ir.DataType.UNDEFINED)


@dataclass(frozen=True, slots=True)
class Signature:
    """What an operator asks for, in any version.

    Attributes:
        fewest: inputs that must be listed.
        most: inputs that may be listed.
        needed: which of them may not be left out by an empty name; Loop and Scan allow that of their first.
        types: of its attributes, by name.
        required: attributes without a default.
    """

    fewest: int
    most: int
    needed: frozenset[int]
    types: Mapping[str, int]
    required: frozenset[str] = frozenset()

    @property
    def takes(self) -> str:
        """How many inputs, in words."""
        if self.fewest == self.most:
            return str(self.fewest)
        return f"{self.fewest} to {self.most}" if self.most < _ANY else f"at least {self.fewest}"


@cache
def _signature(domain: str, op_type: str) -> Signature | None:
    if domain == spec.DOMAIN and op_type in spec.OPS:
        op = spec.OPS[op_type]
        kinds = {attribute.name: _KINDS.Value(attribute.kind.value) for attribute in op.attributes}
        return _with_all(len(op.inputs), len(op.inputs), kinds)
    schemas = list(_versions(op_type)) if domain in DEFAULT_DOMAINS else []
    if schemas:
        return _of_any(schemas)
    if op_type in _CONTRIB_INPUTS or domain.startswith(_CONTRIB):
        return _with_all(*_CONTRIB_INPUTS.get(op_type, (0, _ANY)), _CONTRIB_TYPES)
    return None


def _versions(op_type: str) -> Iterator[onnx.defs.OpSchema]:
    """What ONNX says of an operator, the newest version first."""
    version = onnx.defs.onnx_opset_version()
    while version > 0:
        try:
            schema = onnx.defs.get_schema(op_type, version, "")
        except onnx.defs.SchemaError:
            return
        yield schema
        version = schema.since_version - 1


def _of_any(schemas: Sequence[onnx.defs.OpSchema]) -> Signature:
    """What some version allows: exporters are seen to write forms of a later opset than they state (jax2onnx)."""
    attributes = [schema.attributes.items() for schema in reversed(schemas)]
    # What mypy takes for an enumeration is one of C++, which has numbers.
    types = {name: int(a.type) for version in attributes for name, a in version}  # type: ignore[call-overload]
    singles = ({at for at, formal in enumerate(s.inputs) if formal.option == _SINGLE} for s in schemas)
    required = ({name for name, a in version if a.required} for version in attributes)
    return Signature(
        min(schema.min_input for schema in schemas),
        max(schema.max_input for schema in schemas),
        frozenset(set.intersection(*singles)),
        types,
        frozenset(set.intersection(*required)),
    )


def _with_all(fewest: int, most: int, types: Mapping[str, int]) -> Signature:
    """A signature of which no input may be left out that must be listed."""
    return Signature(fewest, most, frozenset(range(fewest)), types)


class Operators:
    """Operators of a graph or function, by the opsets that it imports; those that are not known are not judged."""

    def __init__(self, imports: Iterable[onnx.OperatorSetIdProto]) -> None:
        versions = [entry.version for entry in imports if entry.domain in DEFAULT_DOMAINS]
        self._opset = versions[0] if versions else 0

    def have(self, op_type: str) -> bool:
        """Whether ONNX has this operator at the imported opset."""
        try:
            return self._opset > 0 and onnx.defs.get_schema(op_type, self._opset, "") is not None
        except onnx.defs.SchemaError:
            return False

    def check(self, node: onnx.NodeProto, inputs: Sequence[str], place: Place) -> Sequence[onnx.AttributeProto]:
        """Raise a Flaw unless ``node`` is one that its operator allows; gives its attributes."""
        if not node.op_type:
            raise flaw(place, "it names no operator")
        if any(not devices.configuration_id for devices in node.device_configurations):
            raise flaw(place, "it has a configuration of devices without a name")
        attributes: Sequence[onnx.AttributeProto] = node.attribute
        named = {attribute.name: attribute for attribute in attributes} if attributes else {}
        if len(named) != len(attributes):
            raise flaw(place, "it has two attributes of one name")
        if self._opset == 0 and node.domain in DEFAULT_DOMAINS:
            raise flaw(place, "no opset of ONNX's own operators is imported")
        signature = _signature(node.domain, node.op_type)
        if signature is None:
            return attributes
        left_out = {at for at, name in enumerate(inputs) if not name} if "" in inputs else set()
        if not signature.fewest <= len(inputs) <= signature.most or left_out & signature.needed:
            raise flaw(place, f"{node.op_type} takes {signature.takes} inputs, got {sum(map(bool, inputs))}")
        for name, attribute in named.items():
            _check_attribute(node.op_type, attribute, signature.types.get(name, attribute.type), place)
        absent = sorted(signature.required - named.keys())
        if absent:
            raise flaw(place, f"{node.op_type} needs the attribute {shown(absent[0])}")
        if node.op_type == "Constant" and len(named) != 1:
            raise flaw(place, f"Constant needs one value, got {len(named)}")
        parts = named.get("num_outputs") if node.op_type == "Split" else None
        if parts and not parts.ref_attr_name and parts.i < len(node.output):  # onnx 1.23 dies inferring shapes
            raise flaw(place, f"Split gives {parts.i} outputs as its num_outputs says, got {len(node.output)}")
        return attributes


def _check_attribute(op_type: str, attribute: onnx.AttributeProto, wanted: int, place: Place) -> None:
    if attribute.ref_attr_name:
        return
    name, kind = shown(attribute.name), attribute.type
    if kind != wanted:
        raise flaw(
            place, f"the attribute {name} of {op_type} is of type {_KINDS.Name(wanted)}, got {_KINDS.Name(kind)}"
        )
    if attribute.name == "to" and kind == _KINDS.INT and attribute.i not in _ELEMENT_TYPES:
        raise flaw(place, f"no element type has the number {attribute.i}, which {op_type} is to give")
    if attribute.name == "batch_dims" and attribute.i < 0:  # onnx 1.23 dies of a segmentation fault inferring shapes
        raise flaw(place, f"batch_dims of {op_type} is 0 or more, got {attribute.i}")
