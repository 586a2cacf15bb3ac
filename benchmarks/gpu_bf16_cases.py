"""Operators with bfloat16 at one end, for gpu_operators.py."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

import numpy as np
from gpu_cases import BFLOAT16, E4M3, FLOAT32
from gpu_operator_case import CONVS, MODEL, Case, Values

from hwptq.formats import bf16
from hwptq.operators.add import FloatAdd
from hwptq.operators.avg_pool import FloatAvgPool
from hwptq.operators.clamp import Clamp
from hwptq.operators.conv2d import Conv2dToFloat, FloatConv2d
from hwptq.operators.dense import DenseToFloat, FloatDense
from hwptq.operators.dequantize import FloatDequantize
from hwptq.operators.lookup import Lookup
from hwptq.operators.max_pool import MaxPool
from hwptq.operators.mul import FloatMul
from hwptq.operators.pad import Pad
from hwptq.operators.quantize import FloatQuantize

#: In order on plain cores, and on the tensor cores of Hopper.
SUMS = {"in_order": (1, 23, 0), "in_steps": (16, 25, 0)}
OUTPUTS = ((BFLOAT16, 0), (E4M3, 0), ("int8", -7), (FLOAT32, 0))
#: All exponents of a bfloat16, so that products leave float32 at both ends.
WIDE = 240


def bfloat16_cases(v: Values) -> Iterator[Case]:
    """Layers in bfloat16 into each dtype, layers of other dtypes into bfloat16, and what lies between."""
    for name, model in SUMS.items():
        yield from _convolutions(v, name, model)
        yield from _dense(v, name, model)
    yield from _into_bfloat16(v)
    yield from _between(v)


def _convolutions(v: Values, name: str, model: tuple[int, int, int]) -> Iterator[Case]:
    for k, (n, h, w, c, o, kernel, *window) in enumerate(CONVS):
        for groups, outputs in ((1, o), (c, c)) if name == "in_order" else ((1, o),):
            x, weight = v.bf16(n, h, w, c), v.bf16(outputs, *kernel, c // groups)
            real = (v.reals(0.3, 3, outputs), v.reals(-1, 1, outputs))
            for out, zero in OUTPUTS:
                plain = FloatConv2d(*window, groups, 0.0, inf, out, model, 0.0, 0, zero)  # type: ignore[arg-type]
                yield Case(f"conv{k}_{groups}_bf16_{name}_to_{out}", plain, (x,), (weight, *real))
            shape = plain.reference(x, weight, *real).shape
            for dtype in (BFLOAT16, E4M3, "int8"):
                joined = FloatConv2d(*window, groups, -inf, inf, BFLOAT16, model, 0.7, 3 * (dtype == "int8"))  # type: ignore[arg-type]
                case = f"conv{k}_{groups}_bf16_{name}_add_{dtype}"
                yield Case(case, joined, (x, v.of(dtype, *shape)), (weight, *real))


def _dense(v: Values, name: str, model: tuple[int, int, int]) -> Iterator[Case]:
    for rows, depth, outputs in (((1,), 40, 10), ((3, 50), 384, 130), ((160,), 1000, 64)):
        for spread in (0, 40, *((WIDE,) if name == "in_order" else ())):
            x, w = v.bf16(*rows, depth, spread=spread), v.bf16(outputs, depth, spread=spread)
            real = (v.reals(0.3, 3, outputs), v.reals(-1, 1, outputs))
            for out in (BFLOAT16, FLOAT32) if spread < WIDE else (BFLOAT16,):
                op = FloatDense(-inf, inf, out, model)
                yield Case(f"dense_{depth}_bf16_{name}_{spread}_to_{out}", op, (x,), (w, *real))


def _into_bfloat16(v: Values) -> Iterator[Case]:
    """Layers in e4m3 and in int8 that write it, also with a residual in it."""
    n, h, w, c, o, kernel, *window = CONVS[0]
    real = (v.reals(0.3, 3, o), v.reals(-1, 1, o))
    weight = (o, *kernel, c)
    to: Any = Conv2dToFloat(*window, 1, -9, 0.0, 3.0, BFLOAT16)  # type: ignore[arg-type]
    constants = (v.int8(*weight), v.fixed(o, c * 9)[0], v.reals(1e-4, 2e-4, o))
    yield Case("conv0_int8_to_bf16", to, (v.int8(n, h, w, c),), constants)
    deep = (v.int8(64, 100), v.fixed(64, 100)[0], v.reals(1e-5, 1e-4, 64))
    yield Case("dense_int8_to_bf16", DenseToFloat(4, -inf, 1.5, BFLOAT16), (v.int8(160, 100),), deep)
    for out in (BFLOAT16, E4M3):
        plain = FloatConv2d(*window, 1, -inf, inf, out, MODEL)  # type: ignore[arg-type]
        x, e4m3 = v.e4m3(n, h, w, c), v.e4m3(*weight)
        yield Case(f"conv0_fp8_to_{out}", plain, (x,), (e4m3, *real))
        shape = plain.reference(x, e4m3, *real).shape
        joined = FloatConv2d(*window, 1, -inf, inf, out, MODEL, 0.7)  # type: ignore[arg-type]
        yield Case(f"conv0_fp8_to_{out}_add_bf16", joined, (x, v.bf16(*shape)), (e4m3, *real))


def _between(v: Values) -> Iterator[Case]:
    """Operators without weights."""
    shape = (2, 5, 7, 20)
    ends = ((BFLOAT16, BFLOAT16), (BFLOAT16, E4M3), ("int8", BFLOAT16), (BFLOAT16, "int8"))
    for a, b in ends:
        for out in (BFLOAT16, E4M3, "int8"):
            zeros = (3 if a == "int8" else 0, -9 if b == "int8" else 0, out, 5 if out == "int8" else 0)
            x, y = v.of(a, *shape), v.of(b, *shape[-1:])
            yield Case(f"add_{a}_{b}_{out}_bf16", FloatAdd(0.3, -1.7, -inf, 90.0, *zeros), (x, y))
            yield Case(f"mul_{a}_{b}_{out}_bf16", FloatMul(0.3, 0.0, inf, *zeros), (x, y))
    x = v.bf16(*shape, spread=WIDE)
    for out in (BFLOAT16, E4M3, "int8"):
        yield Case(f"lookup_bf16_{out}", Lookup(), (x,), (v.of(out, 1 << 16),))
    yield Case("lookup_int8_bf16", Lookup(), (v.int8(*shape),), (v.bf16(256),))
    yield Case("lookup_fp8_bf16", Lookup(), (v.e4m3(*shape),), (v.bf16(256),))
    limits = np.sort(bf16.decode(v.bf16(2, 20)), axis=0)
    yield Case("clamp_bf16", Clamp(), (x,), tuple(bf16.encode(limit) for limit in limits))
    yield Case("max_bf16", MaxPool((3, 2), (2, 2), (1, 1, 1, 0), (1, 1), (3, 4)), (x,))
    yield Case("pad_bf16", Pad((0, 1, 0, 2), (0, 0, 3, 1), 0x3F80), (x,))
    for out, zero in ((BFLOAT16, 0), ("int8", 4)):
        mean = FloatAvgPool((2, 3), (2, 2), (0, 1, 0, 1), (2, 4), -inf, inf, 0, out, zero)
        yield Case(f"mean_bf16_{out}", mean, (v.bf16(*shape),), (v.reals(0.1, 0.3, 8),))
    bits = v.rng.integers(0, 1 << 32, 1 << 12, dtype=np.uint32)
    finite = np.where((bits >> 23) & 255 == 255, np.uint32(0x3F808000), bits).view(np.float32)
    yield Case("quantize_bf16", FloatQuantize(1.0, BFLOAT16), (finite,))
    yield Case("dequantize_bf16", FloatDequantize(1.0), (x,))
