"""Backend: how code for a kind of target is built and what it stands on. An open set, one package each.

A package below hwptq.backends with a module `backend` is one; a class defined elsewhere joins them by being
defined. Which one serves a target follows from the runtime that its descriptor names.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tvm

from hwptq.cache.cache import Cache
from hwptq.errors import InputError
from hwptq.targets import Descriptor
from hwptq.targets.templates.intrinsics import Call

from .program import Program
from .toolchain import find_program


@dataclass(frozen=True)
class Arena:
    """The bytes of all activations, and those that the device has for them: None where it does not say."""

    nbytes: int
    room: int | None = None


class Backend(ABC):
    """Builds and describes programs of the runtimes it serves."""

    runtimes: ClassVar[tuple[str, ...]] = ()
    #: Whether its programs can keep caches (hwptq/ir/caches.py) from one sample to the next.
    keeps_caches: ClassVar[bool] = False
    _classes: ClassVar[dict[str, type[Backend]]] = {}

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        Backend._classes |= dict.fromkeys(cls.runtimes, cls)

    def __init__(self, target: Descriptor, cache: Cache | None = None):
        """cache: of what was compiled before."""
        self.target, self.cache = target, cache or Cache()

    @abstractmethod
    def build(
        self, mod: tvm.IRModule, output_names: tuple[str, ...], name: str, folder: Path,
        prompt: tvm.IRModule | None = None,
    ) -> Program:  # fmt: skip
        """Build a module of kernels in `folder`, all files that users get.

        prompt: what ReadPrompt has made of a step, as kernels; see why_no_prompt.
        """

    def why_no_prompt(self, threads: int) -> str | None:
        """Why its programs can't read several tokens of a text at once, or None where they can."""
        return "its programs keep no caches"

    @abstractmethod
    def build_program(
        self, mod: tvm.IRModule, output_names: tuple[str, ...], name: str, folder: Path
    ) -> Program:  # fmt: skip
        """What can be run of it only: for a look at its results."""

    @abstractmethod
    def why_not_run(self) -> str | None:
        """Why its programs can't be run here, or None where they can."""

    def arena_of(self, mod: tvm.IRModule, output_names: tuple[str, ...]) -> Arena | None:
        """What the activations of a module of kernels take; None where nobody plans that."""
        return None

    def why_not_tune(self) -> str | None:
        """Why tiles can't be chosen by measurement, or None where they can."""
        return "its kernels have no candidates to choose from"

    def unit_of_costs(self) -> str:
        """What candidates for a kernel are compared by."""
        raise NotImplementedError

    def candidate_costs(self, layers: Sequence[Any], folder: Path) -> Iterator[tuple[float, ...]]:
        """The cost of each candidate of each layer, as soon as it is known. `folder` is for files."""
        raise NotImplementedError

    def why_not_profile(self, threads: int) -> str | None:
        """Why calls of kernels can't be measured one by one, or None where they can."""
        return "its kernels can't be measured one by one"

    def call_costs(
        self, mod: tvm.IRModule, program: Program, sample: bytes, folder: Path
    ) -> tuple[float, ...]:  # fmt: skip
        """The cost of each of `program.calls`, in `unit_of_costs`, on the inputs of one sample. mod: what the
        program was built from; `folder` is for files."""
        raise NotImplementedError

    def why_not_try(self) -> str | None:
        """Why its intrinsics can't be tried, one by one, or None where they can."""
        return "there is nothing to try its intrinsics with"

    def run_intrinsics(
        self, calls: Sequence[Call], operands: Sequence[Sequence[np.ndarray]], folder: Path
    ) -> list[np.ndarray]:  # fmt: skip
        """What each call makes of operands [tries, lanes]: [tries, lanes of the result]; without calls, a
        program that does nothing. Raises HwptqError where it can't be built, or fails."""
        raise NotImplementedError

    @property
    def hint(self) -> str:
        """What to do where a program that the descriptor names is missing."""
        packages = self.target.toolchain.packages
        return f"install {' '.join(packages)}" if packages else "install them, or correct the descriptor"

    def check(self, threads: int = 1, here: bool = True) -> None:
        """Raise InputError where a compiler is missing, an emulator (if code runs here), or code can't be as
        it is wished."""
        tools = self.target.toolchain
        programs = (tools.compiler, tools.run) if here else (tools.compiler,)
        missing = [c[0] for c in programs if c and find_program(c[0]) is None]
        if missing:
            raise InputError(f"{self.target.name}: {' and '.join(missing)} not found on PATH; {self.hint}")


def backend_of(target: Descriptor, cache: Cache | None = None) -> Backend:
    """The backend that serves a target. Raises InputError where there is none."""
    _load_all()
    found = Backend._classes.get(target.toolchain.runtime)
    if found is None:
        raise InputError(f"{target.name}: no backend for the runtime {target.toolchain.runtime!r}")
    return found(target, cache)


def why_not_run(target: Descriptor) -> str | None:
    """Why programs for `target` can't be run here, or None where they can."""
    return backend_of(target).why_not_run()


@cache
def _load_all() -> None:
    package = importlib.import_module(__package__)
    for found in pkgutil.iter_modules(package.__path__):
        if found.ispkg:
            importlib.import_module(f"{__package__}.{found.name}.backend")
