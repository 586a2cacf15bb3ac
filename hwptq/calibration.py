"""calibrate: run a float module over data, sample by sample, and collect what each tensor holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import tvm

from .errors import InputError
from .interpret import Interpreter


@dataclass
class CalibrationStats:
    """Range of every float tensor of main, by var name; two stats of shards of the data merge exactly."""

    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    samples: int = 0

    def observe(self, name: str, value: np.ndarray) -> None:
        """Widen the range of `name` by the values of one sample."""
        if value.dtype != np.float32 or not value.size:
            return
        low, high = float(value.min()), float(value.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError(
                f"calibration: tensor {name!r} holds NaN or Inf; check the model and its preprocessing"
            )
        old = self.ranges.get(name, (low, high))
        self.ranges[name] = (min(old[0], low), max(old[1], high))

    def merge(self, other: CalibrationStats) -> CalibrationStats:
        """The stats of both data sets together."""
        out = CalibrationStats(dict(self.ranges), self.samples + other.samples)
        for name, (low, high) in other.ranges.items():
            old = out.ranges.get(name, (low, high))
            out.ranges[name] = (min(old[0], low), max(old[1], high))
        return out


def calibrate(mod: tvm.IRModule, batches: Iterable[dict[str, np.ndarray]]) -> CalibrationStats:
    """Stats of `mod` over `batches` (dicts of input name -> array). Memory does not grow with their number.

    Raises InputError for an empty data set and for NaN or Inf in any tensor.
    """
    interpreter, stats = Interpreter(mod), CalibrationStats()
    for batch in batches:
        interpreter.run(batch, stats.observe)
        stats.samples += 1
    if not stats.samples:
        raise InputError("the calibration data holds no sample; give at least one")
    return stats
