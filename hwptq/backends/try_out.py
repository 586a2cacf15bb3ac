"""Trying a descriptor: an empty program is built and run, and its intrinsics compute what tables say."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwptq.errors import HwptqError
from hwptq.targets import Descriptor
from hwptq.targets.llvm_checks import intrinsic_calls
from hwptq.targets.templates.intrinsics import Call

from .backend import Backend

TRIES = 8  # of each intrinsic


@dataclass(frozen=True)
class Trial:
    """problems: (key, what is wrong). tried: intrinsics that ran. skipped: why others did not."""

    problems: tuple[tuple[str, str], ...] = ()
    tried: int = 0
    skipped: tuple[str, ...] = ()


def try_out(target: Descriptor, backend: Backend) -> Trial:
    """What a descriptor says, tried. Nothing that is missing on this machine is a problem."""
    reason = backend.why_not_try()
    if reason:
        return Trial(skipped=(f"not tried: {reason}",))
    try:
        _results((), backend)
    except HwptqError as error:
        return Trial((("toolchain", f"an empty program can't be built and run: {error}"),))
    values = {"kernels": target.kernels, "requantize": target.requantize}
    calls = [call for call in intrinsic_calls(values) if call.meaning]
    results, skipped = _each(calls, backend)
    found = ((call.path, _wrong(call, result)) for call, result in results)
    return Trial(tuple((path, wrong) for path, wrong in found if wrong), len(results), tuple(skipped))


def _each(calls: Sequence[Call], backend: Backend) -> tuple[list[tuple[Call, np.ndarray]], list[str]]:
    """The results of all calls by one program; where that fails, each by one of its own."""
    try:
        return list(zip(calls, _results(calls, backend), strict=True)), []
    except HwptqError:
        pass
    results, skipped = [], []
    for call in calls:
        try:
            results.append((call, _results((call,), backend)[0]))
        except HwptqError as error:
            skipped.append(f"{call.path}: {call.name} was not tried: {error}")
    return results, skipped


def _results(calls: Sequence[Call], backend: Backend) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory(prefix="hwptq-") as scratch:
        return backend.run_intrinsics(calls, [values(call) for call in calls], Path(scratch))


def _wrong(call: Call, found: np.ndarray) -> str | None:
    """What is wrong with an intrinsic, or None."""
    assert call.meaning
    expected = call.meaning(*values(call))
    differ = np.argwhere(found != expected.view(found.dtype))
    if not len(differ):
        return None
    row, lane = differ[0]
    return (
        f"{call.name} does not compute what the table says: lane {lane} is {found[row, lane]}, "
        f"not {expected[row, lane]} (order of operands, signs, or number of lanes?)"
    )


def values(call: Call) -> list[np.ndarray]:
    """Of each operand, [tries, lanes]: the ends of its range first, then random ones."""
    random = np.random.default_rng(0)
    made = []
    for i, vector in enumerate(call.vectors):
        limits = np.iinfo(vector.dtype)
        low, high = call.ranges[i] if call.ranges else (limits.min, limits.max)
        rows = random.integers(low, high, (TRIES, vector.lanes), endpoint=True)
        rows[0], rows[1] = low, high
        made.append(rows.astype(vector.dtype))
    return made
