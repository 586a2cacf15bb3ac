"""The arena over time: a rectangle for each tensor, from the call that writes it to its last reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from .vega import PALETTE, svg

_WIDTH, _HEIGHT = 960, 300


def arena_chart(memory: Mapping[str, Any]) -> Markup:
    """Of the report's `memory`."""
    kernels = [call["kernel"] for call in memory["calls"]]
    tensors = [
        {
            "from": t["born"], "to": t["last"] + 1,
            "low": t["first"] / 1e3, "high": (t["first"] + t["bytes"]) / 1e3,
            "kernel": kernels[min(t["born"], len(kernels) - 1)],
            "is": f"{t['name']}: {t['bytes']:,} B from byte {t['first']:,}, calls {t['born']} to {t['last']}",
        }
        for t in memory["tensors"]
    ]  # fmt: skip
    used = list(dict.fromkeys(t["kernel"] for t in tensors))
    spec = {
        "data": {"values": tensors}, "width": _WIDTH, "height": _HEIGHT,
        "mark": {"type": "rect", "stroke": "var(--paper)", "strokeWidth": 1, "cornerRadius": 2},
        "encoding": {
            "x": {"field": "from", "type": "quantitative", "title": "call of a kernel",
                  "axis": {"grid": False, "tickMinStep": 1},
                  "scale": {"nice": False}},
            "x2": {"field": "to"},
            "y": {"field": "low", "type": "quantitative", "title": "kB of the arena"},
            "y2": {"field": "high"},
            "color": {"field": "kernel", "type": "nominal", "title": "written by", "scale": {
                "domain": used, "range": [PALETTE[i % len(PALETTE)] for i in range(len(used))]}},
            "description": {"field": "is"},
        },
    }  # fmt: skip
    return svg(spec, "the arena over time", 760)
