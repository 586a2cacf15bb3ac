"""Products of codes whose scales are found at run time, as products of real values and quantized weights.

DynamicQuantizeLinear, MatMulInteger or ConvInteger, Cast and Mul are one product of the tensor that is
quantized and the weight whose codes are given. The codes of the weight stay; how the tensor is quantized is
for the options of the compilation to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto

from .code_parts import DEQUANTIZE, QUANTIZE, CodeParts, attributes_of
from .parts import given
from .surroundings import Surroundings, attribute

_DYNAMIC = "DynamicQuantizeLinear"
_PRODUCTS = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}


def products_of_real_values(graph: onnx.GraphProto, around: Surroundings) -> list[onnx.NodeProto] | None:
    """The nodes of a graph with such products in the place of their last nodes; None where there are none.
    What led to them stays, for nobody to read."""
    if not any(node.op_type in (*_PRODUCTS, _DYNAMIC) for node in graph.node):
        return None
    view = _View(graph, around)
    found = [p for node in graph.node if node.op_type in _PRODUCTS and (p := view.product(node))]
    by_last = {p.last: p for p in found}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] in by_last:
            nodes += _written(by_last[node.output[0]], around)
        elif (real := view.real_of_dynamic(node)) is not None:
            parts = CodeParts(around, node)
            parts.op("Identity", [real], node.output[0])
            nodes += parts.nodes
        else:
            nodes.append(node)
    return nodes


def dynamic_quantize_matmul(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A B + bias, where A is real and B codes: (A, B, scale, zero point, bias)."""
    return _fused(around, node, node.input[0], (node.input[1], node.input[2], given(node, 3)), given(node, 4))


def matmul_integer_to_float(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A B + bias, both codes: (A, B, scales of both, zero points of both, bias)."""
    a, b, a_scale, b_scale, a_zero, b_zero, bias = (given(node, i) for i in range(7))
    parts = CodeParts(around, node)
    real = parts.real(a, a_scale, a_zero)
    return [*parts.nodes, *_fused(around, node, real, (b, b_scale, b_zero), bias)]


def _fused(
    around: Surroundings, node: onnx.NodeProto, a: str, weight: tuple[str, str, str], bias: str
) -> list[onnx.NodeProto]:
    parts = CodeParts(around, node)
    product = [a, parts.real(*weight, axis=1)]
    if bias:
        parts.op("Add", [parts.layer("MatMul", product), bias], node.output[0])
    else:
        parts.layer("MatMul", product, node.output[0])
    return parts.nodes


@dataclass(frozen=True)
class _Operand:
    """One side of a product: a tensor and the name of its scale, "" for a weight of an unknown one."""

    tensor: str
    zero: str
    scale: str = ""
    dynamic: bool = False

    @property
    def is_weight(self) -> bool:
        return not self.scale


@dataclass
class _Product:
    """MatMulInteger or ConvInteger, its operands, and the tensor that holds the real result."""

    node: onnx.NodeProto
    operands: tuple[_Operand, _Operand]
    last: str
    constants: list[np.ndarray] = field(default_factory=list)  # whose product is the scale of the weight


class _View:
    """Who makes and who reads each tensor of a graph."""

    def __init__(self, graph: onnx.GraphProto, around: Surroundings):
        self.around = around
        self.maker = {o: node for node in graph.node for o in node.output if o}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in filter(None, node.input):
                self.readers.setdefault(name, []).append(node)
        for value in graph.output:
            self.readers.setdefault(value.name, []).append(onnx.NodeProto())

    def product(self, node: onnx.NodeProto) -> _Product | None:
        """What a product of codes belongs to; None where its result isn't made real by its scales."""
        operands = self._operand(node, 0), self._operand(node, 1)
        cast = self._only_reader(node.output[0])
        if cast is None or cast.op_type != "Cast" or attribute(cast, "to") != TensorProto.FLOAT:
            return None
        product = _Product(node, operands, cast.output[0])
        wanted = [o.scale for o in operands if o.dynamic]
        needs_weight = any(o.is_weight for o in operands)
        while wanted or (needs_weight and not product.constants):
            scaled = self._only_reader(product.last)
            if scaled is None or scaled.op_type != "Mul":
                break
            other = scaled.input[1] if scaled.input[0] == product.last else scaled.input[0]
            for leaf in self._factors(other):
                constant = self.around.constant(leaf)
                if leaf in wanted:
                    wanted.remove(leaf)
                elif constant is not None:
                    product.constants.append(constant)
                else:
                    return None
            product.last = scaled.output[0]
        return None if wanted else product

    def real_of_dynamic(self, node: onnx.NodeProto) -> str | None:
        """The tensor that a DequantizeLinear brings back from DynamicQuantizeLinear."""
        maker = self.maker.get(node.input[0]) if node.op_type == DEQUANTIZE else None
        if maker is None or maker.op_type != _DYNAMIC or list(node.input[:3]) != list(maker.output):
            return None
        return maker.input[0]

    def _operand(self, node: onnx.NodeProto, index: int) -> _Operand:
        codes, zero = node.input[index], given(node, 2 + index)
        maker = self.maker.get(codes)
        if maker is not None and maker.op_type == _DYNAMIC and zero == maker.output[2]:
            return _Operand(maker.input[0], zero, maker.output[1], dynamic=True)
        if maker is not None and maker.op_type == QUANTIZE:
            return _Operand(codes, zero, maker.input[1])
        return _Operand(codes, zero)

    def _only_reader(self, name: str) -> onnx.NodeProto | None:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 else None

    def _factors(self, name: str) -> list[str]:
        """The tensors that a tensor is the product of."""
        maker = self.maker.get(name)
        if maker is None or maker.op_type != "Mul" or self.around.constant(name) is not None:
            return [name]
        return [f for i in maker.input for f in self._factors(i)]


def _written(product: _Product, around: Surroundings) -> list[onnx.NodeProto]:
    parts = CodeParts(around, product.node)
    known = [around.constant(o.scale) for o in product.operands if o.scale and not o.dynamic]
    scale: np.ndarray = np.ones((), np.float32)
    for constant in product.constants:
        scale = scale * constant.astype(np.float32)
    for of_input in known:
        scale = scale if of_input is None else scale / of_input.astype(np.float32)
    reals = [_real(parts, o, scale, product.node) for o in product.operands]
    parts.layer(_PRODUCTS[product.node.op_type], reals, product.last, **attributes_of(product.node))
    return parts.nodes


def _real(parts: CodeParts, operand: _Operand, scale: np.ndarray, node: onnx.NodeProto) -> str:
    """The real values of an operand."""
    if operand.dynamic:
        return operand.tensor
    if operand.scale:
        return parts.real(operand.tensor, operand.scale, operand.zero)
    array = parts.around.constant(operand.tensor)
    first = node.op_type == "ConvInteger"
    axis: Mapping[str, int] = {}
    if np.size(scale) > 1:
        axis = {"axis": 0 if first or array is None else array.ndim - 1}
    name = parts.constant(np.reshape(scale, -1 if np.size(scale) > 1 else ()))
    return parts.real(operand.tensor, name, _spread(parts, operand.zero, np.size(scale)), **axis)


def _spread(parts: CodeParts, zero: str, count: int) -> str:
    """A zero point in the shape of the scales beside it."""
    array = parts.around.constant(zero) if zero else None
    if array is None or array.size == count:
        return zero
    return parts.constant(np.broadcast_to(array.reshape(-1), (count,)), array.dtype)
