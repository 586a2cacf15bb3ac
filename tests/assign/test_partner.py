"""The partner of a tower: what a choice of dtypes loses is what the order of its similarities loses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwptq.errors import InputError
from hwptq.options import Options
from hwptq.evaluate.partner import Partner, read_partner

seeds = st.integers(0, 2**32 - 1)


def stored(rows: np.ndarray, folder: Path) -> Path:
    np.save(folder / "partner.npy", rows)
    return folder / "partner.npy"


@given(seeds, st.floats(0.1, 10))
def test_nothing_is_lost_where_the_order_is_kept(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    partner, exact = Partner(np.linalg.qr(rng.standard_normal((6, 6)))[0][:4]), rng.standard_normal(6)
    assert partner.loss(exact, exact * size) == pytest.approx(0, abs=1e-9)
    assert partner.loss(exact, rng.standard_normal(6)) >= 0


def test_errors_that_no_partner_tells_apart_cost_little() -> None:
    """Along the axis on which all partners are alike, and along that on which they differ."""
    partner = Partner(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    exact = np.array([1.0, 0.8, 0.0])
    aside, across = (partner.loss(exact, exact + np.array(e)) for e in ((0, 0, 0.3), (-0.2, 0.2, 0)))
    assert across > 20 * aside


def test_partners_are_read_as_unit_rows(tmp_path: Path) -> None:
    found = read_partner(stored(np.array([[3.0, 4.0], [0.0, 2.0]], np.float32), tmp_path))
    np.testing.assert_allclose(found.rows, [[0.6, 0.8], [0.0, 1.0]])
    with pytest.raises(InputError, match="the first output of the model has 3"):
        found.loss(np.ones(3), np.ones(3))


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (np.ones(4, np.float32), r"give embeddings \[N, D\]"),
        (np.ones((4, 2), np.int64), r"give embeddings \[N, D\]"),
        (np.full((4, 2), np.nan), "not finite"),
    ],
)
def test_what_is_no_partner_is_refused(tmp_path: Path, rows: np.ndarray, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_partner(stored(rows, tmp_path))


def test_a_partner_alone_decides_nothing() -> None:
    with pytest.raises(InputError, match="give --budget or --max-drop"):
        Options(partner=Path("p.npy"))
