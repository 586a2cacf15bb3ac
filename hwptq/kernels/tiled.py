"""From a Conv2d or Dense to the steps that compute it: pack the input where needed, then the tiled kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwptq.quant import integer_ops as ops

from .builder import TEMPLATE, primfunc
from .convolution import bounds_of, describe
from .kernel import PREVIOUS, Step, TensorType
from .pack_input import pack_input
from .pack_weights import pack_channels, pack_scales, pack_weights, without_offset
from .register_tile import Mac, Tile, emit_tiled, fit, tensors_of
from .vector_unit import VectorUnit


@dataclass(frozen=True)
class Template:
    """An instruction with its tile sizes."""

    name: str
    mac: Mac
    tile: Tile
    dense_vectors: int


def tiled_steps(
    op: ops.Conv2d | ops.Dense,
    x: TensorType,
    constants: Sequence[np.ndarray],
    out: TensorType,
    template: Template,
    unit: VectorUnit,
) -> tuple[Step, ...]:
    """The steps of `op`; `constants` are its weight, bias, multiplier and shift."""
    weight, bias, multiplier, shift = constants
    mac = template.mac
    conv, padding = describe(op, x, weight.shape, out)
    packed = pack_input(x, padding, unit, mac.slack(conv.run), mac.activation)
    tile = fit(conv, mac, template.tile, template.dense_vectors)
    types = tensors_of(conv, mac, packed.out if packed else x, out, op.weight_bits)
    body = emit_tiled(conv, mac, tile, bounds_of(op), unit.requantize, op.weight_bits)
    func = primfunc(types, {TEMPLATE: template.name}, body)
    if mac.activation == "uint8":
        bias = without_offset(bias, weight)
    args = (
        PREVIOUS if packed else 0,
        pack_weights(weight, conv.run, mac.lanes, mac.k, op.weight_bits),
        pack_channels(bias, mac.lanes),
        *pack_scales(multiplier, shift, mac.lanes),
    )
    step = Step(func, args, out, f"{op.kind}_{template.name}")
    return (packed, step) if packed else (step,)
