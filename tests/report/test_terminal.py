"""The table at the end of a compilation says what stayed in float, alike nodes in one row."""

from __future__ import annotations

from typing import Any

from hwptq.cli.terminal import report_rows


def report(nodes: list[tuple[str, str, str]]) -> dict[str, Any]:
    return {
        "coverage": {
            "macs_total": 200,
            "macs_quantized": 150,
            "nodes_quantized": 3,
            "nodes_float": [{"name": n, "op": op, "reason": reason} for n, op, reason in nodes],
        },
        "weight_bytes": {"float32": 4000, "quantized": 1000},
        "arena_bytes": 512,
        "bit_exact": {"samples": 0, "executor": "not run"},
        "accuracy": {"metric": "sqnr_db", "reference": 40.0, "cosine": {"reference": 0.999}},
        "layers": [],
    }


def in_float(nodes: list[tuple[str, str, str]]) -> list[str]:
    return [text for label, text in report_rows(report(nodes)) if label == "in float"]


def test_nodes_of_one_operator_and_reason_share_a_row():
    nodes = [("s", "nn.softmax", "no integer form"), *((f"n{i}", "sigmoid", "alone") for i in range(4))]
    assert in_float(nodes) == ["n0 and 3 more (sigmoid): alone", "s (nn.softmax): no integer form"]


def test_many_reasons_are_cut_off_and_counted():
    nodes = [(f"n{i}", f"op{i}", "why") for i in range(9)] + [("again", "op0", "why")]
    rows = in_float(nodes)
    assert rows[0] == "n0 and 1 more (op0): why"
    assert len(rows) == 9
    assert rows[-1] == "… and 1 more, see report.json"


def test_warnings_are_shown_as_they_are_written():
    found = report([]) | {"warnings": [{"kind": "sqnr", "where": "out[a]", "text": "is noise"}]}
    assert ("warning", r"[yellow]out\[a]: is noise[/]") in list(report_rows(found))
