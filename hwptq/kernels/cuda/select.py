"""Kernels for NVIDIA GPUs: products on tensor cores by templates, rows by warps, else element by element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from hwptq.ir.real_operator import RealOperator
from hwptq.kernels.joins import AttentionJoin, ElementsJoin, Joined, NormJoin, RowsJoin
from hwptq.kernels.layer import Layer
from hwptq.kernels.select import Selector
from hwptq.operators.dense import DenseFloat
from hwptq.operators.group_dense import GroupDense
from hwptq.operators.real_order import RealOrder
from hwptq.operators.rows import RowRescale
from hwptq.tir.builder import TEMPLATE
from hwptq.tir.kernel import Step, TensorType

from .attention import attention_kernel
from .concatenate import concatenation
from .element import elementwise_kernel
from .elements import elements_kernel
from .group_dense import rescaled_group_dense
from .order import order_steps
from .real_rows import rows_kernel
from .rows import norm_kernel, row_kernel
from .tensor_cores import summed_by_step


class GpuSelector(Selector):
    """Layers that no template takes, or whose products are summed in order, get one element a thread."""

    kind: ClassVar[str] = "cuda"

    def steps(self, layer: Layer, tile: int = 0) -> tuple[Step, ...]:
        """Raises ValueError where the descriptor names no kernel for products that tensor cores sum, too."""
        op, activations, constants, out = layer.op, layer.activations, layer.constants, layer.out
        template = self.template(layer)
        if template is not None:
            return template.steps(layer)
        if summed_by_step(op):
            kind, dtype = op.rule(constants), activations[0].dtype
            raise ValueError(f"{self.target.name}: {kind} in {dtype} needs a kernel for tensor cores")
        inputs = [*activations, *(TensorType(c.shape, str(c.dtype)) for c in constants)]
        args = (*range(len(activations)), *constants)
        together = row_kernel(op, inputs, out, self.target.gpu)
        if together is not None:
            return (Step(together, args, out, f"{op.kind}_rows"),)
        func = elementwise_kernel(op, inputs, out, {TEMPLATE: "flat"})
        return (Step(func, args, out, f"{op.kind}_flat"),)

    def real(self, op: RealOperator, inputs: Sequence[TensorType], out: TensorType) -> tuple[Step, ...]:
        return order_steps(op, inputs[0], out) if isinstance(op, RealOrder) else ()

    def attention(self, join: AttentionJoin) -> Joined | None:
        return attention_kernel(join, self.target.gpu)

    def norm(self, join: NormJoin) -> Joined | None:
        return norm_kernel(join, self.target.gpu)

    def rows(self, join: RowsJoin) -> Joined | None:
        return rows_kernel(join, self.target.gpu)

    def elements(self, join: ElementsJoin) -> Joined | None:
        return elements_kernel(join)

    def dense_rescaled(
        self, op: DenseFloat | GroupDense, by: RowRescale, x: TensorType, constants: Sequence[np.ndarray]
    ) -> Joined | None:
        if isinstance(op, GroupDense):
            return rescaled_group_dense(op, by, x, constants, self.target.gpu)
        return super().dense_rescaled(op, by, x, constants)

    def concatenation(self, inputs: Sequence[TensorType], axis: int, out: TensorType) -> Step:
        func = concatenation(inputs, axis, out, {TEMPLATE: "concatenate"})
        return Step(func, tuple(range(len(inputs))), out, "concatenate")
