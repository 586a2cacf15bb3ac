"""Dense layers on int16 by an instruction on bytes: 256 times the sum over upper ones, and the lower ones.

    x = 256 (x >> 8) + (x & 255),    sum x w = 256 sum (x >> 8) w + sum (x & 255) w

modulo 2^32, which is exact where the sum itself fits an int32. It takes twice as long as a layer on bytes.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.operators.layers import IntegerDense
from hwptq.tir.builder import TEMPLATE, Expr, Flat, cast, constant, primfunc
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import Layout
from hwptq.tir.stored import Stored
from hwptq.tir.vector_unit import VectorUnit

from .layer import Layer
from .register_tile import Mac

_BYTE, _MIDDLE = 8, 128


def splits(layer: Layer) -> bool:
    """Whether the sums of a dense layer on int16 fit 32 bits."""
    op = layer.op
    return isinstance(op, IntegerDense) and op.acc_shift == 0 and not op.weight_group


def split_bytes(x: TensorType, layout: Layout, unit: VectorUnit) -> Step:
    """int16 x -> its upper bytes, then the lower ones less 128, as int8 values in `layout`."""
    out = TensorType((2, *x.shape), "int8", layout)
    size = prod(x.shape)

    def emit(source: Flat, halves: Flat) -> None:
        upper = Stored(halves, out)
        lower = replace(upper, flat=halves.behind(size))

        def some(at: Expr, lanes: int, count: int) -> None:
            value = T.bind(source.load(at, lanes))
            high = T.shift_right(value, constant(_BYTE, "int16", lanes))
            upper.store(at, cast(high, "int8", lanes), lanes, count)
            # the sign bit of a byte turned is 128 less, modulo 256
            low = T.bitwise_xor(value, constant(_MIDDLE, "int16", lanes))
            lower.store(at, cast(low, "int8", lanes), lanes, count)

        unit.cover(size, some)

    func = primfunc([x, out], {TEMPLATE: "split_bytes"}, emit)
    return Step(func, (0,), out, "split_bytes")


def without_halves(bias: np.ndarray, weight: np.ndarray, mac: Mac) -> np.ndarray:
    """The bias that cancels what `mac` and the lower bytes add to the activations; modulo 2^32."""
    sums = weight.reshape(len(weight), -1).sum(axis=1, dtype=np.int64)
    added = _MIDDLE << _BYTE if mac.activation == "uint8" else -_MIDDLE
    return (bias.astype(np.int64) - added * sums).astype(np.int32)
