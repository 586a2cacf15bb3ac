"""Is the imported module the model of the file? Shapes by ONNX's own inference, values by another evaluator.

What comes after the import is compared with the imported module. So a fault of the import would be invisible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax

from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Instead, Interpreter, Observe
from hwptq.ir.dataflow import constant, shape_of
from hwptq.ir.macs import float_macs
from hwptq.ir.provenance import Origin, origins
from hwptq.notices import Warning

from ..model import ImportCheck
from .check_growth import Growth
from .fold_shapes import static_shapes, with_inputs
from .importer_errors import said_by_importer
from .peer import Peer, by_reference, by_runtime

#: The time that the other evaluator has, and the multiply-accumulates that are worth starting on.
SECONDS = 30.0
_MOST_MACS = 2 * 10**10
#: |x - y| / |x| in the 2-norm that differences in the order of sums explain, and rounding to codes.
_NOISE, _NOISE_OF_CODES = 1e-3, 5e-2
#: The same where the file rounds activations that the module does not round: with scales found at run time.
_NOISE_OF_ROUNDING = 0.3
#: Why outputs may differ that are right.
_NEAR_TIES = "its nodes agree one by one, but near-ties of its codes come to other values at the outputs"
_NEAR_TIES_IN_ORDER = (
    "its nodes agree one by one, but values that it orders are near each other, and rows change places"
)
#: The share of a tensor of integers or truth values that near-ties explain.
_TIES = 0.1
_FLOAT32_MAX = np.finfo(np.float32).max


@dataclass(frozen=True)
class Imported:
    """A file (as read, but with float32 for narrower and wider floats), the module made of it, the module as
    the importer left it, what stands in the latter for each tensor of the file, the shapes of inputs, and how
    caches grow in the file, where they are of a fixed size here."""

    proto: onnx.ModelProto
    module: tvm.IRModule
    raw: tvm.IRModule
    tensors: Mapping[str, Any]
    inputs: Mapping[str, tuple[int, ...]]
    growth: Growth | None = None

    def check_shapes(self) -> list[Warning]:
        """Raise UnsupportedError at the first node whose results have other shapes than ONNX infers.

        Of an output that is not what the file declares the user is told: exporters err there, and runtimes go
        by the nodes. Where ONNX infers nothing of it, check_values wants it from another evaluator.
        """
        shapes = static_shapes(with_inputs(self.proto, self.inputs))
        for node, name in _results(self.proto):
            found, wanted = _shape(self.tensors.get(name)), shapes.get(name)
            if found is None:
                continue
            if wanted not in (None, found):
                raise UnsupportedError(
                    f"node {_name(node)!r} ({node.op_type}) was imported with the shape {list(found)}, where "
                    f"the model has {list(wanted)}; write it with other operators, or report it"
                )
        text = "which is not what the file declares; the nodes say so"
        return [
            Warning("import", n, f"has the shape {list(s)}, {text}") for n, s in self._undeclared().items()
        ]

    def _undeclared(self) -> dict[str, tuple[int, ...]]:
        """The shapes of outputs that are not what the file declares."""
        found = {o.name: (_shape(self.tensors.get(o.name)), o) for o in self.proto.graph.output}
        return {n: shape for n, (shape, o) in found.items() if shape is not None and not _fits(shape, o)}

    def _check_undeclared(self, values: Mapping[str, np.ndarray]) -> None:
        """Raise UnsupportedError for an output that nobody but the importer gives a shape: neither the file,
        nor ONNX's inference, nor `values` of another evaluator.
        """
        if odd := {n: shape for n, shape in self._undeclared().items() if n not in values}:
            inferred = static_shapes(with_inputs(self.proto, self.inputs))
            for name in odd.keys() - inferred.keys():
                raise UnsupportedError(
                    f"output {name!r} was imported with the shape {list(odd[name])}, where the file declares "
                    f"another; declare what it has, or report it"
                )

    def check_values(self, inputs: Mapping[str, np.ndarray] | None) -> ImportCheck:
        """Compare what the module and the file compute of one sample, and of some steps if its caches grow.

        Raises UnsupportedError that names the first node that differs by more than the noise of float32.
        """
        found = self._compare(inputs)
        if inputs is None or self.growth is None or not found.by:
            return found
        names = [o.name for o in self.proto.graph.output]

        def run(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            values = _run(self.module, {name: given[name] for name in self.inputs})
            return dict(zip(names, values, strict=True))

        noise = _noise(self.proto)
        reason = self.growth.check(run, inputs, _difference, noise, SECONDS)
        return replace(found, difference=None, reason=reason) if reason and not found.reason else found

    def _compare(self, inputs: Mapping[str, np.ndarray] | None) -> ImportCheck:
        """check_values of one sample."""
        if inputs is None:
            self._check_undeclared({})
            return ImportCheck(reason="the data can be read only once")
        if float_macs(self.raw) > _MOST_MACS:
            self._check_undeclared({})
            return ImportCheck(reason=f"the model has more than {_MOST_MACS:.0e} multiply-accumulates")
        peer = by_runtime(self.proto, inputs) or by_reference(self.proto, inputs, SECONDS)
        found = _run(self.module, inputs)
        names = [o.name for o in self.proto.graph.output]
        noise = _noise(self.proto)
        pairs = [(peer.values[n], a) for n, a in zip(names, found, strict=True) if n in peer.values]
        differences = [_difference(*pair) for pair in pairs]
        largest = max(differences, default=0.0)
        if largest <= noise and len(pairs) == len(names):
            return ImportCheck(peer.name, largest)
        everywhere = (
            by_reference(self.proto, inputs, SECONDS) if not peer.reason and largest > noise else peer
        )
        orders = any(node.op_type == "TopK" for node in self.proto.graph.node)
        tied = _NEAR_TIES if noise > _NOISE else _NEAR_TIES_IN_ORDER if orders else ""
        self._compare_nodes(inputs, everywhere, noise, bool(tied))
        self._check_undeclared(peer.values)
        if largest > noise and tied and not everywhere.reason:
            return ImportCheck(everywhere.name, largest, tied)
        if largest > noise and orders:
            return ImportCheck(everywhere.name, None, everywhere.reason)
        if largest > noise:
            raise UnsupportedError(
                _disagreement(f"output {names[int(np.argmax(differences))]!r}", largest, peer.name)
            )
        return ImportCheck(peer.name if peer.values else "", None, peer.reason)

    def _compare_nodes(
        self, inputs: Mapping[str, np.ndarray], peer: Peer, noise: float, each: bool
    ) -> None:  # fmt: skip
        """Raise UnsupportedError at the first node one of whose results differs.

        each: a node gets what the other evaluator gives for its inputs, as where there are codes or an order:
        from one near-tie on two right evaluators may go different ways.
        """
        seen: dict[Origin, np.ndarray] = {}
        named = origins(self.raw["main"])
        theirs = {
            named[t]: peer.values[n] for n, t in self.tensors.items() if t in named and n in peer.values
        }

        def given(origin: Origin, value: np.ndarray) -> np.ndarray:
            other = theirs.get(origin, value)
            return other if (other.dtype, other.shape) == (value.dtype, value.shape) else value

        _run(
            self.raw,
            inputs,
            lambda _, origin, value: seen.update({origin: value}),
            given if each else None,
        )
        read = {i for node in self.proto.graph.node for i in node.input}
        read |= {o.name for o in self.proto.graph.output}
        for node, name in _results(self.proto):
            tensor = self.tensors.get(name)
            value = seen.get(named[tensor]) if tensor in named else constant(tensor)
            if name in read and name in peer.values and value is not None:
                difference = _difference(peer.values[name], value)
                if difference > noise:
                    where = f"node {_name(node)!r} ({node.op_type})"
                    raise UnsupportedError(_disagreement(where, difference, peer.name))


def _noise(proto: onnx.ModelProto) -> float:
    """The largest difference that is no fault."""
    ops = {node.op_type for node in proto.graph.node}
    if any(op.startswith("DynamicQuantize") for op in ops):
        return _NOISE_OF_ROUNDING
    codes = any(word in op for op in ops for word in ("Quantize", "QLinear", "QGemm", "NBits"))
    return _NOISE_OF_CODES if codes else _NOISE


def _run(
    module: tvm.IRModule,
    inputs: Mapping[str, np.ndarray],
    observe: Observe | None = None,
    instead: Instead | None = None,
) -> list[np.ndarray]:
    """The outputs of a module whose parameters are in the order of `inputs`, whatever their names.

    Raises UnsupportedError where an operator has no code, as TVM then says in its own words.
    """
    params = [str(p.name) for p in module["main"].params]
    try:
        return Interpreter(module).run(dict(zip(params, inputs.values(), strict=True)), observe, instead)
    except (ValueError, RuntimeError) as error:  # those of TVM are of the latter
        said = said_by_importer(error, "")
        raise UnsupportedError(f"the model was imported, but can't be computed: {said}") from error


def _disagreement(where: str, difference: float, peer: str) -> str:
    return (
        f"{where} was imported wrongly: its values differ from those of {peer} by {difference:.2g} of their "
        f"size; write it with other operators, or report it"
    )


def _results(proto: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str]]:
    """(node, tensor) of every result."""
    return ((node, name) for node in proto.graph.node for name in node.output if name)


def _name(node: onnx.NodeProto) -> str:
    return node.name or next(iter(node.output), node.op_type)


def _shape(tensor: Any) -> tuple[int, ...] | None:
    """The shape of what stands for a tensor; None where that is no tensor, or unknown."""
    if tensor is None or not isinstance(getattr(tensor, "ty", None), relax.TensorType):
        return None
    try:
        return shape_of(tensor)
    except ValueError:
        return None


def _fits(found: tuple[int, ...], value: onnx.ValueInfoProto) -> bool:
    """Whether an output may have that shape by what the file declares: axes without a size, or with one below
    1, may have any.
    """
    dims = value.type.tensor_type.shape.dim
    if not value.type.tensor_type.HasField("shape"):
        return True
    return len(dims) == len(found) and all(
        d.dim_value in (0, n) or d.dim_value < 0 for d, n in zip(dims, found, strict=True)
    )


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    """|x - y| / |x| of floats, the share of values that differ of others; infinite for other shapes."""
    expected = np.asarray(expected)
    if expected.shape != found.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    if expected.dtype.kind not in "f":
        share = float(np.mean(expected != found))
        return share if share > _TIES else 0.0
    x, y = (np.clip(a.astype(np.float64), -_FLOAT32_MAX, _FLOAT32_MAX) for a in (expected, found))
    if not np.array_equal(np.isnan(x), np.isnan(y)):
        return float("inf")
    x, y = np.nan_to_num(x), np.nan_to_num(y)
    return float(np.linalg.norm(x - y) / max(np.linalg.norm(x), 1e-6 * x.size**0.5))
