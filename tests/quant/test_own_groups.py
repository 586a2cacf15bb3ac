"""Groups of weights that another tool has quantized keep levels, scales and zero points, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwptq.formats import format_of
from hwptq.quant.group_codes import group_values
from hwptq.quant.own_groups import own_rows


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6), bits=st.sampled_from(["int4", "int8"]), size=st.sampled_from([16, 32]),
    depth=st.integers(16, 90), symmetric=st.booleans(), blocks=st.sampled_from([1, 2]),
)  # fmt: skip
def test_values_stay(seed: int, bits: str, size: int, depth: int, symmetric: bool, blocks: int) -> None:
    """Also where the groups asked for are parts of the file's blocks."""
    rng, weight = np.random.default_rng(seed), format_of(bits)
    count = -(-depth // (size * blocks))
    scale = rng.uniform(0.01, 1, (5, count)).astype(np.float32)
    low, high = int(weight.qmin), int(weight.qmax)
    zero = (
        np.zeros((5, count), int) if symmetric or bits == "int8" else rng.integers(low, high + 1, (5, count))
    )
    codes = rng.integers(low, high + 1, (5, depth))
    spread = [np.repeat(v, size * blocks, 1)[:, :depth] for v in (zero, scale)]
    rows = (codes - spread[0]).astype(np.float32) * spread[1]
    found = own_rows(rows, weight, size)
    assert found is not None
    values = group_values(found.codes, found.scales, found.zeros, found.weight, found.size, found.depth)
    np.testing.assert_allclose(values, rows, rtol=2e-7, atol=0)
    assert (found.zeros is None) == bool(np.all((codes - spread[0] >= low) & (codes - spread[0] <= high)))


@pytest.mark.parametrize("bits", ["int4", "int8", "levels_1_3"])
def test_real_weights_are_not_theirs(bits: str) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    assert own_rows(rows, format_of(bits), 32) is None


def test_wider_codes_are_none_of_a_narrow_format() -> None:
    rows = np.arange(-16, 16, dtype=np.float32)[None]
    assert own_rows(rows, format_of("int4"), 32) is None
    assert own_rows(rows, format_of("int8"), 32) is not None
