"""The typed report holds the figures of report.json."""

from __future__ import annotations

import pytest
from test_html_report import REPORT

from hwptq.notices import Warning
from hwptq.report.typed import FloatNode, LayerNoise, Report

FULL = REPORT | {
    "caution": None,
    "warnings": [{"kind": "sqnr", "where": "y", "text": "low"}],
    "of a later version": 1,
}


def test_holds_what_the_file_says():
    found = Report.of(FULL)
    assert (found.model, found.target, found.arena_bytes) == ("net", "some-device", 4700)
    assert found.coverage.share == 0.75
    assert found.coverage.nodes_float == (FloatNode("softmax", "nn.softmax", "it has no integer form"),)
    assert (found.bits[0].weight, found.bits[0].weight_bytes) == ("int4", 1234)
    assert (found.weight_bytes.float32, found.weight_bytes.quantized) == (5_000_000, 640_000)
    assert (found.bit_exact.values, found.bit_exact.mismatches) == (30, 0)
    assert found.layers[0] == LayerNoise("conv1", 30.0, operator="conv2d", kernel="dot_product", macs=10)
    assert found.layers[1] == LayerNoise("pool", 25.0, change_db=-5.0)
    assert found.warnings == (Warning("sqnr", "y", "low"),)
    assert found.accuracy.sqnr_db == {"reference": 20.5, "emitted": 20.5}


@pytest.mark.parametrize(
    ("changed", "drop"),
    [({}, 1.5), ({"emitted": None}, None), ({"metric": "sqnr_db", "float32": None}, None)],
)
def test_what_the_code_loses(changed: dict[str, object], drop: float | None):
    accuracy = REPORT["accuracy"] | changed  # type: ignore[operator]
    assert Report.of(FULL | {"accuracy": accuracy}).accuracy.drop == drop
