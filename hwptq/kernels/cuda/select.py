"""Kernels for NVIDIA GPUs: products on tensor cores by templates, rows by warps, else element by element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from hwptq.kernels.joins import AttentionJoin, Joined, NormJoin
from hwptq.kernels.layer import Layer
from hwptq.kernels.schedule import schedule_of
from hwptq.kernels.select import Selector
from hwptq.kernels.template import Template, template_of
from hwptq.operators.dense import Dense
from hwptq.tir.builder import TEMPLATE
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.vector_unit import unit_of

from .attention import attention_kernel
from .concatenate import concatenation
from .element import elementwise_kernel
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
        together = row_kernel(op, inputs, out)
        if together is not None:
            return (Step(together, args, out, f"{op.kind}_rows"),)
        func = elementwise_kernel(op, inputs, out, {TEMPLATE: "flat"})
        return (Step(func, args, out, f"{op.kind}_flat"),)

    def attention(self, join: AttentionJoin) -> Joined | None:
        return attention_kernel(join)

    def norm(self, join: NormJoin) -> Joined | None:
        return norm_kernel(join)

    def dense_beside(
        self, ops: Sequence[Dense], x: TensorType, constants: Sequence[Sequence[np.ndarray]]
    ) -> Joined | None:
        template = self._of(ops[0])
        return template.beside(ops, x, constants) if template else None

    def dense_with_table(
        self, op: Dense, x: TensorType, constants: Sequence[np.ndarray], table: np.ndarray
    ) -> Joined | None:
        template = self._of(op)
        return template.with_table(op, x, constants, table) if template else None

    def _of(self, op: Dense) -> Template[Any] | None:
        """The template of the table that the target names for dense layers."""
        rule = self.target.rule(op.family)
        if rule is None or not rule.kernel:
            return None
        unit, schedule = unit_of(self.target, self.threads), schedule_of(self.target)
        return template_of(self.target.kernels[rule.kernel], unit, schedule)

    def concatenation(self, inputs: Sequence[TensorType], axis: int, out: TensorType) -> Step:
        func = concatenation(inputs, axis, out, {TEMPLATE: "concatenate"})
        return Step(func, tuple(range(len(inputs))), out, "concatenate")
