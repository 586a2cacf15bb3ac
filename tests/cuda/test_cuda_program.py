"""The program that runs a model on a GPU, in a folder without anything else; a stand-in for TVM's runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import step_models

from hwptq.backends.program import Program
from hwptq.backends.tvm_cuda import cuda_program
from hwptq.executors.run_program import run_program
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.passes import CarryCaches
from hwptq.targets import load_target

DEMO = Path(__file__).parents[2] / "examples" / "digits"
#: What the program takes of TVM; its model answers with the sum of the input, less the class.
RUNTIME = {
    "tvm/__init__.py": """
        import numpy as np
        from . import libinfo, runtime
        class Device:
            def sync(self): pass
        def cuda(number): return Device()
    """,
    "tvm/libinfo.py": "def package_lib_paths(): return []",
    "tvm/runtime/__init__.py": """
        class Tensor:
            def __init__(self, array): self.array = array
            def numpy(self): return self.array
            def copyfrom(self, array): self.array[...] = array
        def tensor(array, device): return Tensor(array)
        def load_module(path):
            assert path.endswith("model.so")
    """,
    "tvm/runtime/vm.py": """
        import numpy as np
        from . import Tensor
        def main(x): return Tensor((x.array.sum() - np.arange(10, dtype=np.float32))[None])
        class VirtualMachine(dict):
            def __init__(self, module, device): self["main"] = main
    """,
    "tvm_ffi/__init__.py": "",
    "tvm_ffi/libinfo.py": "def load_lib_ctypes(*_): pass",
}


def dedent(text: str) -> str:
    lines = text.splitlines()
    cut = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[cut:] for line in lines) + "\n"


class NoExecutable:
    """What compile_cuda would give."""

    def export_library(self, path: str) -> None:
        Path(path).touch()


#: The same with a step, whose output is the sum of all tokens so far: its cache has them.
STEP = """
    import numpy as np
    from . import Tensor
    def main(t, at, past):
        past.array[..., at.array, :] = t.array
        return Tensor(np.full((1, 1, 11), past.array.sum() / 8, np.float32))
    class VirtualMachine(dict):
        def __init__(self, module, device): self["main"] = main
"""


def built(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mod: Any, outputs: tuple[str, ...], main: str
) -> Program:
    """The program of a module in an empty folder, beside a stand-in for TVM whose machine is `main`."""
    for name, text in {**RUNTIME, "tvm/runtime/vm.py": main}.items():
        file = folder / "site" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    monkeypatch.setenv("PYTHONPATH", str(folder / "site"))
    monkeypatch.setattr(cuda_program, "compile_cuda", lambda mod, target, inputs: NoExecutable())
    out = folder / "out"
    out.mkdir()
    found = cuda_program.build_cuda_program(mod, outputs, "digits", load_target("nvidia-hopper-fp8"), out)
    assert sorted(p.name for p in out.iterdir()) == ["digits.py", "model.so"]
    return found


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    model = import_onnx(DEMO / "digits.onnx")
    return built(tmp_path, monkeypatch, model.module, model.outputs, RUNTIME["tvm/runtime/vm.py"])


def samples(program: Program, count: int) -> list[dict[str, np.ndarray]]:
    (x,) = program.inputs
    rng = np.random.default_rng(0)
    return [{x.name: rng.integers(0, 9, x.shape).astype(x.dtype)} for _ in range(count)]


def answer(sample: dict[str, np.ndarray]) -> np.ndarray:
    (x,) = sample.values()
    return np.asarray((x.sum() - np.arange(10, dtype=np.float32))[None])


def test_samples_stream_through_it(program: Program) -> None:
    stream = samples(program, 3)
    command = [sys.executable, str(program.program)]
    found = list(run_program(command, program.inputs, program.outputs, stream))
    assert len(found) == 3
    for sample, (output,) in zip(stream, found, strict=True):
        np.testing.assert_array_equal(output, answer(sample))


def test_caches_stay_on_the_gpu_until_a_text_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step_models.step_model(tmp_path / "step.onnx")
    model = import_onnx(tmp_path / "step.onnx")
    mod = CarryCaches()(model.module)
    program = built(tmp_path, monkeypatch, mod, model.outputs[:1], STEP)
    text = [{"t": np.array([[t]]), "at": np.array([i])} for i, t in enumerate((3, 5, 7))]
    command = [sys.executable, str(program.program)]
    found = run_program(command, program.inputs, program.outputs, [*text, *text[:2]])
    assert [float(y.ravel()[0]) for (y,) in found] == [3, 8, 15, 3, 8]


def test_the_middle_of_a_sample_is_an_error(program: Program) -> None:
    done = subprocess.run(
        [sys.executable, str(program.program)], input=b"123", check=False, env=dict(os.environ)
    )
    assert done.returncode == 2


@pytest.mark.parametrize("wrong", [0, 3])
def test_golden_outputs(program: Program, wrong: int) -> None:
    stream = samples(program, 2)
    outputs = np.concatenate([answer(s) for s in stream])
    outputs[0, :wrong] += 1
    arrays: dict[str, Any] = {n: np.concatenate([s[n] for s in stream]) for n in stream[0]}
    np.savez(program.program.parent / "golden.npz", output_0=outputs, **arrays)
    command = [sys.executable, str(program.program), "--golden"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row = json.loads(done.stdout)
    assert (row["samples"], row["values"], row["mismatches"]) == (2, 20, wrong)
