"""What the sections of the page show, put together from a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: SQNR of the left and right end of a bar, in dB: below, outputs are noise; above, they are as good as exact.
_WORST_DB, _BEST_DB = 0.0, 50.0


def share(cover: Mapping[str, Any]) -> float:
    """Percent of the multiply-accumulates that are quantized."""
    return 100 * cover["macs_quantized"] / cover["macs_total"] if cover["macs_total"] else 0.0


def layer_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every named tensor in graph order: what the report says of it, its dtypes and the length of its bar."""
    dtypes, weights = formats(report), {row["name"]: row["weight_bytes"] for row in report["bits"]}
    return [
        {
            "node": row["name"], "operator": "", "kernel": "", "macs": 0, "change_db": None,
            "bytes": weights.get(row["name"]), "isolated_sqnr_db": None, "cost": None,
            "kept": None, "verdict": None, **row,
            "dtypes": dtypes.get(row["name"], ""), "bar": _bar(row["sqnr_db"]),
        }
        for row in report["layers"]
    ]  # fmt: skip


def formats(report: Mapping[str, Any]) -> dict[str, str]:
    """Of the layers with weights: "int8 × int4" is int8 activations and int4 weights."""
    return {row["name"]: f"{row['activation']} × {row['weight']}" for row in report["bits"]}


def _bar(db: float | None) -> float:
    clipped = _BEST_DB if db is None else min(max(db, _WORST_DB), _BEST_DB)
    return 100 * (clipped - _WORST_DB) / (_BEST_DB - _WORST_DB)


def loss(accuracy: Mapping[str, Any]) -> dict[str, Any] | None:
    """Points lost by quantization (the arithmetic) and by lowering (the code); None for SQNR."""
    if accuracy["metric"] == "sqnr_db" or "reference" not in accuracy:
        return None
    emitted = accuracy.get("emitted")
    return {
        "quantization": accuracy["float32"] - accuracy["reference"],
        "lowering": None if emitted is None else accuracy["reference"] - emitted,
    }


def noisiest(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The layer with the least SQNR; None where all are exact."""
    noisy = [row for row in report["layers"] if row["sqnr_db"] is not None]
    return min(noisy, key=lambda row: row["sqnr_db"], default=None)


def by_noise(report: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    """Layers with histograms, the noisiest first, `most` of them: name, SQNR and rows of `histograms`."""
    noise = {row["name"]: row["sqnr_db"] for row in report["layers"]}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in report.get("histograms", ()):
        if row["name"] in noise:
            found.setdefault(row["name"], []).append(row)

    def key(name: str) -> float:
        db = noise.get(name)
        return float("inf") if db is None else db

    names: Sequence[str] = sorted(found, key=key)[:most]
    return [{"name": name, "db": noise.get(name), "histograms": found[name]} for name in names]
