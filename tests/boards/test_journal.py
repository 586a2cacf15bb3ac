"""What was computed before a connection was lost is not computed again, and nothing else is taken for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwptq.backends.program import Tensor
from hwptq.executors.boards.journal import Journal, resumed

X, Y = Tensor("x", (2, 3), "int8"), Tensor("y", (2, 3), "float32")


class Machine:
    """Doubles x; loses the connection before sample `lost`, counted from those that reach it."""

    def __init__(self, lost: int = 1 << 30):
        self.lost, self.count = lost, 0

    def __call__(self, samples: Iterator[Any]) -> Iterator[list[np.ndarray]]:
        for sample in samples:
            if self.count == self.lost:
                raise ConnectionError
            self.count += 1
            yield [sample["x"].astype(np.float32) * 2]


def samples(values: list[int]) -> list[dict[str, np.ndarray]]:
    return [{"x": np.full((2, 3), value, np.int8)} for value in values]


def journal(folder: Path) -> Journal:
    return Journal(folder / "cache" / "journal", [X], [Y])


@given(st.data())
def test_it_goes_on_where_it_stopped(tmp_path_factory: Any, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(-50, 50), min_size=1, max_size=8))
    lost = data.draw(st.integers(0, len(values) - 1))
    kept = journal(tmp_path_factory.mktemp("journal"))
    before: list[Any] = []
    with pytest.raises(ConnectionError):
        before.extend(resumed(kept, samples(values), Machine(lost)))
    assert len(before) == lost
    if data.draw(st.booleans()) and kept.file.exists():  # killed in the middle of a record
        kept.file.write_bytes(kept.file.read_bytes() + b"half")
    again = Machine()
    found = list(resumed(kept, samples(values), again))
    assert [y[0].tolist() for y in found] == [(s["x"] * 2.0).tolist() for s in samples(values)]
    assert again.count == len(values) - lost
    assert not kept.file.exists()


def test_another_sample_is_computed(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        list(resumed(journal(tmp_path), samples([1, 2, 3, 4]), Machine(3)))
    again = Machine()
    found = list(resumed(journal(tmp_path), samples([1, 9, 3, 4]), again))
    assert [int(y[0][0, 0]) for y in found] == [2, 18, 6, 8]
    assert again.count == 3


def test_fewer_samples_need_no_machine(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        list(resumed(journal(tmp_path), samples([1, 2, 3]), Machine(2)))
    again = Machine()
    assert len(list(resumed(journal(tmp_path), samples([1]), again))) == 1
    assert again.count == 0
