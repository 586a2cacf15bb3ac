"""Executor: how a compiled model is run. An open set: a class joins it by being defined, in any file.

Modules of this package, and of those below it, are found by themselves.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import cycle, islice
from time import perf_counter
from typing import Any, ClassVar

import numpy as np

from hwptq.backends.program import Program
from hwptq.errors import HwptqError, InputError

_WARM_UP = 3
#: The inputs of one sample by name.
Sample = Mapping[str, np.ndarray]


class Executor(ABC):
    """Runs a program. Raises HwptqError where it fails.

    Of a program with caches (Program.state) a stream is a text, whose steps are its samples: the caches are
    empty at its beginning, and before each sample whose position is 0. Where it reads prompts too
    (Program.prompt), a sample may be one, or ask for the caches: see requests.py.

    preference: which one is taken where several can run a program, the highest; below 0 only by its name.
    timed: whether `times` are those of the code.
    placed: whether a place may stand behind its name, as in ssh:HOST; its class then takes (program, place).
    prompts: whether it has the program read several tokens at once.
    """

    name: ClassVar[str] = ""
    preference: ClassVar[int] = -1
    timed: ClassVar[bool] = False
    placed: ClassVar[bool] = False
    prompts: ClassVar[bool] = False
    _classes: ClassVar[dict[str, type[Executor]]] = {}

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if cls.name:
            Executor._classes[cls.name] = cls

    def __init__(self, program: Program):
        self.program = program

    @classmethod
    @abstractmethod
    def why_not(cls, program: Program) -> str | None:
        """Why it can't run a program here, or None where it can."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What runs the code: the processor, or the emulator with its version."""

    @abstractmethod
    def run_stream(self, samples: Iterable[Sample]) -> Iterator[list[np.ndarray]]:
        """The outputs of each sample, as soon as they are known. An error of `samples` is raised as it is."""

    def run(self, sample: Sample) -> list[np.ndarray]:
        """The outputs of one sample."""
        found = list(self.run_stream([sample]))
        if len(found) != 1:
            raise HwptqError(f"{self.program.program} gave the outputs of {len(found)} samples instead of 1")
        return found[0]

    def times(self, samples: Sequence[Sample], runs: int) -> list[float]:
        """Milliseconds of each of `runs` calls on the samples in turn, after a few that are not counted."""
        calls = _WARM_UP + runs
        stream, found = iter(self.run_stream(islice(cycle(samples), calls))), []
        for _ in range(calls):
            begin = perf_counter()
            next(stream)
            found.append(1e3 * (perf_counter() - begin))
        return found[_WARM_UP:]

    def conditions(self) -> dict[str, float]:
        """What the machine tells of its state, which times depend on; empty where it tells nothing."""
        return {}

    def close(self) -> None:
        """Give back what it holds elsewhere. It may be used again, and begins anew."""
        return None


def executor_for(program: Program, name: str | None = None) -> Executor:
    """The executor of that name, else the preferred one that can run the program here.

    Raises InputError where there is none.
    """
    _load_all()
    if program.program is None:
        raise InputError(f"there is no program to run: {program.why_none}")
    if name is not None and name not in Executor._classes:
        return _placed(program, name)
    known = [cls for cls in Executor._classes.values() if cls.preference >= 0]
    wanted = sorted(known, key=lambda cls: -cls.preference) if name is None else [Executor._classes[name]]
    reasons = []
    for cls in wanted:
        reason = cls.why_not(program)
        if reason is None:
            return cls(program)
        reasons.append(f"{cls.name}: {reason}")
    raise InputError(f"{program.program} can't be run here: {'; '.join(dict.fromkeys(reasons))}")


def _placed(program: Program, name: str) -> Executor:
    """The executor of a name with a place behind it."""
    kind, _, place = name.partition(":")
    cls: Any = Executor._classes.get(kind)
    if cls is None or not cls.placed or not place:
        known = sorted(n + (":…" if c.placed else "") for n, c in Executor._classes.items())
        raise InputError(f"no executor {name!r}; there are {', '.join(known)}")
    if (reason := cls.why_not(program)) is not None:
        raise InputError(f"{program.program} can't be run by {name}: {reason}")
    found: Executor = cls(program, place)
    return found


@cache
def _load_all() -> None:
    package = importlib.import_module(__package__)
    for found in pkgutil.walk_packages(package.__path__, f"{__package__}."):
        importlib.import_module(found.name)
