"""AbsorbHighBias: move what a channel always has at least into the biases of the layers that read it.

A channel whose smallest value is c > 0 needs a range of c more than its values differ by. With
b1' = b1 - c, bounds moved by -c, and b2' = b2 + W2 c the outputs stay the same, for any input: a ReLU
becomes a clamp at -c. Nagel et al. 2019, "Data-Free Quantization …", section 4.1.3, with the smallest value
on the calibration data instead of an estimate from the statistics of a BatchNorm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm

from hwptq.ir.composite import Composite, emit_layer
from hwptq.ir.dataflow import constant, main_functions, rewrite
from hwptq.ir.provenance import origins
from hwptq.quant.patches import conv_of_patch

from .graph.channel_links import Link, Reader, channel_links, layers


@tvm.transform.module_pass(opt_level=0, name="hwptq.AbsorbHighBias")
class AbsorbHighBias:
    """Absorb along every link between conv2d and dense composites that an offset passes unchanged.

    No padding and no activation may stand between the two layers; pooling may. stats: of this module by
    channel, hwptq.calibrate(mod, batches, axis=1).
    """

    def __init__(self, stats: Any):
        self.stats = stats

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        taken: dict[Any, np.ndarray] = {}  # var -> what its output has less, [channels]
        given: dict[Any, np.ndarray] = {}  # var -> what its bias has more, [channels]
        units: dict[Any, Composite] = {}
        for gv, func in main_functions(mod):
            units |= layers(mod, func)
            named = origins(func)
            for link in channel_links(mod, func)[0]:
                offset = self._offset(link, (str(gv.name_hint), named[link.producer].label))
                if offset is None:
                    continue
                taken[link.producer] = offset
                for reader in link.readers:
                    given[reader.var] = _response(units[reader.var], reader, offset)

        def visit(r: Any, var: Any, value: Any) -> Any:
            if var not in taken and var not in given:
                return r.keep(value)
            unit, less = units[var], taken.get(var, np.zeros(1))
            old = np.zeros(1) if unit.bias is None else unit.bias
            bias = np.broadcast_to(old - less + given.get(var, 0.0), (_channels(unit),)).astype(np.float32)
            bounds = tuple(b if np.all(np.isinf(b)) else (b - less).astype(np.float32) for b in unit.bounds)
            data, weight = (r.get(a) for a in unit.args[:2])
            return emit_layer(r, unit, data, weight, bias, bounds)

        return rewrite(mod, visit)

    def _offset(self, link: Link, tensor: tuple[str, str]) -> np.ndarray | None:
        """The smallest value of each channel of a link where it is positive, else 0; None where all are.
        tensor: what the link starts from, by function and label.
        """
        if tensor not in self.stats.observers or not all(reader.keeps_offsets for reader in link.readers):
            return None
        low, _ = self.stats.rows(tensor[1], function=tensor[0])
        offset = np.maximum(low, 0.0)
        read = max(int(reader.channels.max()) for reader in link.readers)
        return offset if offset.any() and read < len(offset) else None


def _channels(unit: Composite) -> int:
    weight = constant(unit.args[1])
    assert weight is not None
    return weight.shape[0] if unit.kind == "conv2d" else weight.shape[-1]


def _response(unit: Composite, reader: Reader, offset: np.ndarray) -> np.ndarray:
    """What a layer without padding makes of an input that is `offset` everywhere: float64 [channels]."""
    weight = constant(unit.args[1])
    assert weight is not None
    seen = offset[reader.channels]
    if unit.kind == "matmul":
        return seen @ weight.astype(np.float64)
    weight = weight.transpose(0, 2, 3, 1)
    patch = np.broadcast_to(seen, (*weight.shape[1:3], len(seen)))
    return conv_of_patch(weight, patch, int(unit.head.attrs.groups))
