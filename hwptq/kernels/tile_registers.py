"""Convolution and dense by registers that hold matrices (AMX): pixels by inputs times inputs by channels."""

from __future__ import annotations

from math import prod

from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense
from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.operators.layers import IntegerLayer
from hwptq.targets.templates.tile_registers import TileRegistersKernel
from hwptq.tir.builder import TEMPLATE, primfunc
from hwptq.tir.kernel import PREVIOUS, Step, TensorType
from hwptq.tir.layout import PLAIN, Layout

from .convolution import describe, wanted_padding
from .emit_tiles import emit_tiles
from .epilogue import any_border, parameters
from .group_lookup import group_lookup
from .layer import Layer
from .pack_input import Packing, pack_input
from .pack_weights import pack_channels, pack_scales, packed_bits
from .result_range import proven
from .template import Template
from .tile_groups import takes_tile_groups, tile_groups
from .tile_instructions import K
from .tile_plan import fit
from .wishes import ANY, Wish


class TileRegisters(Template[TileRegistersKernel]):
    """Layers of int8."""

    table = TileRegistersKernel

    def takes(self, layer: Layer) -> bool:
        """Of layers by group those of several tokens, and look-ups in their tables."""
        if not isinstance(layer.op, GroupDense | GroupEmbedding):
            return True
        enough = prod(layer.out.shape[:-1]) >= self.kernel.group_tokens > 0
        return enough and takes_tile_groups(layer.op, layer.constants, self.kernel)

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        if isinstance(layer.op, GroupDense):
            return tile_groups(layer, self.kernel, self.unit)
        if isinstance(layer.op, GroupEmbedding):
            return group_lookup(layer, self.kernel.columns, K, self.kernel.group_vectors)
        op, x, constants, out = layer.op, layer.activations[0], layer.constants, layer.out
        assert isinstance(op, IntegerLayer)
        weight, bias, *scales = constants
        unit, lanes = self.unit, self.kernel.columns
        packing = Packing(x, self._wanted(op, x, weight.shape, out), unit)
        rows = any_border(layer.followers)
        conv = describe(op, packing.read, weight.shape, out, rows)
        plan = fit(conv, self.kernel, self.schedule.tile, packed_bits(op.weight_bits))
        before = [step for step in (pack_input(packing),) if step]
        tail, tail_args = parameters(layer.followers, 1, lambda v: pack_channels(v, lanes))
        parts = unit.shared(prod(out.shape) * weight[0].size)
        body = emit_tiles(plan, proven(op.bounds, constants), out, unit, parts, layer.followers)
        types = [*plan.tensors(packing.read, out), *tail, out]
        func = primfunc(types, {TEMPLATE: self.kernel.template}, body)
        args = (
            PREVIOUS if before else 0,
            plan.packed(weight),
            pack_channels(bias, lanes),
            *pack_scales(scales, lanes),
            *tail_args,
        )
        return (*before, Step(func, args, out, f"{op.kind}_{self.kernel.template}"))

    def wishes(self, layer: Layer) -> list[Wish]:
        op, (x, *others) = layer.op, layer.activations
        if not isinstance(op, IntegerLayer):
            return super().wishes(layer)
        return [Wish(self._wanted(op, x, layer.constants[0].shape, layer.out)), *(ANY for _ in others)]

    def writes(self, layer: Layer, layout: Layout) -> bool:
        return layout == PLAIN or (layout.rows == 1 and isinstance(layer.op, Conv2d | Dense))

    def takes_followers(self, layer: Layer) -> bool:
        return isinstance(layer.op, Conv2d | Dense)

    def _wanted(self, op: IntegerLayer, x: TensorType, weight: tuple[int, ...], out: TensorType) -> Layout:
        """What the kernel reads: the border, and what the loads of a stretch reach beyond the end."""
        layout = Layout(wanted_padding(op))
        conv = describe(op, TensorType(x.shape, x.dtype, layout), weight, out)
        return Layout(layout.padding, slack=fit(conv, self.kernel).slack)
