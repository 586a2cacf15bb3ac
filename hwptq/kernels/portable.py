"""Operators that no table is about: their portable code, or what a processor does better in parts."""

from __future__ import annotations

from hwptq.operators.avg_pool import AvgPool
from hwptq.operators.quantize import Quantize
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import Layout
from hwptq.tir.vector_unit import VectorUnit

from .global_average import averages_in_parts, global_average
from .layer import Layer
from .quantize_image import quantize_image
from .template import Maker
from .wishes import ANY, Wish


class Portable(Maker):
    """The code that an operator has for any device, in vectors of a unit."""

    def __init__(self, unit: VectorUnit):
        self.unit = unit

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        """One step, or two where threads share an average."""
        op, constants, out = layer.op, layer.constants, layer.out
        x = layer.activations[0]
        if isinstance(op, Quantize) and _moves_axes(layer):
            return (quantize_image(op, x, out, self.unit),)
        if isinstance(op, AvgPool) and averages_in_parts(op, x, out, self.unit):
            return global_average(op, x, constants, out, self.unit)
        inputs = [*layer.activations, *(TensorType(c.shape, str(c.dtype)) for c in constants)]
        args = (*range(len(layer.activations)), *constants)
        return (Step(op.primfunc(inputs, out, self.unit), args, out, f"{op.kind}_portable"),)

    def wishes(self, layer: Layer) -> list[Wish]:
        return [ANY] if layer.op.reads_layouts else super().wishes(layer)

    def writes(self, layer: Layer, layout: Layout) -> bool:
        able = layer.op.writes_layouts or (isinstance(layer.op, Quantize) and _moves_axes(layer))
        return layout.rows == 1 if able else super().writes(layer, layout)


def _moves_axes(layer: Layer) -> bool:
    """Whether the result of a Quantize has its axes in another order."""
    return layer.activations[0].shape != layer.out.shape
