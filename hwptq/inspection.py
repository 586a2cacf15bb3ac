"""What is in an output folder: the model's interface, its layers, its memory, its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .artifact import CompiledModel
from .output_folder import METADATA

_NO_SCALE = {"codes": None, "scale": None, "zero_point": None}


def inspect(model: CompiledModel) -> dict[str, Any]:
    """The contents of an output folder, for JSON; nothing runs. Raises InputError where it has no report."""
    report = model.report
    files = json.loads((model.folder / METADATA).read_text(encoding="utf-8"))["files"]
    sizes = {name: (model.folder / name).stat().st_size for name in files if (model.folder / name).is_file()}
    return {
        "output": str(model.folder),
        "model": report["model"],
        "target": report["target"],
        "hwptq": report["hwptq"],
        "command": (report.get("asked") or {}).get("command"),
        "date": (report.get("asked") or {}).get("date"),
        "machine": {
            "architecture": model.program.machine.architecture,
            "cpu_features": list(model.program.machine.cpu_features),
            "device": model.program.machine.device,
            "run": list(model.program.run),
        },
        **_interface(model),
        "layers": _layers(report),
        "memory": {
            "weight_bytes": report["weight_bytes"]["quantized"],
            "float32_weight_bytes": report["weight_bytes"]["float32"],
            "arena_bytes": report["arena_bytes"],
            "cache_bytes": model.program.state.nbytes if model.program.state else 0,
        },
        "files": sizes,
    }


def _interface(model: CompiledModel) -> dict[str, list[dict[str, Any]]]:
    """Inputs and outputs as the program has them, with the scales that the report knows."""
    known: Mapping[str, Any] = model.report.get("interface", {})
    found = {}
    for kind, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        scales = {row["name"]: row for row in known.get(kind, ())}
        found[kind] = [
            {
                "name": t.name,
                "shape": list(t.shape),
                "dtype": t.dtype,
                **{key: scales.get(t.name, _NO_SCALE)[key] for key in _NO_SCALE},
            }
            for t in tensors
        ]
    return found


def _layers(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every node in the order of the graph: its operator, formats, kernel, work and bytes."""
    dtypes = {row["name"]: row for row in report["bits"]}
    details = {row["name"]: row for row in report["layers"]}
    return [
        {
            "name": node["name"],
            "operator": node["operator"],
            "result": node["dtype"],
            "weight": dtypes.get(node["name"], {}).get("weight"),
            "activation": dtypes.get(node["name"], {}).get("activation"),
            "kernel": details.get(node["name"], {}).get("kernel"),
            "macs": dtypes.get(node["name"], {}).get("macs", 0),
            "weight_bytes": dtypes.get(node["name"], {}).get("packed_bytes", 0),
        }
        for node in report["graph"]
    ]
