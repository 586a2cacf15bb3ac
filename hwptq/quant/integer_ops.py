"""The integer operators: what a quantized graph is made of, as frozen dataclasses.

One description serves everybody: the numpy reference evaluates it, the kernel templates implement it, and
the graph carries it (as JSON, in an attribute of the PrimFunc), so a graph made for one device gives the
same integers on any other. All activations are int8; images are NHWC. `lo` and `hi` are the inclusive
bounds of the output: the int8 range, narrowed by a fused activation.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, get_args

from .fp8_ops import Fp8Op


@dataclass(frozen=True)
class Conv2d:
    """(x [N,H,W,I], w [O,KH,KW,I/groups], bias [O], multiplier [O], shift [O]) -> [N,OH,OW,O].

    bias, multiplier and shift are int32. acc = bias + sum x*w, with x = in_zero_point in the padding. The
    bias already holds -in_zero_point * sum w, so x enters as it is stored. groups == I == O / m is a
    depthwise convolution with multiplier m.

    weight_bits = 4: every weight is 16 times an int4 value, so a kernel may store its upper nibble only; the
    factor is part of the scale. With a weight_group as well, that many input channels of a tap have a factor
    of their own, 1 … 16, in place of 16 (quant/weight_groups.py). activation_bits = 4: every x lies in
    [-8, 7]. None of it changes the arithmetic.
    """

    kind: ClassVar[str] = "conv2d"
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, left, bottom, right
    dilation: tuple[int, int]
    groups: int
    in_zero_point: int
    out_zero_point: int
    lo: int
    hi: int
    weight_bits: int = 8
    activation_bits: int = 8
    weight_group: int = 0


@dataclass(frozen=True)
class Dense:
    """(x [..., K], w [O,K], bias int32 [O], multiplier int32 [O], shift int32 [O]) -> [..., O].

    weight_bits, activation_bits and weight_group as in Conv2d.
    """

    kind: ClassVar[str] = "dense"
    in_zero_point: int
    out_zero_point: int
    lo: int
    hi: int
    weight_bits: int = 8
    activation_bits: int = 8
    weight_group: int = 0


@dataclass(frozen=True)
class DenseFloat:
    """(x [..., K], w [O,K], bias int32 [O], scale float32 [O]) -> float32 [..., O]: a Dense read as numbers.

    float32(acc) * scale: acc, as in Dense, is rounded once to the nearest float32, ties to even, and the
    product once. The last three fields as in Conv2d.
    """

    kind: ClassVar[str] = "dense_float"
    weight_bits: int = 8
    activation_bits: int = 8
    weight_group: int = 0


@dataclass(frozen=True)
class MatMul:
    """(a [..., M,K], b [..., K,N]) -> [..., M,N], leading axes broadcast; acc = sum (a - za) * (b - zb)."""

    kind: ClassVar[str] = "matmul"
    a_zero_point: int
    b_zero_point: int
    multiplier: int
    shift: int
    out_zero_point: int
    lo: int
    hi: int


@dataclass(frozen=True)
class Add:
    """(a, b) -> broadcast shape; acc = (a - za) * a_factor + (b - zb) * b_factor, then requantize.

    The factors bring both operands to one scale, in steps of 2^-20 of the coarser one; a negative factor
    subtracts.
    """

    kind: ClassVar[str] = "add"
    a_zero_point: int
    b_zero_point: int
    a_factor: int
    b_factor: int
    multiplier: int
    shift: int
    out_zero_point: int
    lo: int
    hi: int


@dataclass(frozen=True)
class Mul:
    """(a, b) -> broadcast shape; acc = ((a - za) * (b - zb)) << 13, then requantize.

    The left shift keeps the multiplier below 1/2 for every sensible choice of scales.
    """

    kind: ClassVar[str] = "mul"
    a_zero_point: int
    b_zero_point: int
    multiplier: int
    shift: int
    out_zero_point: int
    lo: int
    hi: int


@dataclass(frozen=True)
class Clamp:
    """(x [..., C], lo int8 [C], hi int8 [C]) -> x limited to [lo, hi], channel by channel."""

    kind: ClassVar[str] = "clamp"


@dataclass(frozen=True)
class Lookup:
    """(x, table [256]) -> table[x + 128]: any function of one int8 tensor, exact, in the table's dtype."""

    kind: ClassVar[str] = "lookup"


@dataclass(frozen=True)
class MaxPool:
    """(x [N,H,W,C]) -> [N,OH,OW,C]; padding never wins."""

    kind: ClassVar[str] = "max_pool"
    pool_size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    out_shape: tuple[int, int]  # OH, OW: ceil mode is resolved here


@dataclass(frozen=True)
class AvgPool:
    """(x [N,H,W,C], multiplier int32 [OH*OW], shift int32 [OH*OW]) -> [N,OH,OW,C].

    acc = (sum over the window of (x - in_zero_point)) * factor, padding adds nothing. The multiplier is per
    output pixel, since windows at the border may hold fewer values (count_include_pad = false, ceil mode).
    """

    kind: ClassVar[str] = "avg_pool"
    pool_size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    out_shape: tuple[int, int]
    factor: int
    in_zero_point: int
    out_zero_point: int
    lo: int
    hi: int


@dataclass(frozen=True)
class Resize:
    """(x [N,H,W,C], rows int32 [OH], columns int32 [OW]) -> [N,OH,OW,C]: x[n, rows[i], columns[j], c].

    Resizing to the nearest neighbour, by whatever rule that is chosen.
    """

    kind: ClassVar[str] = "resize"


@dataclass(frozen=True)
class Pad:
    """(x) -> x padded with `value` by `before[i]`, `after[i]` elements on axis i."""

    kind: ClassVar[str] = "pad"
    before: tuple[int, ...]
    after: tuple[int, ...]
    value: int


@dataclass(frozen=True)
class Quantize:
    """(x float32) -> int8: clamp(round_half_even(x / scale) + zero_point, -128, 127), scale a float32."""

    kind: ClassVar[str] = "quantize"
    scale: float
    zero_point: int


@dataclass(frozen=True)
class Dequantize:
    """(x int8) -> float32: (x - zero_point) * scale, one rounding."""

    kind: ClassVar[str] = "dequantize"
    scale: float
    zero_point: int


#: Layers: operators with weights.
DenseOp = Dense | DenseFloat
LayerOp = Conv2d | DenseOp
WeightlessOp = MatMul | Add | Mul | Clamp | Lookup | MaxPool | AvgPool | Resize | Pad | Quantize | Dequantize
IntegerOp = LayerOp | WeightlessOp
#: What a node of a quantized graph computes.
GraphOp = IntegerOp | Fp8Op
_BY_KIND: dict[str, type] = {cls.kind: cls for cls in get_args(GraphOp)}

#: The attribute of a PrimFunc that holds the operator it implements.
ATTRIBUTE = "hwptq.op"


def to_json(op: GraphOp) -> str:
    """The operator as a JSON object: its `kind` and its fields."""
    return json.dumps({"kind": op.kind, **asdict(op)})


def from_json(text: str) -> GraphOp:
    """The inverse of to_json. Raises ValueError for an unknown kind or missing fields."""
    values = json.loads(text)
    kind = values.pop("kind", None)
    if kind not in _BY_KIND:
        raise ValueError(f"unknown integer operator {kind!r}")
    cls = _BY_KIND[kind]
    names = {f.name for f in fields(cls)}
    if set(values) != names:
        raise ValueError(f"{kind}: fields {sorted(values)} instead of {sorted(names)}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
