"""The page of a report: what report.json says of a model is there to read, and nothing breaks it."""

from __future__ import annotations

import copy
from html.parser import HTMLParser

import pytest

from hwptq.page.page import html_report

REPORT = {
    "schema": 1,
    "model": "net",
    "target": "some-device",
    "hwptq": "1.0",
    "coverage": {
        "macs_total": 2_000_000,
        "macs_quantized": 1_500_000,
        "nodes_quantized": 7,
        "nodes_float": [{"name": "softmax", "op": "nn.softmax", "reason": "it has no integer form"}],
        "nodes_scalar": [{"name": "image", "op": "permute_dims"}],
    },
    "bits": [
        {
            "name": "conv1", "op": "conv2d", "weight": "int4", "activation": "int8", "macs": 10,
            "weight_bytes": 1234,
        }
    ],
    "arena_bytes": 4700,
    "weight_bytes": {"float32": 5_000_000, "quantized": 640_000},
    "bit_exact": {"executor": "native", "samples": 3, "values": 30, "mismatches": 0, "first_mismatch": None},
    "accuracy": {
        "metric": "top1", "samples": 3, "float32": 90.0, "reference": 88.5, "emitted": 88.5,
        "sqnr_db": {"reference": 20.5, "emitted": 20.5}, "cosine": {"reference": 0.99, "emitted": 0.99},
    },
    "layers": [
        {"name": "conv1", "sqnr_db": 30.0, "operator": "conv2d", "kernel": "dot_product", "macs": 10},
        {"name": "pool", "sqnr_db": 25.0, "change_db": -5.0}, {"name": "x", "sqnr_db": None},
    ],
    "seconds": {"import": 0.5, "verify": 12.25},
}  # fmt: skip


class _Text(HTMLParser):
    """The words of a page, and a check that its tags close in the order in which they opened."""

    VOID = ("meta", "input", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())


def _read(report: dict) -> _Text:
    page = _Text()
    page.feed(html_report(report))
    page.close()
    assert not page.open
    return page


def test_says_what_the_report_says() -> None:
    words = _read(REPORT).words
    for expected in (
        "75.0 %",
        "640.0 kB",
        "bit-exact",
        "88.50 %",
        "conv1",
        "int8 × int4",
        "1.2 kB",
        "-5.0",
        "exact",
    ):
        assert expected in words
    text = " ".join(words)
    assert "softmax nn.softmax it has no integer form" in text
    assert "image permute_dims" in text
    assert "Lost by quantization (float32 to reference): +1.50." in text
    assert "lowering (reference to emitted code): 0.00." in text


def test_shows_mismatches_and_code_that_was_not_run() -> None:
    wrong = copy.deepcopy(REPORT)
    wrong["bit_exact"] |= {"mismatches": 4}
    assert "4 mismatches" in _read(wrong).words
    unrun = copy.deepcopy(REPORT)
    unrun["bit_exact"] |= {"samples": 0, "executor": "not run: this machine's CPU lacks amx"}
    del unrun["accuracy"]["emitted"]
    text = " ".join(_read(unrun).words)
    assert "not run: this machine's CPU lacks amx" in text
    assert "reference to emitted code): not run" in text


@pytest.mark.parametrize("metric", ["sqnr_db", "my.module:f1"])
def test_takes_every_metric(metric: str) -> None:
    report = copy.deepcopy(REPORT)
    report["accuracy"] |= {"metric": metric}
    assert ("SQNR, dB" if metric == "sqnr_db" else metric) in _read(report).words


def test_names_of_a_model_are_text() -> None:
    report = copy.deepcopy(REPORT)
    report["layers"][0]["name"] = "<script>alert(1)</script>"
    assert "script" not in _read(report).tags


def test_shows_how_the_dtypes_were_chosen() -> None:
    report = copy.deepcopy(REPORT)
    report["assignment"] = {"budget": "weights=640kB", "tried": [{"weights": 630_000.0, "drop": 0.25}]}
    words = _read(report).words
    assert "Searched for --max-drop. Choices that were compiled and run on the evaluation data:" in words
    assert {"630,000", "+0.25"} <= set(words)
    bits = {"asked": 3.2, "stored": 3.1875, "layers": {"conv": 3.1875}}
    report["assignment"] = {"budget": "bits=3.2", "tried": [], "bits": bits}
    assert "Budget: bits=3.2. Bits a weight, scales included: 3.188." in _read(report).words


def test_shows_warnings() -> None:
    report = copy.deepcopy(REPORT) | {"warnings": [{"kind": "sqnr", "where": "y", "text": "below 15 dB"}]}
    assert "sqnr y: below 15 dB" in " ".join(_read(report).words)
