"""hwptq diagnose: what it prints, and that what it proposes can be pasted behind hwptq compile."""

from __future__ import annotations

import json

from command import TARGET, Command


def diagnose(hwptq: Command, *options: str) -> str:
    folder = hwptq.folder
    files = ["--target", TARGET, "--calibration-data", str(folder / "data.npz"), *options]
    outcome = hwptq("diagnose", folder / "model.onnx", *files)
    assert outcome.code == 0, outcome.stderr
    return outcome.stdout


def test_what_is_printed(hwptq: Command):
    text = diagnose(hwptq, "--precision", "w4a8", "--lower-ends")
    for part in ("top1: float32", "weights", "activations", "conv", "dense", "1. restores"):
        assert part in text
    assert not (hwptq.folder / "out").exists()


def test_a_remedy_can_be_pasted(hwptq: Command):
    found = json.loads(diagnose(hwptq, "--precision", "w4a8", "--lower-ends", "--recipe", "fast", "--json"))
    assert found["metric"] == "top1"
    assert found["lowering"]["mismatches"] == 0
    assert {row["name"] for row in found["layers"]} == {"x", "conv", "dense"}
    remedies = [row["arguments"] for row in found["remedies"] if row["measured"]]
    assert remedies
    pasted = ["--precision", "w4a8", "--lower-ends", "--recipe", "fast", *remedies[0]]
    assert hwptq.compile(*pasted).code == 0


def test_it_needs_calibration_data(hwptq: Command):
    outcome = hwptq("diagnose", hwptq.folder / "model.onnx", "--target", TARGET)
    assert outcome.code == 2
    assert "--calibration-data" in outcome.error


def test_repair_needs_to_know_what_may_be_lost(hwptq: Command):
    files = ["--target", TARGET, "--calibration-data", str(hwptq.folder / "data.npz")]
    outcome = hwptq("diagnose", hwptq.folder / "model.onnx", *files, "--repair")
    assert outcome.code == 2
    assert "--max-drop" in outcome.error


def test_a_report_of_every_layer_alone(hwptq: Command):
    assert hwptq.compile("--isolate").code == 0
    report = json.loads((hwptq.folder / "out" / "report.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in report["layers"]}
    for name in ("conv", "dense"):
        assert rows[name]["isolated_sqnr_db"] > 25
        assert rows[name]["isolated_output_sqnr_db"] > 25
    last = rows["dense"]  # what it gives is the model's output
    assert last["isolated_sqnr_db"] == last["isolated_output_sqnr_db"]
