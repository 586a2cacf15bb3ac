"""The operators of a graph in floats, as frozen dataclasses: the other side of integer_ops.py.

They are named after e4m3, and take bfloat16 in its place. Images are NHWC. Layers and products take both
operands in one of the two; the others, and a residual, also take int8, whose value is then x - zero_point.
real = value * scale; e4m3 has no zero point, bfloat16 none and the scale 1. Whatever is computed in float32
on the way is one rounding to nearest at a time, so results are defined to the bit: `fma(a, b, c)` rounds
once. `lo` and `hi` are bounds of the result y in the output's scale (infinite where there is none); a clamp
turns NaN into `lo`, without one NaN stays NaN.

`out` is the dtype of the output: float8_e4m3fn, encoded as fp8.encode says; bfloat16, as bf16.encode does;
int8, which is clamp(round_half_even(y) + out_zero_point, -128, 127) with -128 for NaN; or float32 at the end
of a graph, where y is the real value. `accumulator` holds the fields of fp8_accumulate.Accumulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

Bounds = tuple[float, float]


def parts_of_window(weight: tuple[int, ...], step: int) -> tuple[int, int]:
    """(parts, products of each) of a window of weights [O,KH,KW,I]: the accumulator begins each at a step.

    A part is a row of the window where that fits one step, as with the 3 channels of an image; else a tap.
    """
    _, kh, kw, depth = weight
    return (kh, kw * depth) if kw * depth <= step else (kh * kw, depth)


@dataclass(frozen=True)
class Fp8Conv2d:
    """(x [N,H,W,I], w [O,KH,KW,I/groups], scale [O], bias [O]) -> [N,OH,OW,O]; scale and bias float32.

    y = fma(acc, scale, bias). With a factor `residual` other than 0 a tensor r of the output's shape follows
    x, and y becomes fma(value of r, residual, y).

    groups = 1: acc as in fp8_accumulate or bf16_accumulate, over taps in row-major order and the channels of
    each; every part of the window (parts_of_window) is padded with zeros to a multiple of the accumulator's
    step. groups > 1: acc is a float32 that the products are added to in that order, fma(x, w, acc), those of
    the padding's zeros too.
    """

    kind: ClassVar[str] = "fp8_conv2d"
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, left, bottom, right
    dilation: tuple[int, int]
    groups: int
    lo: float
    hi: float
    out: str
    accumulator: tuple[int, int, int]
    residual: float = 0.0
    residual_zero_point: int = 0
    out_zero_point: int = 0


@dataclass(frozen=True)
class Fp8Dense:
    """(x [..., K], w [O,K], scale [O], bias [O]) -> [..., O]; y = fma(acc, scale, bias).

    `residual` as in Fp8Conv2d.
    """

    kind: ClassVar[str] = "fp8_dense"
    lo: float
    hi: float
    out: str
    accumulator: tuple[int, int, int]
    residual: float = 0.0
    residual_zero_point: int = 0
    out_zero_point: int = 0


@dataclass(frozen=True)
class Conv2dToFp8:
    """(x int8 [N,H,W,I], w int8 [O,KH,KW,I/groups], bias int32 [O], scale float32 [O]) -> [N,OH,OW,O].

    A layer in integers before one in floats: y = float32(acc) * scale, with acc as in integer_ops.Conv2d,
    rounded once to the nearest float32, ties to even, and the product once.
    """

    kind: ClassVar[str] = "conv2d_to_fp8"
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, left, bottom, right
    dilation: tuple[int, int]
    groups: int
    in_zero_point: int
    lo: float
    hi: float
    out: str = "float8_e4m3fn"


@dataclass(frozen=True)
class DenseToFp8:
    """(x int8 [..., K], w int8 [O,K], bias int32 [O], scale float32 [O]) -> [..., O].

    y as in Conv2dToFp8.
    """

    kind: ClassVar[str] = "dense_to_fp8"
    in_zero_point: int
    lo: float
    hi: float
    out: str = "float8_e4m3fn"


@dataclass(frozen=True)
class Fp8MatMul:
    """(a [..., M,K], b [..., K,N]) -> [..., M,N], equal leading axes; y = acc * factor."""

    kind: ClassVar[str] = "fp8_matmul"
    factor: float
    lo: float
    hi: float
    out: str
    accumulator: tuple[int, int, int]
    out_zero_point: int = 0


@dataclass(frozen=True)
class Fp8Add:
    """(a, b) -> broadcast shape; y = fma(a, a_factor, b * b_factor)."""

    kind: ClassVar[str] = "fp8_add"
    a_factor: float
    b_factor: float
    lo: float
    hi: float
    a_zero_point: int = 0
    b_zero_point: int = 0
    out: str = "float8_e4m3fn"
    out_zero_point: int = 0


@dataclass(frozen=True)
class Fp8Mul:
    """(a, b) -> broadcast shape; y = (a * b) * factor."""

    kind: ClassVar[str] = "fp8_mul"
    factor: float
    lo: float
    hi: float
    a_zero_point: int = 0
    b_zero_point: int = 0
    out: str = "float8_e4m3fn"
    out_zero_point: int = 0


@dataclass(frozen=True)
class Fp8Lookup:
    """(x, table [256] or, for bfloat16, [65536]) -> table[code of x]: any function of one tensor, exact.

    The result has the table's dtype.
    """

    kind: ClassVar[str] = "fp8_lookup"


@dataclass(frozen=True)
class Fp8Clamp:
    """(x [..., C], lo [C], hi [C]), of one dtype -> x in [lo, hi], channel by channel; NaN becomes lo."""

    kind: ClassVar[str] = "fp8_clamp"


@dataclass(frozen=True)
class Fp8MaxPool:
    """(x [N,H,W,C]) -> [N,OH,OW,C]; padding never wins, and neither does NaN."""

    kind: ClassVar[str] = "fp8_max_pool"
    pool_size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    out_shape: tuple[int, int]  # OH, OW: ceil mode is resolved here


@dataclass(frozen=True)
class Fp8AvgPool:
    """(x [N,H,W,C], factor float32 [OH*OW]) -> [N,OH,OW,C].

    acc is a float32 that the window is added to in row-major order; y = acc * factor of the output pixel.
    """

    kind: ClassVar[str] = "fp8_avg_pool"
    pool_size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    out_shape: tuple[int, int]
    lo: float
    hi: float
    in_zero_point: int = 0
    out: str = "float8_e4m3fn"
    out_zero_point: int = 0


@dataclass(frozen=True)
class Fp8Pad:
    """(x) -> x padded with `value` (a code) by `before[i]`, `after[i]` elements on axis i."""

    kind: ClassVar[str] = "fp8_pad"
    before: tuple[int, ...]
    after: tuple[int, ...]
    value: int


@dataclass(frozen=True)
class Fp8Quantize:
    """(x float32) -> e4m3 or bfloat16: encode(x * factor), factor the float32 nearest to 1 / scale."""

    kind: ClassVar[str] = "fp8_quantize"
    factor: float
    out: str = "float8_e4m3fn"


@dataclass(frozen=True)
class Fp8Dequantize:
    """(x) -> float32: x * scale, one rounding."""

    kind: ClassVar[str] = "fp8_dequantize"
    scale: float


#: Layers in integers whose result is a float.
LayerToFp8 = Conv2dToFp8 | DenseToFp8
Fp8Op = (
    Fp8Conv2d | Fp8Dense | Conv2dToFp8 | DenseToFp8 | Fp8MatMul | Fp8Add | Fp8Mul
    | Fp8Clamp | Fp8Lookup | Fp8MaxPool | Fp8AvgPool | Fp8Pad | Fp8Quantize | Fp8Dequantize
)  # fmt: skip
