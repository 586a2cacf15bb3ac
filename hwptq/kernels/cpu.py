"""Kernels for processors, by LLVM: those of the descriptor's templates, else the portable code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from hwptq.formats import holds_floats
from hwptq.operators.dense import DenseFloat
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import PLAIN, Layout
from hwptq.tir.vector_unit import unit_of

from .concatenate import concatenate
from .constant_frame import Framed, framed
from .grouped_convolution import Grouped, grouped
from .layer import Layer
from .portable import Portable
from .quantize_image import quantizes_images
from .select import Selector
from .strided_copy import strided_copy
from .template import Maker, Template
from .transpose_tiles import transpose_tiles
from .wishes import Wish


class CpuSelector(Selector):
    """Where a scratchpad holds what kernels pack, tensors are plain: each kernel packs its own."""

    kind: ClassVar[str] = "llvm"

    def steps(self, layer: Layer, tile: int = 0) -> tuple[Step, ...]:
        """Raises ValueError for operators of float formats too."""
        if any(holds_floats(t.dtype) for t in (*layer.activations, layer.out)):
            name, kind = self.target.name, layer.op.kind
            raise ValueError(f"{name} computes in integers, and a {kind} of the model is in e4m3")
        return self._maker(layer, tile).steps(layer)

    def concatenation(self, inputs: Sequence[TensorType], axis: int, out: TensorType) -> Step:
        return concatenate(inputs, axis, out, unit_of(self.target, self.threads))

    def movement(self, x: TensorType, strides: Sequence[int], first: int, out: TensorType) -> Step | None:
        movement, unit = (x, strides, first, out), unit_of(self.target, self.threads)
        return strided_copy(*movement, unit) or transpose_tiles(*movement, unit)

    def quantizes_images(self, shape: Sequence[int]) -> bool:
        return quantizes_images(shape, unit_of(self.target))

    def wishes(self, layer: Layer) -> list[Wish]:
        return super().wishes(layer) if self._plain else self._maker(layer).wishes(layer)

    def writes(self, layer: Layer, layout: Layout) -> bool:
        return layout == PLAIN if self._plain else self._maker(layer).writes(layer, layout)

    def takes_followers(self, layer: Layer) -> bool:
        return not self._plain and self._maker(layer).takes_followers(layer)

    def template(self, layer: Layer, tile: int = 0) -> Template[Any] | None:
        """A DenseFloat gets none where the descriptor offers no results in float32."""
        rule = self.target.rule(layer.op.rule(layer.constants))
        if isinstance(layer.op, DenseFloat) and rule is not None and not rule.float_output:
            return None
        return super().template(layer, tile)

    @property
    def _plain(self) -> bool:
        return bool(self.target.memory.scratchpad)

    def _maker(self, layer: Layer, tile: int = 0) -> Maker:
        unit = unit_of(self.target, self.threads)
        maker: Maker | None = self.template(layer, tile)
        if maker is None:
            return Portable(unit)
        if grouped(layer):
            maker = Grouped(maker, unit)
        return Framed(maker, unit) if framed(layer) else maker
