"""Where tensors of known lives lie in the arena."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwptq.backends.static_c.arena import Life, centred, least_bytes, packed, total_bytes

ALIGNMENT = 16


@st.composite
def lives(draw: st.DrawFn) -> list[Life]:
    found = []
    for _ in range(draw(st.integers(0, 12))):
        born = draw(st.integers(0, 10))
        found.append(Life(draw(st.integers(1, 300)), born, born + draw(st.integers(0, 4))))
    return found


@pytest.mark.parametrize("arranged", [packed, centred])
@given(tensors=lives())
def test_tensors_that_meet_lie_apart(arranged: object, tensors: list[Life]) -> None:
    offsets = arranged(tensors, ALIGNMENT)  # type: ignore[operator]
    assert all(at >= 0 and at % ALIGNMENT == 0 for at in offsets)
    assert total_bytes(tensors, offsets) >= least_bytes(tensors)
    for (one, at), (other, there) in combinations(zip(tensors, offsets, strict=True), 2):
        assert not one.meets(other) or at + one.size <= there or there + other.size <= at


def test_a_chain_of_two_at_a_time_takes_the_least() -> None:
    """Large and small ones in turn: the arena is that of the largest pair, whatever the order."""
    sizes = [64, 512, 128, 256, 1024, 16, 32]
    chain = [Life(size, call, call + 1) for call, size in enumerate(sizes)]
    assert total_bytes(chain, packed(chain, ALIGNMENT)) == least_bytes(chain) == 1024 + 256


def test_what_is_shared_by_threads_has_a_common_middle() -> None:
    offsets = centred([Life(2048, 0, 1), Life(2048, 1, 2), Life(1024, 2, 3)], 64)
    assert offsets == [0, 2048, 512]
