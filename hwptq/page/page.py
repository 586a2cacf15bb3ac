"""report.html: the report as one page to read, without scripts or anything from outside.

A section is a template in sections/ that takes what it needs from the report, and stays away where there is
none; a chart is a module in charts/. Pages about other things put together the same sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2

from .charts.arena import arena_chart
from .charts.graph import graph_chart
from .charts.histogram import histogram_chart
from .charts.noise import noise_chart
from .charts.tradeoff import tradeoff_chart
from .rows import by_noise, formats, layer_rows, loss, noisiest, share
from .units import FILTERS

#: Layers whose histograms are drawn, the noisiest.
_HISTOGRAMS = 24
_KINDS = {"activation": "Activations", "weight": "Weights"}


def html_report(report: dict[str, Any], pictures: Sequence[str | None] = ()) -> str:
    """The page of a report (the object of report.json). pictures: data URIs of its `examples`."""
    return render("report.html.j2", report=report, pictures=list(pictures), **_parts(report))


def render(template: str, **values: Any) -> str:
    """A template of sections/ with values."""
    return environment().get_template(template).render(**values)


@cache
def environment() -> jinja2.Environment:
    """What the sections are rendered in: one, which keeps the templates that it has compiled."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("hwptq.page", "sections"),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    found.filters |= FILTERS
    return found


def _parts(report: dict[str, Any]) -> dict[str, Any]:
    """What sections show that takes work: rows, and charts."""
    assignment, memory = report.get("assignment"), report.get("memory")
    return {
        "layers": layer_rows(report),
        "loss": loss(report["accuracy"]),
        "share": share(report["coverage"]),
        "noisiest": noisiest(report),
        "noise_chart": noise_chart(report["layers"]),
        "graph_chart": graph_chart(report.get("graph", ()), formats(report)),
        "arena_chart": arena_chart(memory) if memory and memory["tensors"] else None,
        "tradeoff_chart": tradeoff_chart(assignment["tried"]) if assignment else None,
        "most_held": _HISTOGRAMS,
        "held": _held(report),
    }


def _held(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The histograms of the noisiest layers, by what they are of."""
    held: dict[str, list[dict[str, Any]]] = {}
    for layer in by_noise(report, _HISTOGRAMS):
        for row in layer["histograms"]:
            drawn = {"name": layer["name"], "db": layer["db"], "chart": histogram_chart(row)}
            held.setdefault(_KINDS[row["kind"]], []).append(drawn)
    return held
