"""Board: an executor on another machine, whose connection may be lost."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from hwptq.backends.program import Program
from hwptq.errors import HwptqError
from hwptq.executors.executor import Executor, Sample

from .journal import Journal, resumed


class LostConnection(HwptqError):
    """The way to a board is gone, or never was: exit code 2."""


class Board(Executor):
    """Runs a program at a place, such as the HOST of ssh:HOST.

    Outputs that have come are kept until a stream of samples is through, so that the same one, run again
    after the connection was lost, goes on where it stopped.
    """

    timed = True
    placed: ClassVar[bool] = True

    def __init__(self, program: Program, place: str = ""):
        super().__init__(program)
        self.place = place
        self._through = 0  # samples of the stream that is under way

    @property
    def address(self) -> str:
        """As --on names it."""
        return f"{self.name}:{self.place}" if self.place else self.name

    @property
    @abstractmethod
    def code(self) -> Path:
        """The file that is copied there."""

    @abstractmethod
    def live(self, samples: Iterator[Sample]) -> Iterator[list[np.ndarray]]:
        """The outputs of each sample, from the board. Raises LostConnection."""

    def run_stream(self, samples: Iterable[Sample]) -> Iterator[list[np.ndarray]]:
        if self.program.state is not None:  # nobody can go on in the middle of a text
            yield from self.live(iter(samples))
            return
        journal, self._through = Journal.of(self.program, self.code, self.address), 0
        for outputs in resumed(journal, samples, self.live):
            self._through += 1
            yield outputs

    def run(self, sample: Sample) -> list[np.ndarray]:
        """A single sample is not worth a note."""
        found = list(self.live(iter([sample])))
        if len(found) != 1:
            raise HwptqError(f"{self.address}: gave the outputs of {len(found)} samples instead of 1")
        return found[0]

    def lost(self, why: str) -> LostConnection:
        """The error for a connection that is gone."""
        done = f" after {self._through} samples" if self._through else ""
        return LostConnection(
            f"{self.address}: the connection is lost{done}{f' ({why})' if why else ''}; run the same command "
            f"again, it goes on from there"
        )
