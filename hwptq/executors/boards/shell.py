"""A machine with a shell: the static program is copied there, fed through a pipe, and removed again."""

from __future__ import annotations

import subprocess
import weakref
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np

from hwptq.backends.program import Program
from hwptq.errors import HwptqError
from hwptq.executors.executor import Sample
from hwptq.executors.run_program import ProgramFailed, run_program

from .board import Board

_PATIENCE = 30  # seconds for a word of the shell; copying and computing have their own time
_LEAST_WARM_UP = 3
#: What the machine tells of itself: system, processor, clock (kHz), temperature (1/1000 °C).
_FACTS = (
    "uname -m; "
    "(sed -n 's/^model name[^:]*: *//p; s/^Model[^:]*: *//p; s/^Hardware[^:]*: *//p' /proc/cpuinfo; echo) "
    "| head -n 1; "
    "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq 2>/dev/null || echo; "
    "cat /sys/class/thermal/thermal_zone0/temp 2>/dev/null || echo"
)


class Shell(Board):
    """A board that a local command, such as ssh, opens a shell on."""

    #: Where files may lie that are run.
    scratch = "/tmp"

    @classmethod
    def why_not(cls, program: Program) -> str | None:
        return None if program.machine.device == "cpu" else "it is no program for a processor"

    @abstractmethod
    def line(self, command: str) -> list[str]:
        """The local command that runs one of the board's shell, with its three streams."""

    @abstractmethod
    def is_lost(self, status: int, said: str) -> bool:
        """Whether an exit status of `line` says that the connection failed, not the command."""

    @property
    def code(self) -> Path:
        return Path(self.program.command[-1])

    @property
    def description(self) -> str:
        return f"{self.address}: {self._facts[1] or 'a board'}, {self._facts[0]}"

    def live(self, samples: Iterator[Sample]) -> Iterator[list[np.ndarray]]:
        command = self.line(self._remote)
        try:
            yield from run_program(command, self.program.inputs, self.program.outputs, samples)
        except ProgramFailed as error:
            if self.is_lost(error.status, error.said):
                raise self.lost(error.said) from error
            raise

    def times(self, samples: Sequence[Sample], runs: int) -> list[float]:
        """By the board's own clock: each of so many samples is computed once more, and that is timed."""
        count = runs + _LEAST_WARM_UP
        data = b"".join(self._bytes(samples[i % len(samples)]) for i in range(count))
        done = self._call(f"{self._remote} --repeat 1 2>&1 >/dev/null", data, None)
        try:
            found = [int(line.split()[0]) / 1e6 for line in done.decode().splitlines()]
        except (ValueError, IndexError) as error:
            raise HwptqError(
                f"{self.address}: the program tells no times: {done.decode(errors='replace')!r}"
            ) from error
        return found[_LEAST_WARM_UP:]

    def conditions(self) -> dict[str, float]:
        """The clock in MHz and the temperature in °C of this moment, as far as the board tells."""
        *_, clock, heat = self._ask()
        found = {}
        if clock.isdigit():
            found["clock_mhz"] = int(clock) / 1e3
        if heat.lstrip("-").isdigit():
            found["temperature_c"] = int(heat) / 1e3
        return found

    def close(self) -> None:
        if (finalizer := self.__dict__.get("_finalizer")) is not None:
            finalizer()

    def _bytes(self, sample: Sample) -> bytes:
        parts = (np.ascontiguousarray(sample[t.name], dtype=t.dtype) for t in self.program.inputs)
        return b"".join(part.tobytes() for part in parts)

    @cached_property
    def _facts(self) -> list[str]:
        """Raises HwptqError where code for another processor would be copied there."""
        found = self._ask()
        wanted = self.program.machine.architecture
        if wanted and found[0] and not _fits(wanted, found[0]):
            raise HwptqError(f"{self.address}: is {found[0]}, and this is code for {wanted}")
        return found

    def _ask(self) -> list[str]:
        lines = self._call(_FACTS, b"", _PATIENCE).decode(errors="replace").splitlines()
        return [line.strip() for line in (*lines, "", "", "", "")][:4]

    @cached_property
    def _remote(self) -> str:
        """The program on the board, copied when it is first asked for."""
        assert self._facts
        data = self.code.read_bytes()
        folder = f"{self.scratch}/hwptq-{sha256(data).hexdigest()[:16]}"
        self._finalizer = weakref.finalize(self, _remove, self.line(f"rm -rf {folder}"))
        self._call(f"mkdir -p {folder} && cat >{folder}/model && chmod +x {folder}/model", data, None)
        return f"{folder}/model"

    def _call(self, command: str, data: bytes, seconds: float | None) -> bytes:
        """What a command of the board's shell writes. Raises LostConnection, HwptqError."""
        try:
            done = subprocess.run(
                self.line(command), input=data, capture_output=True, check=False, timeout=seconds
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise self.lost("it does not answer") from error
        except OSError as error:
            raise HwptqError(f"{self.line('')[0]} can't be started: {error.strerror}") from error
        if done.returncode:
            said = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
            if self.is_lost(done.returncode, said):
                raise self.lost(said)
            raise HwptqError(f"{self.address}: {command.split()[0]} failed there: {said}")
        return done.stdout


def _remove(command: Sequence[str]) -> None:
    """Tidy up, if that is still possible."""
    try:
        subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return


def _fits(wanted: str, found: str) -> bool:
    """Whether a system that calls itself `found` runs code for `wanted`."""
    return wanted == found or (wanted.startswith("arm") and found.startswith("arm"))
