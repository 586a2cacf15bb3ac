"""What each layer of a model costs on a device at each pair of dtypes that it may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm

from hwptq.bitwidths.budget import BITS
from hwptq.formats import Pair

from .lower_to_integer import LowerToInteger
from .select_kernels import SelectKernels
from .stored_bytes import layer_bytes, stored_bytes
from .variants import Variants

_FLOAT = 4  # bytes of a weight in float32


class LayerCosts:
    """Costs by kind of budget: "weights" in bytes of the stored constants, as the device's kernels pack them;
    "bits" the same of layers and tables for each of their weights; "cycles" after the descriptor's [cost];
    "macs-DTYPE" in multiply-accumulates with weights of other dtypes.
    """

    def __init__(self, variants: Variants, target: Any):
        self._layers, self._target, self._others = variants.layers, target, variants.others
        self._bytes: dict[Pair, dict[str, int]] = {}
        rest = [0]
        for pair, qdq in variants.qdq.items():
            integer = tvm.ir.transform.Sequential([LowerToInteger(target)])(qdq)
            self._bytes[pair] = layer_bytes(integer, target)
            kernels = tvm.ir.transform.Sequential([SelectKernels(target)])(integer)
            of_layers = sum(self._bytes[pair].get(name, 0) for name in variants.layers)
            rest.append(stored_bytes(kernels, target) - of_layers)
        self._rest = float(max(rest))
        self._weights = sum(layer.weights for layer in variants.layers.values()) + sum(self._others.values())

    def of(self, kind: str, name: str, pair: Pair) -> float:
        """The cost of one layer."""
        layer = self._layers[name]
        if kind == "weights":
            return float(self._bytes[pair].get(name, 0))
        if kind == BITS:
            return 8 * self._bytes[pair].get(name, 0) / max(self._weights, 1)
        if kind == "cycles":
            return layer.macs * float(self._target.cost_of(layer.kind, pair))
        return float(layer.macs) if f"macs-{pair[1]}" != kind else 0.0

    def macs(self, name: str) -> int:
        """The multiply-accumulates of one layer."""
        return self._layers[name].macs

    def bits_of(self, name: str, pair: Pair) -> float:
        """Bits of a weight of one layer, all that is stored for it counted."""
        return 8 * self._bytes[pair].get(name, 0) / max(self._layers[name].weights, 1)

    def fixed(self, kind: str) -> float:
        """The cost of what is no layer's: lookup tables, constants of operators in float; for "bits" tables
        that rows are looked up in, and weights in float."""
        if kind == BITS:
            return max((self._bits_of_others(known) for known in self._bytes.values()), default=0.0)
        return self._rest if kind == "weights" else 0.0

    def _bits_of_others(self, known: Mapping[str, int]) -> float:
        stored = (known.get(name, _FLOAT * count) for name, count in self._others.items())
        return 8 * sum(stored) / self._weights if self._weights else 0.0

    def total(self, kind: str, pairs: dict[str, Pair]) -> float:
        """The cost of the model with these pairs by layer."""
        return self.fixed(kind) + sum(self.of(kind, name, pair) for name, pair in pairs.items())

    def highest(self, kind: str) -> float:
        """The cost of the model with every layer at its highest precision; for "macs-DTYPE" all of them."""
        if kind.startswith("macs-"):
            return float(sum(layer.macs for layer in self._layers.values()))
        return self.total(kind, {name: layer.highest for name, layer in self._layers.items()})
