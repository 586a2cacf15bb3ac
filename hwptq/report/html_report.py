"""report.html: the report as one page to read, without scripts or anything from outside."""

from __future__ import annotations

from importlib import resources
from typing import Any

import jinja2

#: SQNR of the left and right end of a bar, in dB: below, outputs are noise; above, they are as good as exact.
_WORST_DB, _BEST_DB = 0.0, 50.0


def html_report(report: dict[str, Any]) -> str:
    """The page of a report (the object of report.json)."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"bytes": _bytes, "number": _number, "points": _points}
    text = resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(
        report=report,
        layers=_layers(report),
        loss=_loss(report["accuracy"]),
        share=_share(report["coverage"]),
    )


def _share(cover: dict[str, Any]) -> float:
    """Percent of the multiply-accumulates that are quantized."""
    return 100 * cover["macs_quantized"] / cover["macs_total"] if cover["macs_total"] else 0.0


def _layers(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every named tensor in graph order: its SQNR, how much of it was lost here, and what its weights are."""
    weights = {row["name"]: row for row in report["bits"]}
    rows, before = [], None
    for layer in report["layers"]:
        db = layer["sqnr_db"]
        clipped = _BEST_DB if db is None else min(max(db, _WORST_DB), _BEST_DB)
        rows.append(
            {
                "name": layer["name"],
                "db": db,
                "step": None if db is None or before is None else db - before,
                "bar": 100 * (clipped - _WORST_DB) / (_BEST_DB - _WORST_DB),
                "weights": weights.get(layer["name"]),
            }
        )
        before = db if db is not None else before
    return rows


def _loss(accuracy: dict[str, Any]) -> dict[str, Any] | None:
    """Points lost by quantization (the arithmetic) and by lowering (the code); None for SQNR."""
    if accuracy["metric"] == "sqnr_db" or "reference" not in accuracy:
        return None
    emitted = accuracy.get("emitted")
    return {
        "quantization": accuracy["float32"] - accuracy["reference"],
        "lowering": None if emitted is None else accuracy["reference"] - emitted,
    }


def _bytes(count: int) -> str:
    """Bytes with a unit: 10752 -> 10.8 kB."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def _number(count: int) -> str:
    """A count in thousands or millions: 130656 -> 0.13 M."""
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count:,}"


def _points(value: float | None) -> str:
    """A difference with its sign, two digits."""
    return "not run" if value is None else f"{value:+.2f}" if round(value, 2) else "0.00"
