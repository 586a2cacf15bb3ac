"""`hwptq compile` for Hopper: needs nvcc, but no GPU, where the emulator stands in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models as om
import pytest
import step_models

import hwptq
from hwptq.backends import backend
from hwptq.backends.backend import why_not_run
from hwptq.backends.toolchain import find_program
from hwptq.backends.tvm_cuda import backend as cuda_backend
from hwptq.backends.tvm_cuda.sass import instructions
from hwptq.errors import InputError
from hwptq.targets import load_target

TARGET = load_target("nvidia-hopper-fp8")
SAMPLES = [{"x": om.normal(2 + i, 1, 3, 8, 8)} for i in range(3)]
needs_nvcc = pytest.mark.skipif(find_program("nvcc") is None, reason="nvcc is not installed")


def small_model(folder: Path) -> Path:
    nodes = [
        om.node("Conv", "x w b", "c", "conv", pads=[1, 1, 1, 1]),
        om.node("Relu", "c", "y", "relu"),
    ]
    constants = {"w": om.normal(0, 16, 3, 3, 3, spread=0.3), "b": om.normal(1, 16)}
    return om.save(om.model(nodes, {"x": (1, 3, 8, 8)}, constants), folder)


def test_without_nvcc_there_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_program", lambda name: None)
    with pytest.raises(InputError, match=r"nvcc not found on PATH; .*hwptq\[cuda\]"):
        hwptq.compile(small_model(tmp_path), TARGET.name, SAMPLES, output=tmp_path / "out")


@needs_nvcc
def test_compile(tmp_path: Path) -> None:
    result = hwptq.compile(small_model(tmp_path), TARGET.name, SAMPLES, output=tmp_path / "out")
    files = {p.name for p in result.folder.iterdir()}
    assert {"model.so", "model.py", "metadata.json", "report.json", "golden.npz", "model.qdq.onnx"} <= files
    exact = result.report["bit_exact"]
    if why_not_run(TARGET):
        assert exact == {
            "executor": "emulator", "samples": 0, "values": 0, "mismatches": 0, "first_mismatch": None
        }  # fmt: skip
    else:
        assert exact["executor"].startswith("NVIDIA")
        assert exact["values"] == 3 * 16 * 64
        assert exact["mismatches"] == 0
    assert result.report["coverage"]["macs_quantized"] == result.report["coverage"]["macs_total"]
    assert [row["weight"] for row in result.report["bits"]] == ["float8_e4m3fn"]
    assert json.loads((result.folder / "metadata.json").read_text())["run"] == ["python3"]
    assert np.load(result.folder / "golden.npz")["output_0"].shape == (3, 16, 8, 8)


@needs_nvcc
@pytest.mark.parametrize(
    ("target", "precision", "instruction"),
    [
        ("nvidia-hopper-fp8", "fp8", "QGMMA"), ("nvidia-hopper-fp8", "w8a8", "IGMMA"),
        ("nvidia-hopper-fp8", "bf16", "HGMMA"),
        ("nvidia-ada-fp8", "fp8", "QMMA"), ("nvidia-ada-fp8", "w8a8", "IMMA"),
    ],
)  # fmt: skip
def test_the_machine_code_uses_the_tensor_cores(
    target: str, precision: str, instruction: str, tmp_path: Path
) -> None:
    if find_program("cuobjdump") is None:
        pytest.skip("cuobjdump is not installed")
    options = hwptq.Options(precision=precision, lower_ends=True)
    hwptq.compile(small_model(tmp_path), target, SAMPLES, output=tmp_path / "out", options=options)
    found = instructions(tmp_path / "out" / "model.so", load_target(target))
    products = [counts for name, counts in found.items() if "mma" in name]
    assert products
    assert all(counts[instruction] > 0 for counts in products)


@needs_nvcc
def test_a_target_that_was_never_run_says_so(tmp_path: Path) -> None:
    result = hwptq.compile(small_model(tmp_path), "nvidia-ada-fp8", SAMPLES, output=tmp_path / "out")
    assert result.report["caution"].startswith("compiled, never run on this chip")
    assert "never run on this chip" in (tmp_path / "out" / "report.html").read_text()


@needs_nvcc
@pytest.mark.parametrize("weights", [{}, {"weight_granularity": "group", "group": 8}], ids=["int8", "groups"])
def test_a_step_of_a_language_model_keeps_its_caches(weights: dict[str, Any], tmp_path: Path) -> None:
    step_models.step_model(tmp_path / "step.onnx")
    data = [{"t": np.array([[i % step_models.WORDS]]), "at": np.array([i])} for i in range(4)]
    result = hwptq.compile(
        tmp_path / "step.onnx", TARGET.name, evaluation_data=data, output=tmp_path / "out",
        activations="dynamic", **weights,
    )  # fmt: skip
    state = result.program.state
    assert state is not None
    assert [c.name for c in state.caches] == ["past.k"]
    assert [t.name for t in result.program.inputs] == ["t", "at"]
    assert [t.name for t in result.program.outputs] == ["y"]
    assert state.position == 1
    assert result.report["coverage"]["macs_quantized"] == result.report["coverage"]["macs_total"]


def test_code_for_another_gpu_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_backend, "gpu_architecture", lambda: "sm_90")
    here = replace(TARGET.toolchain, device_file="/dev/null")
    assert why_not_run(replace(TARGET, toolchain=here)) is None
    ada = replace(load_target("nvidia-ada-fp8"), toolchain=here)
    assert why_not_run(ada) == "this machine's GPU is sm_90, not sm_89"
