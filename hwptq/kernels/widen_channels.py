"""The step that gives every pixel more channels, so that each begins where the device can load it from."""

from __future__ import annotations

from math import prod

import numpy as np

from hwptq.tir.builder import TEMPLATE, Expr, Flat, constant, loop, nest, primfunc, shuffle
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.vector_unit import VectorUnit


def widen_channels(x: TensorType, channels: int, unit: VectorUnit) -> Step:
    """The step int8 x [..., C] -> [..., channels]. What the new channels hold is to meet weights of 0."""
    c, pixels = x.shape[-1], prod(x.shape[:-1])
    out = TensorType((*x.shape[:-1], channels), "int8")
    at_once = unit.lanes // channels if unit.masked else 0

    def emit(source: Flat, wide: Flat) -> None:
        if not at_once:
            nest((pixels, c), lambda p, i: wide.store(p * channels + i, source.load(p * c + i)))
            nest((pixels, channels - c), lambda p, i: wide.store(p * channels + c + i, constant(0, "int8")))
            return
        order = [min(p * c + i, unit.lanes - 1) for p in range(at_once) for i in range(channels)]
        order += [0] * (unit.lanes - len(order))

        def group(first: Expr, count: int) -> None:
            loaded = source.load(first * c, unit.lanes)
            wide.store(first * channels, shuffle([loaded], order), unit.lanes, count * channels)

        full, rest = divmod(pixels, at_once)
        if full:
            loop(full, lambda i: group(i * at_once, at_once))
        if rest:
            group(full * at_once, rest)

    return Step(primfunc([x, out], {TEMPLATE: "widen_channels"}, emit), (0,), out, "widen_channels")


def widen_weight(weight: np.ndarray, channels: int) -> np.ndarray:
    """[..., C] -> [..., channels], the new ones 0."""
    return np.pad(weight, [(0, 0)] * (weight.ndim - 1) + [(0, channels - weight.shape[-1])])
