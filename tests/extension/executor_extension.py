"""An executor outside the package: it runs what another one runs, and counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

from hwptq.backends.program import Program
from hwptq.executors.executor import Executor, Sample
from hwptq.executors.process import Process


class Counting(Executor):
    """A process of its own, whose samples are counted."""

    name = "counting"
    samples: ClassVar[list[int]] = []

    @classmethod
    def why_not(cls, program: Program) -> str | None:
        return Process.why_not(program)

    @property
    def description(self) -> str:
        return "a counting process"

    def run_stream(self, samples: Iterable[Sample]) -> Iterator[list[np.ndarray]]:
        for outputs in Process(self.program).run_stream(samples):
            self.samples.append(1)
            yield outputs
