"""Output folders beside each other: accuracy, size, speed, dtypes, and where their outputs differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .artifact import CompiledModel
from .errors import InputError
from .golden_check import golden_samples
from .latency import latency
from .report.accuracy import Sqnr, drop

Track = Callable[[Iterable[Any], int | None], Iterable[Any]]


def compare(models: Sequence[CompiledModel], runs: int, track: Track) -> list[dict[str, Any]]:
    """One row a model, for JSON. Outputs are compared with those that the first one stored.

    runs: calls that are timed, where code runs in this process; 0 = none. What is not known is None, and
    `why` says why outputs were not compared. Raises InputError for a folder without a report.
    """
    return [_row(model, models[0], runs) for model in track(models, len(models))]


def _row(model: CompiledModel, first: CompiledModel, runs: int) -> dict[str, Any]:
    report = model.report
    accuracy = report["accuracy"]
    row: dict[str, Any] = {
        "output": str(model.folder),
        "target": report["target"],
        "dtypes": dtypes(report),
        "weight_bytes": report["weight_bytes"]["quantized"],
        "arena_bytes": report["arena_bytes"],
        "metric": accuracy["metric"],
        "accuracy": accuracy.get("emitted", accuracy.get("reference")),
        "drop": drop(accuracy),
        "samples": accuracy["samples"],
        "milliseconds": None,
        "differing": None,
        "compared": None,
        "sqnr_db": None,
        "why": None,
    }
    try:
        timed = runs and model.running.timed
        row["milliseconds"] = round(latency(model, runs).median, 4) if timed else None
        row |= _differences(model, first)
    except InputError as error:
        row["why"] = str(error)
    return row


def dtypes(report: dict[str, Any]) -> dict[str, float]:
    """The share of the multiply-accumulates of each pair of dtypes, "weight × activation"."""
    macs: dict[str, int] = {}
    for row in report["bits"]:
        pair = f"{row['weight']} × {row['activation']}"
        macs[pair] = macs.get(pair, 0) + row["macs"]
    if rest := report["coverage"]["macs_total"] - sum(macs.values()):
        macs["float32"] = rest
    total = sum(macs.values()) or 1
    return {pair: round(n / total, 4) for pair, n in macs.items()}


def _differences(model: CompiledModel, first: CompiledModel) -> dict[str, Any]:
    """Values whose bits are not those of the first model's stored outputs, of how many, and the SQNR of what
    stands in for them."""
    if _signature(model.inputs) != _signature(first.inputs):
        raise InputError(f"its inputs are not those of {first.folder}")
    if [t.shape for t in model.outputs] != [t.shape for t in first.outputs]:
        raise InputError(f"its outputs are not those of {first.folder}")
    stored = list(golden_samples(first))
    noise, differing, compared = Sqnr(), 0, 0
    for found, (_, wanted) in zip(model.run_stream(i for i, _ in stored), stored, strict=True):
        for a, b in zip(wanted.values(), found.values(), strict=True):
            x, y = a.astype(np.float64), b.astype(np.float64)
            differing += int(np.count_nonzero(x != y))
            compared += a.size
            noise.add(x, y)
    return {"differing": differing, "compared": compared, "sqnr_db": noise.db}


def _signature(tensors: Sequence[Any]) -> list[tuple[str, tuple[int, ...], str]]:
    return [(t.name, t.shape, t.dtype) for t in tensors]
