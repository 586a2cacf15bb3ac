"""Score: the accuracy object of a report."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import normal

from hwptq.report.accuracy import Score, Sqnr


def test_each_output_has_an_sqnr_of_its_own_and_all_have_one_together():
    score = Score()
    pairs = {0: Sqnr(), 1: Sqnr(), "all": Sqnr()}
    for seed in range(3):
        exact = [normal(seed, 1, 4, 2), normal(seed + 10, 1, 5)]
        found = [exact[0] + np.float32(0.1), exact[1] * np.float32(0.5)]
        score.add(None, {"float32": exact, "reference": found, "emitted": exact})
        for i in (0, 1):
            pairs[i].add(exact[i], found[i])
            pairs["all"].add(exact[i], found[i])
    report = score.report()
    assert report["metric"] == "sqnr_db"
    assert report["reference"] == pytest.approx(pairs["all"].db, abs=0.011)
    assert [o["sqnr_db"] for o in report["outputs"]] == [
        {"reference": pairs[i].db, "emitted": None} for i in (0, 1)
    ]
    assert report["sqnr_db"]["emitted"] is None
    assert report["cosine"]["emitted"] == 1
