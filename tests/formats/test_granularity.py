"""Shapes of scales."""

from __future__ import annotations

import numpy as np
import pytest

from hwptq.formats import Granularity, PerAxis, PerGroup, PerTensor, PerToken, parse_granularity


@pytest.mark.parametrize(
    ("word", "granularity", "shape", "scales"),
    [
        ("tensor", PerTensor(), (8, 3, 3, 3), (1, 1, 1, 1)),
        ("channel", PerAxis(0), (8, 3, 3, 3), (8, 1, 1, 1)),
        ("group", PerGroup(1, 32), (8, 100), (8, 4)),
        ("token", PerToken(), (1, 7, 64), (1, 7, 1)),
    ],
)
def test_shapes(word: str, granularity: Granularity, shape: tuple[int, ...], scales: tuple[int, ...]) -> None:
    assert parse_granularity(word, group=32) == granularity
    assert granularity.scale_shape(shape) == scales


def test_axes_count_from_either_end() -> None:
    assert PerAxis(-1).scale_shape((2, 3)) == PerAxis(1).scale_shape((2, 3)) == (1, 3)
    with pytest.raises(ValueError, match="no axis 2 in a tensor of rank 2"):
        PerAxis(2).scale_shape((2, 3))


def test_scales_are_broadcast_against_the_tensor() -> None:
    for granularity in (PerTensor(), PerAxis(1), PerToken()):
        assert np.broadcast_shapes((2, 3, 4), granularity.scale_shape((2, 3, 4))) == (2, 3, 4)


def test_bad_words() -> None:
    with pytest.raises(ValueError, match="no granularity 'row'; known are tensor, channel, group, token"):
        parse_granularity("row")
    with pytest.raises(ValueError, match="a group of 0 values"):
        parse_granularity("group")
