"""The graph of the model, each node in the colour of its formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from markupsafe import Markup

from .layers_layout import layout
from .vega import PALETTE, svg

_COLUMN, _ROW, _BOX = 190, 46, (172, 30)
_LETTERS = 26
#: More can't be read, and would make the page heavy.
MOST_NODES = 600


def graph_chart(graph: Sequence[Mapping[str, Any]], formats: Mapping[str, str]) -> Markup | None:
    """Of the report's `graph`. formats: of layers with weights, as "int8 × int4"; others have that of what
    they give. None where there are too many nodes."""
    if not 0 < len(graph) <= MOST_NODES:
        return None
    known = {node["name"] for node in graph}
    places, edges = layout({n["name"]: [i for i in n["inputs"] if i in known] for n in graph})
    boxes = [_box(node, places[node["name"]], formats) for node in graph]
    spots = [*places.values(), *(spot for edge in edges for spot in edge)]
    width = (max(column for column, _ in spots) + 1) * _COLUMN
    height = (max(row for _, row in spots) + 1) * _ROW
    at = {
        "x": _axis("x", [-_COLUMN / 2, width - _COLUMN / 2]),
        "y": _axis("y", [height - _ROW / 2, -_ROW / 2]),
    }
    spec = {"width": width, "height": height, "layer": [_lines(edges, at), *_nodes(boxes, at)]}
    return svg(spec, "the graph of the model", width)


def _axis(field: str, domain: Sequence[float]) -> dict[str, Any]:
    """Places are px."""
    scale = {"domain": domain, "nice": False}
    return {"field": field, "type": "quantitative", "axis": None, "scale": scale}


def _lines(edges: Sequence[Sequence[tuple[float, int]]], at: Mapping[str, Any]) -> dict[str, Any]:
    bends = [
        {"edge": i, "number": number, "x": column * _COLUMN, "y": row * _ROW}
        for i, edge in enumerate(edges)
        for number, (column, row) in enumerate(edge)
    ]
    return {
        "data": {"values": bends},
        "mark": {
            "type": "line", "color": "var(--edge)", "strokeWidth": 1.3, "interpolate": "monotone",
            "orient": "vertical", "aria": False,
        },
        "encoding": {**at, "detail": {"field": "edge"}, "order": {"field": "number"}},
    }  # fmt: skip


def _nodes(boxes: Sequence[Mapping[str, Any]], at: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rectangles, and two lines of text in each."""
    used = list(dict.fromkeys(box["format"] for box in boxes))
    scale = {"domain": used, "range": _colors(used)}
    legend = {"columns": 4, "symbolType": "square"}
    color = {"field": "format", "type": "nominal", "title": None, "scale": scale, "legend": legend}
    box = {"type": "rect", "width": _BOX[0], "height": _BOX[1], "cornerRadius": 5}
    text = {"type": "text", "color": "var(--on-node)", "aria": False}
    name = {**text, "dy": -5, "fontSize": 11}
    below = {**text, "dy": 8, "fontSize": 9, "opacity": 0.85}
    data = {"values": list(boxes)}
    return [
        {"data": data, "mark": box, "encoding": {**at, "color": color, "description": {"field": "is"}}},
        {"data": data, "mark": name, "encoding": {**at, "text": {"field": "short"}}},
        {"data": data, "mark": below, "encoding": {**at, "text": {"field": "operator"}}},
    ]


def _box(node: Mapping[str, Any], place: tuple[float, int], formats: Mapping[str, str]) -> dict[str, Any]:
    name, word = node["name"], formats.get(node["name"], node["dtype"])
    short = name if len(name) <= _LETTERS else "…" + name[1 - _LETTERS :]
    return {
        "x": place[0] * _COLUMN, "y": place[1] * _ROW, "short": short, "operator": node["operator"],
        "format": word, "is": f"{name}: {node['operator']}, {word}",
    }  # fmt: skip


def _colors(words: Sequence[str]) -> list[str]:
    """Floats stand out in grey."""
    free = cycle(PALETTE)
    return ["var(--float)" if word.startswith("float") else next(free) for word in words]
