"""What each layer costs when the code runs: time, or instructions under an emulator."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from hwptq.backends.backend import backend_of
from hwptq.backends.program import Program
from hwptq.data.dataset import Sample
from hwptq.targets import Descriptor


@dataclass(frozen=True)
class Profile:
    """The cost of each call of a kernel in one inference, in the order of the calls."""

    unit: str  # "ns", the least of many; or "instructions"
    costs: tuple[float, ...]


def profile(
    kernels: tvm.IRModule, program: Program, target: Descriptor, sample: Sample | None
) -> Profile:  # fmt: skip
    """That of one sample; None stands for one of zeros. Raises HwptqError where a program fails."""
    given = sample.inputs if sample else {}
    parts = [np.asarray(given.get(t.name, np.zeros(t.shape)), t.numpy_dtype) for t in program.inputs]
    inputs = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    backend = backend_of(target)
    with tempfile.TemporaryDirectory(prefix="hwptq-") as folder:
        costs = backend.call_costs(kernels, program, inputs, Path(folder))
    return Profile(backend.unit_of_costs(), costs)


def add_profile(report: dict[str, Any], found: Profile | None) -> None:
    """Put a profile into a report: the object `profile`, and `cost` of `layers`: of all calls of a layer, its
    packing of what it reads among them; None where another layer's kernel computes it too."""
    report["profile"] = None
    if found is None:
        return
    calls = report["memory"]["calls"] if report["memory"] else []
    rows = [
        {"name": call["name"], "kernel": call["kernel"], "cost": cost}
        for call, cost in zip(calls, found.costs, strict=False)
    ]
    layers = {layer["name"] for layer in report["layers"]}
    costs: dict[str, float] = {}
    for call, row in zip(calls, rows, strict=False):
        layer = call["name"] if call["name"] in layers else call["node"]
        costs[layer] = costs.get(layer, 0.0) + row["cost"]
    for layer in report["layers"]:
        layer["cost"] = costs.get(layer["name"])
    report["profile"] = {"unit": found.unit, "total": sum(found.costs), "calls": rows}
