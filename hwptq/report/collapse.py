"""Where few bits leave nothing of what float computes: the verdict on each layer and output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hwptq.notices import Warning

from .directions import COLLAPSED, Directions


def kept_row(found: Directions | None) -> dict[str, Any]:
    """The keys `kept` (0 … 1) and `verdict` of a row of the report, None where nobody can tell."""
    kept = found.kept if found else None
    return {
        "kept": None if kept is None else round(kept, 4),
        "verdict": found.verdict if found else None,
    }


def collapse(layers: Mapping[str, Directions], outputs: Mapping[str, Directions]) -> dict[str, Any]:
    """The object `collapse` of the report: `outputs`, each with its name and verdict, and the `first` layer
    in the order of the graph that has collapsed, None where none has."""
    first = next((name for name, found in layers.items() if found.verdict == COLLAPSED), None)
    return {"first": first, "outputs": [{"name": name, **kept_row(found)} for name, found in outputs.items()]}


def collapse_warnings(
    layers: Mapping[str, Directions], outputs: Mapping[str, Directions]
) -> Iterator[Warning]:
    """One for each output that has collapsed."""
    found = collapse(layers, outputs)
    for row in found["outputs"]:
        if row["verdict"] == COLLAPSED:
            where = f"; the first layer that collapses is {found['first']}" if found["first"] else ""
            text = (
                f"it has collapsed: {100 * row['kept']:.0f} % of what varies in float is left{where}. "
                "More bits, smaller groups or --recipe best may save it"
            )
            yield Warning("collapse", row["name"], text, serious=True)
