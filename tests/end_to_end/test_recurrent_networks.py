"""Recurrent networks by emitted code: products in integers, the same on every device, and accurate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from onnx_models import save
from recurrent_models import MODELS, samples

import hwptq
from hwptq.errors import InputError
from hwptq.options import Options


@pytest.mark.parametrize("target", ["x86-64-avx2", "arm-cortex-a"])
@pytest.mark.parametrize("name", MODELS)
def test_emitted_code(runnable: Callable[[str], str], name: str, target: str, tmp_path: Path) -> None:
    proto = MODELS[name]()
    data = samples(proto, 24)
    path = save(proto, tmp_path)
    report = hwptq.compile(path, runnable(target), data[:8], data[8:], output=tmp_path / "out").report
    assert report["bit_exact"]["mismatches"] == 0
    assert report["bit_exact"]["values"] > 0
    assert report["coverage"]["macs_quantized"] == report["coverage"]["macs_total"] > 0
    assert all(row["op"] != "call_tir" for row in report["coverage"]["nodes_float"])
    assert min(output["sqnr_db"]["emitted"] for output in report["accuracy"]["outputs"]) > 25


def test_int16_states(runnable: Callable[[str], str], tmp_path: Path) -> None:
    """int16 activations: states of 16 bits, closer to float32."""
    proto = MODELS["keyword_spotter"]()
    data, path = samples(proto, 16), save(proto, tmp_path)
    found = {}
    for precision in ("w8a8", "w8a16"):
        report = hwptq.compile(
            path, runnable("x86-64-avx2"), data, data, output=tmp_path / "out",
            options=Options(precision=precision, lower_ends=True),
        ).report  # fmt: skip
        assert report["bit_exact"]["mismatches"] == 0
        found[precision] = report["accuracy"]["emitted"]
    assert found["w8a16"] > found["w8a8"] + 3


def test_left_in_float_it_says_why(runnable: Callable[[str], str], tmp_path: Path) -> None:
    proto = MODELS["keyword_spotter"]()
    data = samples(proto, 4)
    report = hwptq.compile(
        save(proto, tmp_path), runnable("x86-64-avx2"), data, data, output=tmp_path / "out",
        options=Options(keep_float="gru"),
    ).report  # fmt: skip
    assert report["bit_exact"]["mismatches"] == 0
    assert "gru" in " ".join(row["name"] for row in report["coverage"]["nodes_float"])


def test_a_sample_is_a_whole_input_whose_first_axis_is_no_batch(tmp_path: Path) -> None:
    """A state [1, 1, H] leaves its batch out or not; of a wrong shape it is refused with what is expected."""
    proto = MODELS["voice_detector"]()
    data = samples(proto, 2)
    wrong = [{**sample, "h": sample["h"][..., :5]} for sample in data]
    with pytest.raises(InputError, match=r"input 'h'.*the graph expects"):
        hwptq.compile(save(proto, tmp_path), "x86-64-avx2", wrong, output=tmp_path / "out")
