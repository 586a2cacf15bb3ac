"""--profile: what each layer costs when the code runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx_models import model, node, normal

import hwptq
from hwptq.errors import InputError
from hwptq.report.profile import Profile, add_profile


def net() -> Any:
    """Two convolutions of which the second has 16 times the multiply-accumulates of the first."""
    nodes = [
        node("Conv", "x w", "a", "small", pads=[1, 1, 1, 1]),
        node("Relu", "a", "r", "relu"),
        node("Conv", "r v", "y", "large", pads=[1, 1, 1, 1]),
    ]
    constants = {"w": normal(0, 16, 4, 3, 3), "v": normal(1, 64, 16, 3, 3)}
    return model(nodes, {"x": ["N", 4, 12, 12]}, constants)


@pytest.mark.parametrize(("target", "unit"), [("x86-64-avx2", "ns"), ("arm-cortex-a", "instructions")])
def test_a_larger_layer_costs_more(
    runnable: Callable[[str], str], tmp_path: Path, target: str, unit: str
) -> None:
    data = {"x": normal(2, 4, 4, 12, 12)}
    result = hwptq.compile(
        net(), runnable(target), data, output=tmp_path / "out", profile=True, recipe="fast"
    )  # fmt: skip
    found = result.report["profile"]
    assert found["unit"] == unit
    costs = {row["name"]: row["cost"] for row in result.report["layers"]}
    assert costs["large"] > 2 * costs["small"] > 0
    assert found["total"] == pytest.approx(sum(row["cost"] for row in found["calls"]))
    assert sum(cost or 0 for cost in costs.values()) <= found["total"] * 1.0001
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f'<th class="n">{unit}</th>' in page


def test_the_packing_of_what_a_layer_reads_is_its_cost() -> None:
    calls = [("conv#1", "conv"), ("conv", "conv"), ("dense", "dense"), ("fused_copy", "")]
    report: dict[str, Any] = {
        "memory": {"calls": [{"name": name, "node": node, "kernel": "k"} for name, node in calls]},
        "layers": [{"name": "conv"}, {"name": "dense"}, {"name": "joined"}],
    }
    add_profile(report, Profile("ns", (1.0, 2.0, 4.0, 8.0)))
    assert [row["cost"] for row in report["layers"]] == [3.0, 4.0, None]
    assert report["profile"]["total"] == 15.0


def test_threads_share_kernels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--profile measures kernels by running them, and threads share"):
        hwptq.compile(net(), "x86-64-avx2", {}, output=tmp_path / "out", profile=True, threads=2)
