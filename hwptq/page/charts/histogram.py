"""What a tensor holds, over the range of its codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from .vega import svg

_WIDTH, _HEIGHT = 250, 74


def histogram_chart(row: Mapping[str, Any]) -> Markup:
    """Of a row of the report's `histograms`. The heights are logarithms of counts, since it is the tails that
    a range cuts; behind them lies the range, darker where all channels have codes."""
    counts, low, high = row["counts"], row["low"], row["high"]
    step = (high - low) / len(counts) or abs(low) * 1e-3 or 1e-9
    bars = [{"x": low + step * i, "n": n} for i, n in enumerate([*counts, 0])]
    bars[-1]["n"] = counts[-1]  # a step needs an end
    ranges = [row[key] for key in ("range", "narrowest_range") if key in row]
    edge = [row["range"][0], row["range"][1]]
    x = {"type": "quantitative", "title": None, "axis": {"grid": False, "tickCount": 4},
         "scale": {"nice": False, "padding": 3, "zero": False}}  # fmt: skip
    quiet = {"aria": False, "tooltip": None}
    behind = {
        "data": {"values": [{"a": a, "b": b} for a, b in ranges]},
        "mark": {"type": "rect", "color": "var(--range)", **quiet},
        "encoding": {"x": {"field": "a", **x}, "x2": {"field": "b"}},
    }
    ends = {
        "data": {"values": [{"a": a} for a in edge]},
        "mark": {"type": "rule", "color": "var(--c1)", "strokeDash": [3, 2], **quiet},
        "encoding": {"x": {"field": "a", **x}},
    }
    area = {
        "data": {"values": bars},
        "mark": {"type": "area", "interpolate": "step-after", "color": "var(--c0)", **quiet},
        "encoding": {
            "x": {"field": "x", **x},
            "y": {"field": "n", "type": "quantitative", "axis": None, "scale": {"type": "symlog"}},
        },
    }
    spec = {"width": _WIDTH, "height": _HEIGHT, "padding": 2, "layer": [behind, area, ends]}
    return svg(spec, f"histogram of {row['name']}")
