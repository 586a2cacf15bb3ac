"""The numbers of recurrent layers in integers: gates, hidden states and cells.

    pre-activation  int16 in steps of 2^-12 (±8)
    sigmoid, tanh   int16 in steps of 2^-15, from tables of 1,025 entries with straight lines between
    hidden state    int16 in steps of 2^-15; products read it in int8, steps of 2^-7, or as it is
    cell            int16 in steps of 2^-11 (±16), saturating

No data changes these ranges. Everything fits 32 bits but sums on the way to their scale, which take 64. The
formulas of quant/recurrence.py are computed by `ArrayGates` here, and emitted by the operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

GATE_BITS, STATE_BITS, CELL_BITS, CODE_BITS = 12, 15, 11, 7
LOW, HIGH = -(2**15), 2**15 - 1
#: Codes of a pre-activation between two entries of a table.
STEP = 64
ENTRIES = 2**16 // STEP + 1
MOST_SHIFT = 62
_MULTIPLIER_BITS = 31
_LARGEST = 2.0**29  # of a factor; its shift is then 2


def gate_table(function: str) -> np.ndarray:
    """int16 [ENTRIES]: "sigmoid" or "tanh" of -8 … 8 in steps of 2^-15."""
    x = (np.arange(ENTRIES) * STEP + LOW) * 2.0**-GATE_BITS
    real = 1 / (1 + np.exp(-x)) if function == "sigmoid" else np.tanh(x)
    return np.clip(np.rint(real * 2**STATE_BITS), LOW, HIGH).astype(np.int16)


def multiplier_and_shift(real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The (multiplier, shift) whose m * 2^-shift is nearest to `real`: int32 in [2^30, 2^31) and 1 … 62.

    Raises ValueError for factors of 2^29 and above, below 0, or that are not finite.
    """
    real = np.asarray(real, np.float64)
    if not np.all(np.isfinite(real)) or np.any(real < 0) or np.any(real >= _LARGEST):
        raise ValueError(f"a factor between scales must lie in [0, 2^29), got {real.min()} … {real.max()}")
    mantissa, exponent = np.frexp(np.maximum(real, 2.0**-_MULTIPLIER_BITS))
    multiplier = np.rint(mantissa * 2.0**_MULTIPLIER_BITS).astype(np.int64)
    carried = multiplier == 2**_MULTIPLIER_BITS
    multiplier = np.where(carried, 2 ** (_MULTIPLIER_BITS - 1), multiplier)
    shift = _MULTIPLIER_BITS - exponent - carried
    return multiplier.astype(np.int32), np.clip(shift, 1, MOST_SHIFT).astype(np.int32)


def scaled(acc: np.ndarray, multiplier: Any, shift: Any) -> np.ndarray:
    """Sums in another scale: (acc * multiplier + 2^(shift-1)) >> shift in the range of int16, as int64.

    |acc| < 2^31, so that products fit 63 bits.
    """
    wide, shift = np.asarray(acc, np.int64) * multiplier, np.asarray(shift, np.int64)
    return np.clip((wide + (np.int64(1) << (shift - 1))) >> shift, LOW, HIGH)


def from_real(x: np.ndarray, bits: int) -> np.ndarray:
    """float32 -> int64 in steps of 2^-bits, to nearest, ties to even, in the range of int16; NaN gives 0."""
    real = np.clip(np.nan_to_num(x, nan=0.0), np.float32(LOW), np.float32(HIGH))
    return np.clip(np.rint(real * np.float32(2**bits)), LOW, HIGH).astype(np.int64)


def state_codes(state: np.ndarray) -> np.ndarray:
    """The hidden state in int8, steps of 2^-7."""
    return np.clip((state + 128) >> 8, -128, 127)


@dataclass(frozen=True)
class ArrayGates:
    """The operations on numpy arrays of int64, by two tables."""

    sigmoid_table: np.ndarray
    tanh_table: np.ndarray
    one: int = 2**STATE_BITS

    def total(self, x: Any, h: Any) -> Any:
        """A pre-activation."""
        return np.clip(x + h, LOW, HIGH)

    def sigmoid(self, x: Any) -> Any:
        return _between(self.sigmoid_table, x)

    def tanh(self, x: Any) -> Any:
        return _between(self.tanh_table, x)

    def times(self, gate: Any, x: Any) -> Any:
        """gate * x in the steps of x."""
        return _rounded(gate * x, STATE_BITS)

    def into_cell(self, gate: Any, x: Any) -> Any:
        """gate * x in the steps of a cell."""
        return _rounded(gate * x, 2 * STATE_BITS - CELL_BITS)

    def cell(self, kept: Any, added: Any) -> Any:
        """The sum of two parts of a cell."""
        return np.clip(kept + added, LOW, HIGH)

    def of_cell(self, cell: Any) -> Any:
        """A cell as a pre-activation."""
        return np.clip(cell << (GATE_BITS - CELL_BITS), LOW, HIGH)

    def blend(self, gate: Any, old: Any, new: Any) -> Any:
        """gate * old + (1 - gate) * new."""
        return np.clip(_rounded(gate * old + (self.one - gate) * new, STATE_BITS), LOW, HIGH)


def _rounded(x: Any, bits: int) -> Any:
    return (x + (1 << (bits - 1))) >> bits


def _between(table: np.ndarray, x: Any) -> Any:
    at, rest = (x - LOW) >> 6, (x - LOW) & (STEP - 1)
    wide = table.astype(np.int64)
    return (wide[at] * (STEP - rest) + wide[at + 1] * rest + STEP // 2) >> 6
