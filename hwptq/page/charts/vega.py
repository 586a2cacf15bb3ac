"""Charts as SVG text, drawn by Vega-Lite in this process; their colours are variables of the page's style."""

from __future__ import annotations

import re
from typing import Any

import vl_convert
from markupsafe import Markup

from .engine import why_not_drawn

#: Legends stand below each other: the font of a page may be wider than the one that they are measured in.
_CONFIG = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)", "titleColor": "var(--soft)", "titleFontWeight": "normal",
        "gridColor": "var(--line)", "domainColor": "var(--line)", "tickColor": "var(--line)",
        "labelFontSize": 11, "titleFontSize": 11,
    },
    "legend": {
        "labelColor": "var(--ink)", "titleColor": "var(--soft)", "titleFontWeight": "normal",
        "labelFontSize": 11, "titleFontSize": 11, "orient": "top", "columnPadding": 26,
        "layout": {"top": {"direction": "vertical", "anchor": "start"}},
    },
}  # fmt: skip
#: Colours of categories, in the order in which they are given away.
PALETTE = [f"var(--c{i})" for i in range(8)]

_MARK = re.compile(r'<(path|text|line) ((?:[^>"]|"[^"]*")*?aria-label="([^"]*)"(?:[^>"]|"[^"]*")*?)/>')
_SIZE = re.compile(r'width="([\d.]+)" height="([\d.]+)"')


def svg(spec: dict[str, Any], name: str, least_width: float = 0.0) -> Markup:
    """The chart of a Vega-Lite specification, as wide as its place, but not wider than it is drawn.

    name: what readers of screens are told that it is; least_width: px below which it isn't narrowed. The
    `description` of a mark is shown when it is pointed at. Where nothing can be drawn, a line says why.
    """
    reason = why_not_drawn()
    if reason:
        return Markup("<p>{}: not drawn, {}.</p>").format(name, reason)
    drawn = vl_convert.vegalite_to_svg({**spec, "config": _CONFIG})
    drawn = _MARK.sub(r"<\1 \2><title>\3</title></\1>", drawn)
    size = _SIZE.search(drawn)
    width = float(size[1]) if size else least_width
    style = f"width:100%;max-width:{width:.0f}px;min-width:{min(least_width, width):.0f}px"
    opening = f'<svg role="img" aria-label="{Markup.escape(name)}" style="{style}" '
    return Markup(drawn.replace("<svg ", opening, 1))  # Vega escapes the texts in it
