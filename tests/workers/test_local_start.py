"""Processes that die while they start are started again, but not for ever."""

from __future__ import annotations

from typing import Any

import pytest

from hwptq.errors import HwptqError
from hwptq.workers import dask_workers

distributed = pytest.importorskip("distributed")


@pytest.mark.parametrize("deaths", [0, 2, 3])
def test_a_few_times(monkeypatch: pytest.MonkeyPatch, deaths: int) -> None:
    started: list[int] = []

    def start(n_workers: int, **_: Any) -> str:
        started.append(n_workers)
        if len(started) <= deaths:
            raise RuntimeError("Nanny failed to start.")
        return "cluster"

    monkeypatch.setattr(distributed, "LocalCluster", start)
    if deaths < 3:
        assert dask_workers._local_cluster("local:2") == "cluster"
        assert started == [2] * (deaths + 1)
        return
    with pytest.raises(HwptqError, match="can't be started: Nanny failed"):
        dask_workers._local_cluster("local:2")
    assert started == [2] * 3
