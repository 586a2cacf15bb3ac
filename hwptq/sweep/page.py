"""The report of a sweep: sweep.json, and a page with a table and a plot for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwptq.errors import InputError
from hwptq.json_text import json_text
from hwptq.page.charts.pareto import pareto, pareto_chart
from hwptq.page.page import render


def write_sweep(rows: Sequence[Mapping[str, Any]], output: Path, title: str) -> None:
    """Write sweep.json and sweep.html into `output`. Raises InputError where they can't be written."""
    texts = {"sweep.json": json_text({"schema": 1, "sweep": title, "rows": list(rows)}) + "\n",
             "sweep.html": sweep_page(rows, title)}  # fmt: skip
    try:
        for name, text in texts.items():
            (output / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{output}: can't be written: {error.strerror}") from error


def sweep_page(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """The page of a sweep's rows."""
    names = dict.fromkeys(row["model"] for row in rows)
    models = [_model(name, [row for row in rows if row["model"] == name]) for name in names]
    failed = sum(row["error"] is not None for row in rows)
    return render("sweep.html.j2", title=title, models=models, count=len(rows), failed=failed)


def _model(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    compiled = [_scored(row) for row in rows if row["error"] is None]
    measured = [row for row in compiled if row["score"] is not None]
    best = iter(pareto(measured))
    shown = [{**row, "best": next(best) if row["score"] is not None else False} for row in compiled]
    failed = [row for row in rows if row["error"] is not None]
    metric = measured[0]["metric"] if measured else ""
    chart = pareto_chart(measured, metric) if len(measured) > 1 else None
    return {"name": name, "rows": [*shown, *failed], "chart": chart, "metric": metric}


def _scored(row: Mapping[str, Any]) -> dict[str, Any]:
    emitted = row["emitted"]
    return {**row, "score": row["reference"] if emitted is None else emitted}
