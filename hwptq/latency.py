"""How long compiled code takes, with its spread."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .artifact import CompiledModel
from .errors import InputError
from .golden_check import golden_samples


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one sample: least, quartiles and the largest of `runs`."""

    executor: str
    runs: int
    least: float
    lower_quartile: float
    median: float
    upper_quartile: float
    most: float
    # clock_mhz and temperature_c, where the machine tells them
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def latency(model: CompiledModel, runs: int) -> Latency:
    """That of `runs` calls, on the samples of golden.npz in turn, after a few that are not counted.

    Raises InputError where the code runs in a process of its own, under an emulator or elsewhere: its times
    would be those of the way there.
    """
    running = model.running
    if not running.timed:
        raise InputError(
            f"{model.folder}: runs here by {running.description}, whose times say nothing about the code; "
            f"bench it on the device"
        )
    stored = [inputs for inputs, _ in golden_samples(model)]
    before = running.conditions()
    times = running.times(stored, runs)
    after = running.conditions()
    least, lower, median, upper, most = map(float, np.quantile(times, [0, 0.25, 0.5, 0.75, 1]))
    return Latency(running.description, runs, least, lower, median, upper, most, before, after)
