"""The sigmoid of float32 in steps that round alike everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.ir.operator import Operator
from hwptq.quant.float_attention import exponential
from hwptq.tir import float_steps
from hwptq.tir.builder import Expr, Flat, constant, share_spans
from hwptq.tir.kernel import TensorType
from hwptq.tir.vector_unit import VectorUnit

_COST = 8  # multiply-accumulates that take as long as a value


@dataclass(frozen=True)
class RealSigmoid(Operator):
    """(x float32) -> float32 of that shape: with e = exponential(-|x|) of quant/float_attention.py

    1 / (1 + e) where x >= 0, else e / (1 + e)
    """

    kind: ClassVar[str] = "real_sigmoid"
    without_rule: ClassVar[str] = "a sigmoid that stays in float"
    by_value: ClassVar[bool] = True
    in_float: ClassVar[bool] = True

    def reference(self, x) -> np.ndarray:
        e = exponential(-np.abs(x))
        return np.where(x >= 0, np.float32(1), e) / (np.float32(1) + e)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        size = prod(out.shape)

        def emit(source: Flat, y: Flat) -> None:
            def block(at: Expr, lanes: int, _: int) -> None:
                zero, one = (constant(v, "float32", lanes) for v in (0.0, 1.0))
                x = T.bind(source.load(at, lanes))
                e = float_steps.exponential(T.bind(T.min(x, zero - x)), lanes)
                y.store(at, T.Select(x >= zero, one, e) / T.bind(one + e), lanes)

            share_spans(size, unit.float_width(size), unit.shared(_COST * size), block)

        return emit

    def element_by_element(self, unit: VectorUnit) -> bool:
        return unit.float_lanes == 1
