"""Run what gpu_operators.py built, on a machine with a GPU, PyTorch and TVM's runtime: which bytes differ?

python benchmarks/gpu_operators_run.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gpu_device import E4M3, Device

_SHORT = (E4M3, "bfloat16")  # numpy has none; files hold their codes


def run(folder: Path) -> None:
    """Count the bytes that differ."""
    device = Device()
    cases = size = wrong = 0
    for library in sorted(folder.glob("operators*.so")):
        module = device.tvm.runtime.load_module(str(library))
        stored = np.load(library.with_suffix(".npz"))
        plan = json.loads(str(stored["plan"]))
        for number, case in enumerate(plan):
            expected = stored[f"{case['name']}/out"]
            expected = np.ascontiguousarray(expected).view(np.uint8)
            found = _result(device, module, stored, number, case).reshape(expected.shape)
            differ = int((found != expected).sum())
            cases, size, wrong = cases + 1, size + expected.size, wrong + differ
            if differ:
                print(case["name"], differ, "of", expected.size, "bytes differ")
    print(f"operators: {cases} cases, {size} bytes, {wrong} differ")


def _put(device: Device, array: np.ndarray, dtype: str) -> Any:
    """What a file holds of an array, as a tensor of its dtype."""
    tensor = device.put(array)
    return tensor.view(getattr(device.torch, dtype)) if dtype in _SHORT else tensor


def _result(device: Device, module: Any, stored: Any, number: int, case: dict[str, Any]) -> np.ndarray:
    """The bytes of the last step's output."""
    name = case["name"]
    inputs = [_put(device, stored[f"{name}/in{i}"], d) for i, d in enumerate(case["inputs"])]
    results: list[Any] = []
    for i, step in enumerate(case["steps"]):
        args = [
            _put(device, stored[f"{name}/{i}/{j}"], a) if isinstance(a, str)
            else results[a] if a < 0 else inputs[a]
            for j, a in enumerate(step["args"])
        ]  # fmt: skip
        results.append(device.empty(tuple(step["shape"]), step["dtype"]))
        module[f"k{number}_{i}"](*(device.take(t) for t in [*args, results[-1]]))
    device.torch.cuda.synchronize()
    return results[-1].contiguous().view(device.torch.uint8).cpu().numpy()


if __name__ == "__main__":
    run(Path(sys.argv[1]))
