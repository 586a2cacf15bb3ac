"""--budget KIND=VALUE: what an assignment of bit widths may cost."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil, floor

from ..errors import InputError

_BYTES = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "kib": 2**10, "mib": 2**20}
_NUMBER = r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?)"
_HELP = "give weights=400kB, weights=0.6x, bits=3.2, cycles=0.8x, macs-int4=70% or arena=64kB"
#: The kind of bits that are stored for each weight, in the mean.
BITS = "bits"
#: The kind that no choice of dtypes is made for: what the code needs is held against it.
ARENA = "arena"


@dataclass(frozen=True)
class Budget:
    """A limit on the weights' bytes, on the bits of a weight, on cycles, on the multiply-accumulates with
    wide weights, or on the bytes of activations.

    kind: "weights" | "bits" | "cycles" | "macs-DTYPE" | "arena"; value: bytes, bits, cycles, a factor of the
    cost at the highest precision (`relative`), or for macs-DTYPE the least share of multiply-accumulates with
    such weights.
    """

    kind: str
    value: float
    relative: bool = False

    @property
    def dtype(self) -> str | None:
        """The weight dtype of a "macs-DTYPE" budget."""
        return self.kind.removeprefix("macs-") if self.kind.startswith("macs-") else None

    def limit(self, highest: float) -> float:
        """The greatest cost to allow; `highest`: the cost of everything at the highest precision.

        The cost behind a macs-DTYPE budget is the number of multiply-accumulates with *other* weights.
        """
        if self.dtype:
            return round((1.0 - self.value) * highest, 3)
        return self.value * highest if self.relative else self.value

    def show(self, cost: float, highest: float) -> str:
        """A cost in the terms of the option, rounded so that it is feasible: "weights=402123B"."""
        if self.dtype:
            return f"{self.kind}={floor(1e4 * (1.0 - cost / highest)) / 1e2:.2f}%"
        if self.relative:
            return f"{self.kind}={ceil(1e4 * cost / highest) / 1e4:.4f}x"
        if self.kind == BITS:
            return f"{self.kind}={ceil(1e4 * cost) / 1e4:.4f}"
        return f"{self.kind}={ceil(cost)}{'B' if self.kind == 'weights' else ''}"

    def __str__(self) -> str:
        if self.dtype:
            return f"{self.kind}={100 * self.value:g}%"
        unit = "x" if self.relative else "B" if self.kind in ("weights", ARENA) else ""
        return f"{self.kind}={self.value:.10g}{unit}"


def parse_budget(text: str) -> Budget:
    """ "weights=400kB" -> Budget("weights", 400000.0). Raises InputError for anything else than a budget."""
    kind, _, value = text.partition("=")
    value = value.strip().lower()
    if kind in ("weights", ARENA) and (found := re.fullmatch(rf"{_NUMBER}\s*(b|kb|mb|kib|mib)?", value)):
        return _positive(Budget(kind, float(found[1]) * _BYTES[found[2] or ""]), text)
    if kind in ("weights", "cycles") and (found := re.fullmatch(rf"{_NUMBER}x", value)):
        return _positive(Budget(kind, float(found[1]), relative=True), text)
    if kind in ("cycles", BITS) and re.fullmatch(_NUMBER, value):
        return _positive(Budget(kind, float(value)), text)
    found = re.fullmatch(rf"{_NUMBER}%", value) if re.fullmatch(r"macs-\w+", kind) else None
    if found and float(found[1]) <= 100:
        return Budget(kind, float(found[1]) / 100)
    raise InputError(f"--budget {text}: {_HELP}")


def _positive(budget: Budget, text: str) -> Budget:
    if budget.value <= 0:
        raise InputError(f"--budget {text}: must be more than 0")
    return budget
