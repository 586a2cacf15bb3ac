"""Loops whose turns overlap do each stage of each turn once, in order, and hold what a period allows."""

from __future__ import annotations

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from hwptq.kernels import staggered as module
from hwptq.kernels.staggered import staggered


def unrolled(extent: int, body) -> None:
    for i in range(extent):
        body(i)


@given(st.integers(0, 30), st.integers(1, 5), st.integers(1, 4))
def test_every_stage_of_every_turn(count: int, period: int, depth: int) -> None:
    done: list[tuple[int, int]] = []

    def stage(n: int):
        def emit(turn: int, place: int) -> None:
            assert place == turn % period
            done.append((n, turn))

        return emit

    with mock.patch.object(module, "loop", unrolled):
        staggered(count, period, [stage(n) for n in range(depth)])
    assert sorted(done) == [(n, turn) for n in range(depth) for turn in range(count)]
    for n in range(depth):
        assert [turn for stage, turn in done if stage == n] == list(range(count))
    when = {what: at for at, what in enumerate(done)}
    for n, turn in done:
        if n:  # behind the stage before it, and behind the first stage of the next n turns
            assert when[n - 1, turn] < when[n, turn]
            assert all(when[0, t] < when[n, turn] for t in range(turn, min(turn + n, count - 1) + 1))
