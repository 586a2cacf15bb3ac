"""What was tried in a search: the accuracy lost against what the choice costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from .vega import svg

_UNITS = {"weights": "bytes of weights", "cycles": "cycles, predicted", "macs-int4": "MACs not in int4"}


def tradeoff_chart(tried: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Of the report's `assignment.tried`; None where no two choices were tried."""
    if len(tried) < 2:
        return None
    cost = next(key for key in tried[0] if key != "drop")
    points = [
        {"cost": t[cost], "drop": t["drop"], "is": f"{t[cost]:,.0f}: loses {t['drop']:.2f} points"}
        for t in tried
    ]
    x = {"field": "cost", "type": "quantitative", "title": _UNITS.get(cost, cost), "scale": {"zero": False},
         "axis": {"format": "~s"}}  # fmt: skip
    y = {"field": "drop", "type": "quantitative", "title": "points lost"}
    spec = {
        "data": {"values": points}, "width": 620, "height": 220,
        "mark": {"type": "point", "filled": True, "size": 60, "color": "var(--c0)", "opacity": 1},
        "encoding": {"x": x, "y": y, "description": {"field": "is"}},
    }  # fmt: skip
    return svg(spec, "accuracy lost against cost", 420)
