"""The SQNR of every layer in the order of the graph, with all noise that reaches it and with its own only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from .vega import svg

_WIDTH, _HEIGHT = 960, 210
_KINDS = {"sqnr_db": "all noise that reaches it", "isolated_sqnr_db": "its own only"}


def noise_chart(layers: Sequence[Mapping[str, Any]]) -> Markup | None:
    """None where fewer than two layers have noise."""
    points = [
        {"layer": i, "dB": row[key], "noise": kind, "is": f"{row['name']}: {row[key]:.1f} dB, {kind}"}
        for key, kind in _KINDS.items()
        for i, row in enumerate(layers, 1)
        if row.get(key) is not None
    ]
    if len(points) < 2:
        return None
    kinds = [kind for kind in _KINDS.values() if any(p["noise"] == kind for p in points)]
    color = {
        "field": "noise", "type": "nominal", "scale": {"domain": kinds, "range": ["var(--c0)", "var(--c1)"]},
        "title": None, "legend": {} if len(kinds) > 1 else None,
    }  # fmt: skip
    x = {"field": "layer", "type": "quantitative", "title": "layer, in the order of the graph",
         "axis": {"tickMinStep": 1, "grid": False}, "scale": {"nice": False, "padding": 8}}  # fmt: skip
    y = {"field": "dB", "type": "quantitative", "title": "SQNR, dB", "axis": {"tickCount": 5}}
    line = {"mark": {"type": "line", "strokeWidth": 1.2, "opacity": 0.5, "aria": False},
            "encoding": {"x": x, "y": y, "color": color}}  # fmt: skip
    dots = {"mark": {"type": "point", "filled": True, "size": 42, "opacity": 1},
            "encoding": {"x": x, "y": y, "color": color, "description": {"field": "is"}}}  # fmt: skip
    spec = {"data": {"values": points}, "width": _WIDTH, "height": _HEIGHT, "layer": [line, dots]}
    return svg(spec, "SQNR of each layer", 760)
