"""Accuracy against bytes of weights: which of several compilations no other one beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from .vega import PALETTE, svg


def pareto(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Of each of `rows`, by "weight_bytes" and "score" (more is better), whether none is as good in both and
    better in one."""
    points = [(-row["weight_bytes"], row["score"]) for row in rows]
    return [not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points) for x, y in points]


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The range of scores that is drawn, which has a height also where all are the same."""
    scores = [row["score"] for row in rows]
    margin = 0.05 * (max(scores) - min(scores)) or 0.01 * abs(scores[0]) or 1.0
    return [min(scores) - margin, max(scores) + margin]


def pareto_chart(rows: Sequence[Mapping[str, Any]], metric: str) -> Markup:
    """Rows with "weight_bytes", "score", "target" and "recipe"; a line through those that none beats."""
    best = pareto(rows)
    points = [
        {
            "kB": row["weight_bytes"] / 1e3, "score": row["score"], "target": row["target"],
            "recipe": row["recipe"], "best": is_best,
            "is": f"{row['target']}, {row['recipe']}: {metric} {row['score']:g}, {row['weight_bytes']:,} B",
        }
        for row, is_best in zip(rows, best, strict=True)
    ]  # fmt: skip
    targets = list(dict.fromkeys(point["target"] for point in points))
    x = {"field": "kB", "type": "quantitative", "title": "kB of weights", "scale": {"zero": False}}
    y = {"field": "score", "type": "quantitative", "title": metric, "scale": {"domain": _shown(rows)}}
    spec = {
        "data": {"values": points}, "width": 640, "height": 280,
        "layer": [
            {"transform": [{"filter": "datum.best"}],
             "mark": {"type": "line", "color": "var(--soft)", "strokeDash": [4, 3]},
             "encoding": {"x": x, "y": y, "order": {"field": "kB"}}},
            {"mark": {"type": "point", "filled": True, "size": 80, "opacity": 0.9},
             "encoding": {
                 "x": x, "y": y, "shape": {"field": "recipe", "type": "nominal"},
                 "color": {"field": "target", "type": "nominal", "scale": {
                     "domain": targets, "range": [PALETTE[i % len(PALETTE)] for i in range(len(targets))]}},
                 "description": {"field": "is"}}},
        ],
    }  # fmt: skip
    return svg(spec, "accuracy against bytes of weights", 420)
