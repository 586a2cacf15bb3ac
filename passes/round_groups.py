"""RoundGroups: levels and scales of weights by group from what reaches their layers, in graph order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tvm

from hwptq.evaluate.lockstep import Lockstep, live_bytes
from hwptq.formats import format_of
from hwptq.ir.dataflow import entry_functions
from hwptq.quant.group_codes import GroupedRows
from hwptq.quant.group_rounding import fitted_rows
from hwptq.quant.moments import Statistics
from hwptq.targets.schema import Descriptor

from .graph.group_layers import GroupLayer, Place, group_layers, row_values, some_samples, with_rows
from .lower_to_integer import LowerToInteger
from .round_weights import Track

#: Rows (tokens) with which more samples tell little new.
ENOUGH = 2**14
_FEW_BITS = 2


@tvm.transform.module_pass(opt_level=0, name="hwptq.RoundGroups")
class RoundGroups:
    """New levels and scales for the dense layers of a module that InsertDynamicQDQ gave weights by group.

    Layer by layer, on the codes that reach it with the layers before it already rounded: the target is the
    regression of the float layer's output on them, the error is weighed by their second moments
    (quant/group_rounding.py). Where the result is added to another tensor, a residual stream, each row counts
    as much as any other, however large it is, since a norm follows; and with weights of two bits the target
    is what the sum lacks, so that a layer makes up for those before it. (With those of four, whose errors are
    small, that fits the samples rather than the model.) Rows that a look-up reads too stay as they are.

    float_module: the module that InsertDynamicQDQ was given; samples: dicts of its inputs, of which there are
    `total`, None = nobody knows. At most `enough` rows of them are used, and as many as fit `memory` bytes;
    from all over where their number is known, since neighbours may be of one document. target: as in
    LowerToInteger; track: passes layers on, and so sees how far the rounding has come.
    """

    def __init__(
        self, float_module: tvm.IRModule, samples: Iterable[dict[str, np.ndarray]], target: Descriptor,
        total: int | None = None, enough: int = ENOUGH, memory: int = 3 * 2**29, track: Track | None = None,
    ):  # fmt: skip
        self.float_module, self.samples, self.target = float_module, samples, target
        self.total, self.enough, self.memory = total, enough, memory
        self.track = track or (lambda items, total: items)

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        integer = tvm.ir.transform.Sequential([LowerToInteger(self.target)])(mod)
        new: dict[Place, GroupedRows] = {}
        for function in entry_functions(integer):
            layers = group_layers(self.float_module, integer, function)
            if layers:
                samples = self._samples(integer, function, layers)
                new |= self._function(integer, function, layers, samples)
        return with_rows(mod, new)

    def _samples(
        self, integer: tvm.IRModule, function: str, layers: list[GroupLayer]
    ) -> list[dict[str, np.ndarray]]:
        needed = live_bytes(self.float_module[function]) + live_bytes(integer[function])
        rows = min(layer.tokens for layer in layers)
        most = max(1, min(self.memory // needed, -(-self.enough // rows)))
        names = [str(p.name) for p in integer[function].params]
        return some_samples("RoundGroups", self.samples, names, most, self.total)

    def _function(
        self,
        integer: tvm.IRModule,
        function: str,
        layers: list[GroupLayer],
        samples: list[dict[str, np.ndarray]],
    ) -> dict[Place, GroupedRows]:
        """Round the layers of a function in their order."""
        exact = Lockstep(self.float_module, samples, function)
        quantized = Lockstep(integer, samples, function)
        new: dict[Place, GroupedRows] = {}
        for layer in self.track(layers, len(layers)):
            exact.run_to(layer.float_var)
            quantized.run_to(layer.var)
            rows = layer.rows
            if layer.can_change:
                rows = new[function, layer.label] = _rounded(layer, exact, quantized)
            values = row_values(rows)
            products = [env[layer.codes].astype(np.float32) @ values.T for env in quantized.values]
            quantized.settle(products)  # the sums, but for the rounding of float32
        return new


def _rounded(layer: GroupLayer, exact: Lockstep, quantized: Lockstep) -> GroupedRows:
    """The best levels and scales of a layer."""
    depth, channels = layer.weight.shape
    few = format_of(layer.rows.weight).bits <= _FEW_BITS
    xx, yx, count = np.zeros((depth, depth)), np.zeros((channels, depth)), 0
    for env, ints in zip(exact.values, quantized.values, strict=True):
        x = (ints[layer.codes] * ints[layer.scale]).reshape(-1, depth)
        y = env[layer.float_input].reshape(-1, depth) @ layer.weight
        if layer.stream:
            wanted, there = (
                e[v].reshape(-1, channels) for e, v in zip((env, ints), layer.stream, strict=True)
            )
            if few:
                y = y + (wanted - there)
            size = np.sqrt(np.mean(wanted * wanted, axis=1, keepdims=True)) + np.float32(1e-20)
            x, y = x / size, y / size
        xx += x.T @ x
        yx += y.T @ x
        count += len(x)
    zeros = np.zeros((1, depth)), np.zeros((1, channels))
    statistics = Statistics(count, *zeros, (xx / count)[None], (yx / count)[None])
    target, metric = statistics.regressed(layer.weight.T[None].astype(np.float64))
    return fitted_rows(target[0], metric[0], format_of(layer.rows.weight), layer.rows.size)
