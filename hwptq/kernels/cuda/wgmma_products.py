"""Products by warpgroups: the template of [kernel.*] tables for NVIDIA Hopper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwptq.kernels.joins import Joined
from hwptq.kernels.layer import Layer
from hwptq.kernels.template import Template
from hwptq.operators.dense import Dense, DenseFloat
from hwptq.operators.rows import RowRescale
from hwptq.targets.templates.wgmma import WgmmaKernel
from hwptq.tir.kernel import Step, TensorType

from .float_products import product_steps
from .int8_products import dense_beside, dense_rescaled, dense_with_table, int8_product_steps
from .tensor_cores import in_integers, summed_by_step


class Wgmma(Template[WgmmaKernel]):
    """Layers in floats or int8, and products of two activations in floats."""

    table = WgmmaKernel

    def takes(self, layer: Layer) -> bool:
        return summed_by_step(layer.op) or in_integers(layer)

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        tensors = layer.activations, layer.constants, layer.out
        if summed_by_step(layer.op):
            return product_steps(layer.op, *tensors, self.kernel)
        return int8_product_steps(layer.op, *tensors, self.kernel)

    def beside(
        self, ops: Sequence[Dense], x: TensorType, constants: Sequence[Sequence[np.ndarray]]
    ) -> Joined | None:
        return dense_beside(ops, x, constants, self.kernel)

    def rescaled(
        self, op: DenseFloat, by: RowRescale, x: TensorType, constants: Sequence[np.ndarray]
    ) -> Joined | None:
        return dense_rescaled(op, by, x, constants, self.kernel)

    def with_table(
        self, op: Dense, x: TensorType, constants: Sequence[np.ndarray], table: np.ndarray
    ) -> Joined | None:
        return dense_with_table(op, x, constants, table, self.kernel)
