"""Kernels for NVIDIA GPUs: products on tensor cores by templates, all else element by element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from hwptq.kernels.layer import Layer
from hwptq.kernels.select import Selector
from hwptq.tir.builder import TEMPLATE
from hwptq.tir.kernel import Step, TensorType

from .concatenate import concatenation
from .element import elementwise_kernel
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
        attributes = {TEMPLATE: "flat"}
        func = elementwise_kernel(op, inputs, out, attributes)
        return (Step(func, (*range(len(activations)), *constants), out, f"{op.kind}_flat"),)

    def concatenation(self, inputs: Sequence[TensorType], axis: int, out: TensorType) -> Step:
        func = concatenation(inputs, axis, out, {TEMPLATE: "concatenate"})
        return Step(func, tuple(range(len(inputs))), out, "concatenate")
