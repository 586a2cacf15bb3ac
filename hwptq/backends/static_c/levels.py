"""Code generation that ends: LLVM is asked for less where it takes too long."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tvm

from .apart import Ended, run_apart

_FIRST, _EACH = 10, 2  # seconds of the processor: for all, and more for each function
_LESS_OPTIMIZED = (1, 0)  # levels; the first one is the target's own


def time_for(functions: int) -> int:
    """Seconds of the processor that code generation for so many functions may take."""
    return _FIRST + _EACH * functions


def generate_at_some_level(
    generate: Callable[[Any], None], target: Any, functions: Sequence[str], slow: bool = False
) -> None:
    """Call `generate` with the target, or one of a lower level. It writes files: nothing else of it is left.
    slow: it is known not to end at the target's own level.

    At some transpositions of bytes for AVX-512, LLVM does not end. Raises ValueError where it does not end at
    any level, and what `generate` raises.
    """
    seconds = time_for(len(functions))
    less = (tvm.target.Target({**target.export(), "opt-level": level}) for level in _LESS_OPTIMIZED)
    for device in itertools.chain([] if slow else [target], less):
        work = partial(generate, device)
        ended = run_apart(work, seconds)
        if ended is Ended.FAILED:
            work()  # says why
        if ended is not Ended.OUT_OF_TIME:
            return
    raise ValueError(f"{', '.join(functions)}: LLVM does not end within {seconds} s")
