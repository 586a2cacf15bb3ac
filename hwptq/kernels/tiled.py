"""From a layer to the steps that compute it: pack the input where needed, then the tiled kernel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from hwptq.formats import INT16
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense
from hwptq.operators.layers import IntegerLayer
from hwptq.tir.builder import OVERLAYS, TEMPLATE, primfunc
from hwptq.tir.kernel import PREVIOUS, Step, TensorType, overlaid
from hwptq.tir.layout import PLAIN, Layout
from hwptq.tir.vector_unit import VectorUnit

from .choose_tile import fit, tile_beside_one
from .convolution import Convolution, describe, wanted_padding
from .epilogue import Follower, any_border, parameters
from .gather_bytes import FARTHEST, reordered
from .halfword_bytes import biases_of_halves, lower_from, split_bytes, splits
from .interleave_pixels import interleave_pixels
from .interleaved_tile import emit_interleaved
from .layer import Layer
from .mac import Mac
from .pack_groups import pack_grouped
from .pack_input import Packing, pack_input
from .pack_weights import pack_channels, pack_scales, pack_weights, packed_bits, without_offset
from .register_tile import Plan, Tile, emit_tiled, window_offsets
from .result_range import proven
from .schedule import Schedule
from .scratchpad import emit_bands, plan_bands
from .template import Table, Template
from .widen_channels import widen_channels, widen_weight
from .wishes import ANY, AS_IT_IS, Wish

_GATHERED_COST = 1.9  # of a vector of gathered elements, in vectors of neighbours, with its products
_MOST_GATHERED = 8  # vectors of a window: all are written out


@dataclass(frozen=True)
class Tiling:
    """An instruction with the largest tiles that its registers hold; `name` is that of the template."""

    name: str
    mac: Mac
    tile: Tile
    dense_vectors: int  # of output channels, where there is one pixel only


class Tiled(Template[Table]):
    """A template whose kernels keep a tile of sums in registers, and add to it by one instruction."""

    @property
    @abstractmethod
    def tiling(self) -> Tiling:
        """The instruction of the table with its tiles."""

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        op, x, constants, out = layer.op, layer.activations[0], layer.constants, layer.out
        assert isinstance(op, IntegerLayer)
        return tiled_steps(op, x, constants, out, self.tiling, self.unit, self.schedule, layer.followers)

    def wishes(self, layer: Layer) -> list[Wish]:
        if not isinstance(layer.op, IntegerLayer):
            return super().wishes(layer)
        op, (x, *others), weight, mac = layer.op, layer.activations, layer.constants[0].shape, self.tiling.mac
        if x.dtype == INT16.held:  # no producer takes it apart
            return [Wish(PLAIN), *(ANY for _ in others)]
        interleaved = _interleaved(op, x, weight, layer.out, mac)
        exact = interleaved or _widened(x, mac)
        rest = [AS_IT_IS if exact else ANY for _ in others]
        if interleaved and wanted_padding(op).empty:
            return [Wish(interleaved_layout(mac), exact=True), *rest]
        return [Wish(wanted_layout(op, x, weight, layer.out, mac), exact), *rest]

    def writes(self, layer: Layer, layout: Layout) -> bool:
        if layout == PLAIN or layout.rows > 1 or not isinstance(layer.op, Conv2d | Dense):
            return layout == PLAIN
        x, weight, mac = layer.activations[0], layer.constants[0].shape, self.tiling.mac
        return not (_widened(x, mac) or _interleaved(layer.op, x, weight, layer.out, mac))

    def takes_followers(self, layer: Layer) -> bool:
        return isinstance(layer.op, Conv2d | Dense)

    def takes_halfwords(self, layer: Layer) -> bool:
        op, x, mac = layer.op, layer.activations[0], self.tiling.mac
        if not isinstance(op, IntegerLayer) or _widened(x, mac):
            return False
        interleaved = _interleaved(op, x, layer.constants[0].shape, layer.out, mac)
        return not interleaved and (_whole(op, mac) or splits(op, layer.constants))


def tiled_steps(
    op: IntegerLayer,
    x: TensorType,
    constants: Sequence[np.ndarray],
    out: TensorType,
    tiling: Tiling,
    unit: VectorUnit,
    schedule: Schedule,
    followers: Sequence[Follower] = (),
) -> tuple[Step, ...]:
    """The steps of `op`; `constants` are its weight, bias, multiplier and shift (or scale)."""
    weight, bias, *scales = constants
    mac = tiling.mac
    wide = None
    if mac.aligned and x.shape[-1] % mac.k:
        wide = widen_channels(x, -(-x.shape[-1] // mac.k) * mac.k, unit)
        x, weight = wide.out, widen_weight(weight, wide.out.shape[-1])
    packing = Packing(x, wanted_layout(op, x, weight.shape, out, mac), unit)
    conv = describe(op, packing.read, weight.shape, out, rows=any_border(followers))
    plan = _plan(op, conv, tiling, unit, schedule)
    if x.dtype == INT16.held and not _whole(op, mac):
        plan = replace(plan, lower=lower_from(x, packing.wanted), shortened=op.acc_shift)
    in_kernel = bool(schedule.scratchpad) and not plan.lower
    before = () if x.layout.rows > 1 else _prepare(wide, packing, plan, in_kernel)
    tail, tail_args = parameters(followers, 1, lambda v: pack_channels(v, plan.stored_lanes))
    types = [*plan.tensors(before[-1].out if before else x, out)[:-1], *tail, out]
    parts = unit.shared(prod(out.shape) * weight[0].size)
    bounds = proven(op.bounds, constants, x.dtype, op.acc_shift)
    if plan.interleaved:
        body = emit_interleaved(plan, bounds, unit, schedule.assembly, parts, followers)
    else:
        body = emit_tiled(plan, bounds, out, unit, parts, followers)
    if in_kernel and packing.needed:
        bands = plan_bands(packing, conv, schedule.scratchpad)
        body = emit_bands(bands, conv, emit_tiled(replace(plan, conv=bands.conv), bounds, out, unit))
    attributes = {TEMPLATE: tiling.name}
    if plan.writes_once and not in_kernel:
        attributes[OVERLAYS] = overlaid(types, range(len(types) - 1 - len(tail), len(types) - 1))
    func = primfunc(types, attributes, body)
    args: tuple[int | np.ndarray, ...] = (
        PREVIOUS if before else 0,
        _packed(weight, plan),
        _packed_bias(op, bias, weight, plan),
        *pack_scales(scales, plan.stored_lanes),
        *tail_args,
    )
    return (*before, Step(func, args, out, f"{op.kind}_{tiling.name}"))


def _plan(op: IntegerLayer, conv: Convolution, tiling: Tiling, unit: VectorUnit, schedule: Schedule) -> Plan:
    """What computes `conv`, of bytes."""
    mac, size, bits = tiling.mac, tiling.tile, packed_bits(op.weight_bits)
    interleaved = interleaves(mac, conv)
    if interleaved and bits < 8:  # weights are unpacked in registers: fewer of them, more pixels
        size = Tile(2 * size.pixels, max(1, size.vectors // 2))
    tile, packed = fit(conv, mac, size, tiling.dense_vectors, interleaved, schedule.tile), 0
    if schedule.beside_one and conv.out[1] > 1:
        tile, packed = tile_beside_one(conv, mac, size, tiling.dense_vectors, interleaved, schedule.tile)
    gathered = gathers(conv, mac, op)
    return Plan(conv, mac, tile, bits, interleaved, unit.masked, op.weight_group, gathered, packed)


def _packed_bias(op: IntegerLayer, bias: np.ndarray, weight: np.ndarray, plan: Plan) -> np.ndarray:
    """What sums begin with, as the kernel of `plan` reads it."""
    unsigned = plan.mac.activation == "uint8"
    if plan.lower:
        both = biases_of_halves(op, bias, weight, unsigned)
        return np.concatenate([pack_channels(b, plan.mac.lanes) for b in both])
    return pack_channels(without_offset(bias, weight) if unsigned else bias, plan.stored_lanes)


def wanted_layout(
    op: IntegerLayer, x: TensorType, weight: Sequence[int], out: TensorType, mac: Mac
) -> Layout:
    """What the kernel reads, or what is interleaved before it; `weight` is the shape of the weights."""
    halfwords = x.dtype == INT16.held and _whole(op, mac)
    layout = Layout(wanted_padding(op), INT16.held if halfwords else mac.activation)
    conv = describe(op, replace(x, layout=layout), weight, out)
    return layout if interleaves(mac, conv) else replace(layout, slack=mac.slack(conv.run))


def _whole(op: IntegerLayer, mac: Mac) -> bool:
    """Whether int16 activations enter an instruction as they are, and not by upper and lower bytes."""
    return mac.halfwords and op.acc_shift == 0


def gathers(conv: Convolution, mac: Mac, op: IntegerLayer) -> bool:
    """Whether the elements of a window are gathered: where its runs fill vectors badly."""
    total = mac.groups_of(prod(conv.kernel) * conv.ci)
    if not mac.gather or op.weight_group or total > _MOST_GATHERED:
        return False
    by_runs = prod(conv.runs) * mac.groups_of(conv.run)
    return _GATHERED_COST * total < by_runs and window_offsets(conv).max() <= FARTHEST


def interleaved_layout(mac: Mac) -> Layout:
    """The layout of interleaved pixels for an instruction that takes several."""
    return Layout(dtype=mac.activation, rows=mac.rows, k=mac.k) if mac.rows > 1 else PLAIN


def interleaves(mac: Mac, conv: Convolution) -> bool:
    """Whether pixels are interleaved in a step of their own."""
    return mac.rows > 1 and conv.pointwise and conv.out[1] > 1


def _packed(weight: np.ndarray, plan: Plan) -> np.ndarray:
    """The weights, and the factors of their groups if they have any, as the kernel of `plan` reads them."""
    run, lanes, k, block = plan.run, plan.stored_lanes, plan.mac.k, plan.together
    if plan.gathered:
        weight = reordered(weight.reshape(len(weight), -1), k)
        run = weight.shape[1]
    if plan.weight_group:
        return pack_grouped(weight, run, lanes, k, plan.weight_group, block)
    return pack_weights(weight, run, lanes, k, plan.weight_bits, block)


def _prepare(wide: Step | None, packing: Packing, plan: Plan, in_kernel: bool) -> tuple[Step, ...]:
    """The steps that bring x into the layout that the kernel reads; the first one may have `wide`ned it.

    `in_kernel`: it packs x itself.
    """
    if plan.lower:
        return (split_bytes(packing.x, packing.wanted, packing.unit),)
    packed = None if in_kernel else pack_input(packing)
    steps = (wide,) if wide else ()
    if packed:
        steps = (*steps, replace(packed, args=(PREVIOUS if wide else 0,)))
    if not plan.interleaved:
        return steps
    source = PREVIOUS if steps else 0
    return (*steps, interleave_pixels(packed.out if packed else packing.x, source, plan.conv.ci, plan))


def _widened(x: TensorType, mac: Mac) -> bool:
    """Whether channels are filled up in a step of its own, which knows nothing of layouts."""
    return mac.aligned and x.shape[-1] % mac.k != 0


def _interleaved(op: IntegerLayer, x: TensorType, weight: Sequence[int], out: TensorType, mac: Mac) -> bool:
    """Whether the kernel reads interleaved pixels."""
    plain = TensorType(x.shape, x.dtype, Layout(wanted_padding(op)))
    return interleaves(mac, describe(op, plain, weight, out))
