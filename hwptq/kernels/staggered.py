"""Loops whose turns overlap: while one begins, those before it go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hwptq.tir.builder import Expr, loop

#: (number of a turn, that number modulo the period) -> its code.
Stage = Callable[[Expr, int], None]


def staggered(count: int, period: int, stages: Sequence[Stage]) -> None:
    """Code for `count` turns of all stages: stage n of turn i stands beside stage 0 of turn i + n.

    What a turn holds may be used again `period` turns later; a loop takes so many at a time.
    """
    behind = len(stages) - 1

    def emit(at: Expr, phase: int) -> None:
        for n, stage in enumerate(stages):
            if not isinstance(at, int) or 0 <= at - n < count:
                stage(at - n, (phase - n) % period)

    begin = min(behind, count)
    for at in range(begin):
        emit(at, at)
    whole = max(count - behind, 0) // period

    def several(n: Expr) -> None:
        for place in range(period):
            emit(behind + n * period + place, behind + place)

    loop(whole, several)
    for at in range(begin + whole * period, count + behind):
        emit(at, at)
