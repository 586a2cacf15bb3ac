"""What a backend builds: the files of a compiled model, and the interface they offer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np

from hwptq.errors import InputError


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model's interface."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @cached_property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype(self.dtype)

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.numpy_dtype.itemsize


@dataclass(frozen=True)
class Library:
    """A shared library with `int32_t symbol(const void *const *inputs, void *const *outputs, void *arena)`.

    All buffers are aligned to `alignment` bytes; up to `readable_behind` bytes behind each are read. Calls
    with arenas of their own, of `arena_bytes`, may run side by side. Of a program with a State, an arena is a
    text, and `reset` begins a new one in it.
    """

    file: Path
    symbol: str
    arena_bytes: int
    alignment: int
    readable_behind: int = 0
    reset: str = ""  # the symbol of `void reset(void *arena)`, where there is a State
    prompt: str = ""  # … of what reads several tokens, as `symbol` reads one, where there is a Prompt


@dataclass(frozen=True)
class Machine:
    """What a machine needs to run a program: processor (as the system calls it), its features, a device.

    `device` is "cpu" or "gpu": what computes.
    """

    architecture: str = ""  # "" = any
    cpu_features: tuple[str, ...] = ()
    device: str = "cpu"


@dataclass(frozen=True)
class State:
    """What a program keeps from one step to the next: the caches that its arena begins with.

    nbytes: of all of them, zeros where a text begins. position: the index of the input of one integer that is
    0 there, and in a stream of samples begins a text anew; None = a stream is one text. context: the most
    steps of a text.
    """

    nbytes: int
    caches: tuple[Tensor, ...]
    position: int | None
    context: int


@dataclass(frozen=True)
class Prompt:
    """What a step of a language model has beside it: several tokens of a text, read at once.

    tokens: how many at most. inputs: those of a step, with so many tokens, and the number of them that are
    meant, one integer, at `count`. It gives what the step of the last of these gives.
    """

    tokens: int
    inputs: tuple[Tensor, ...]
    count: int


@dataclass(frozen=True)
class Stay:
    """A tensor in the arena: its bytes, `size` from `first` on, and the calls of kernels (the first is 0),
    from the one that writes it to the last that reads it."""

    first: int
    size: int
    born: int
    last: int


@dataclass(frozen=True)
class RegionUse:
    """A region of a device's memory: what lies there, the bytes that a program takes of it, and its size."""

    name: str
    holds: tuple[str, ...]
    used: int
    size: int


@dataclass(frozen=True)
class Program:
    """A compiled model on disk.

    program: reads samples from standard input and writes their outputs to standard output; `run` stands in
    front of it. None where only an object was asked for, or where it could not be linked: `why_none`.
    library: the same code for a process of somebody's own, where there is one.
    """

    program: Path | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    machine: Machine = Machine()
    run: tuple[str, ...] = ()
    object: Path | None = None
    header: Path | None = None  # of the object, where it is for C
    library: Library | None = None
    arena_bytes: int = 0  # of caches and activations
    state: State | None = None  # of a step of a language model
    weight_bytes: int = 0
    calls: tuple[str, ...] = ()  # kernels in the order in which they are called, without the prefix
    stays: tuple[Stay, ...] = ()  # what lies in the arena when, where it is planned
    regions: tuple[RegionUse, ...] = ()  # of a device without an operating system
    why_none: str = ""  # there is no program
    link_failed: bool = False  # … although one was asked for
    arena_least_bytes: int = 0  # of the activations at the fullest call: no arrangement takes fewer
    prompt: Prompt | None = None  # what reads several tokens at once, where it was asked for
    library_left_out: bool = False  # model.so, which the target has: its constants are too large

    @property
    def command(self) -> list[str]:
        """What starts it. Raises InputError where there is no program."""
        if self.program is None:
            raise InputError(f"there is no program: {self.why_none}")
        return [*self.run, str(self.program.resolve())]
