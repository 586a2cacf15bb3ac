"""EqualizeCrossLayer: scale the channels between layers so that their weights use one range evenly.

For a positive s, f(W1 x + b1) * s read by W2 / s is the same function wherever f(s y) = s f(y), so that
W1' = W1 / s, b1' = b1 / s, W2' = W2 s (by input channel) leave the outputs as they were. With the largest
absolute weights r1 and r2 of a channel on both sides, s = sqrt(r1 / r2) makes both sqrt(r1 r2).
Nagel et al. 2019, "Data-Free Quantization through Weight Equalization and Bias Correction", eq. 11.

A channel that is dead on one side (no weights to speak of) is not equalized. Its living side is only brought
down to the largest of the other channels, so that it does not set the scale of its layer.

ReLU6 and other clamps are no such f: their bounds become constants a channel, divided by s as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm

from hwptq.ir.dataflow import bindings, main_functions, rewrite
from hwptq.ir.provenance import origins

from .graph.channel_links import Link, Reader, channel_links, layers
from .graph.own_integers import own_integers
from .graph.quantizable import with_equalization
from .graph.scalable_layer import ScalableLayer

#: A channel whose largest weight is below this part of its layer's largest is dead.
DEAD = 1e-4
_CONVERGED = 1e-4  # largest change of a scale, relative
_ROUNDS = 200
_OWN = "its weights, or those behind it, are integers of another tool"


@tvm.transform.module_pass(opt_level=0, name="hwptq.EqualizeCrossLayer")
class EqualizeCrossLayer:
    """Equalize conv2d and dense composites (see FuseConvRelu) along whole chains until nothing changes.

    A link runs through ReLU, leaky and parametric ReLU, clamps inside a composite, pooling, zero padding and
    reshapes; every reader of a layer must be a layer. The functions get a JSON attribute that says for each
    layer without a link why (quantizable.equalization).
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        scaled: dict[Any, ScalableLayer] = {}
        reasons: dict[str, dict[str, str]] = {}
        for gv, func in main_functions(mod):
            links, why = channel_links(mod, func)
            links, kept = _free(links, dict(bindings(func)))
            why |= {origins(func)[var].label: _OWN for var in kept}
            found = {var: ScalableLayer.of(unit) for var, unit in layers(mod, func).items()}
            _equalize(links, found)
            scaled |= {var: found[var] for var in _touched(links)}
            reasons[str(gv.name_hint)] = why

        def visit(r: Any, var: Any, value: Any) -> Any:
            if var not in scaled:
                return r.keep(value)
            return scaled[var].emit(r)

        return with_equalization(rewrite(mod, visit), reasons)


def _free(links: list[Link], values: dict[Any, Any]) -> tuple[list[Link], list[Any]]:
    """The links that scale no weights which come as integers, and the first layers of the others."""
    own = {v for v in _touched(links) if own_integers(values[v]) is not None}
    free = [link for link in links if own.isdisjoint(_touched([link]))]
    return free, [link.producer for link in links if link not in free]


def _touched(links: list[Link]) -> set[Any]:
    return {v for link in links for v in (link.producer, *(r.var for r in link.readers))}


def _equalize(links: list[Link], found: dict[Any, ScalableLayer]) -> None:
    """Scale along every link until no scale changes any more."""
    alive = [_alive(link, found) for link in links]
    for _ in range(_ROUNDS):
        change = 0.0
        for link, masks in zip(links, alive, strict=True):
            scale = _scale(link, found, *masks)
            change = max(change, float(np.abs(np.log(scale)).max(initial=0.0)))
            found[link.producer].scale_output(scale)
            for reader in link.readers:
                found[reader.var].scale_input(_of_inputs(reader, scale))
        if change < _CONVERGED:
            break


def _scale(link: Link, found: dict[Any, ScalableLayer], written: np.ndarray, read: np.ndarray) -> np.ndarray:
    """The scale of each channel of a link; `written`, `read`: whether a side has weights to speak of."""
    r1, r2 = _ranges(link, found)
    scale, both = np.ones_like(r1), written & read
    scale[both] = np.sqrt(r1[both] / r2[both])
    if not both.any():
        return scale
    largest = float((r2 * scale)[both].max())  # of either side: both have become equal
    unread = written & ~read
    scale[unread] = np.maximum(1.0, r1[unread] / largest)
    silent = read & ~written & found[link.producer].silent()
    scale[silent] = np.minimum(1.0, largest / r2[silent])
    return scale


def _ranges(link: Link, found: dict[Any, ScalableLayer]) -> tuple[np.ndarray, np.ndarray]:
    """(largest weight that writes, largest that reads) each channel of a link."""
    r1 = found[link.producer].output_range()
    r2 = np.zeros_like(r1)
    for reader in link.readers:
        known = reader.channels >= 0
        np.maximum.at(r2, reader.channels[known], found[reader.var].input_range()[known])
    return r1, r2


def _alive(link: Link, found: dict[Any, ScalableLayer]) -> tuple[np.ndarray, np.ndarray]:
    """Which channels matter where they are written, and where they are read."""
    r1, r2 = _ranges(link, found)
    return r1 > DEAD * r1.max(initial=0.0), r2 > DEAD * r2.max(initial=0.0)


def _of_inputs(reader: Reader, scale: np.ndarray) -> np.ndarray:
    """The scale of each input channel of a reader."""
    return np.where(reader.channels >= 0, scale[reader.channels], 1.0)
