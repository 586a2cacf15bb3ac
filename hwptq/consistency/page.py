"""The consistency of two towers as one page of HTML, without anything from outside."""

from __future__ import annotations

from itertools import zip_longest

import jinja2

from .depth import Stretch
from .measures import Consistency

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>body{font:16px sans-serif;margin:2em}
td{padding:.3em 1em;text-align:right;border-bottom:1px solid #ccc}
td:first-child{text-align:left}</style></head>
<body><h1>{{ title }}</h1>
<table>{% for cells in rows %}<tr>{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% if depth|length > 1 %}<h2>Noise by depth</h2>
<table>{% for cells in depth %}<tr>{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}</body></html>
"""


def rows_of(found: Consistency) -> list[tuple[str, str, str]]:
    """(what, emitted code, float32) of every measure."""
    emitted, exact = found.emitted, found.float32
    rows = [("", "emitted", "float32"), ("pairs", str(found.pairs), "")]
    for what, name, form in (
        ("R@1 of A's rows, %", "a_to_b", "{:.2f}"), ("R@1 of B's rows, %", "b_to_a", "{:.2f}"),
        ("mean margin", "margin", "{:.4f}"),
    ):  # fmt: skip
        values = [form.format(vars(r)[name]) if r else "" for r in (emitted, exact)]
        rows.append((what, *values))  # type: ignore[arg-type]
    if found.agreement and found.noise:
        rows += [
            ("Spearman of rows with float32", f"{found.agreement.spearman:.4f}", ""),
            ("Kendall of rows with float32", f"{found.agreement.kendall:.4f}", ""),
            ("the same nearest partner, %", f"{found.agreement.same_nearest:.2f}", ""),
            ("SQNR of A, dB", f"{found.noise[0]:.2f}", ""),
            ("SQNR of B, dB", f"{found.noise[1]:.2f}", ""),
        ]
    return rows


def depth_rows(found: Consistency) -> list[tuple[str, str, str]]:
    """(depth, A, B): the noise of both towers along their layers; only the head where none is known."""
    rows = [("layers up to", "SQNR of A, dB", "SQNR of B, dB")]
    for pair in zip_longest(*found.depth):
        depth = next(f"{s.depth:.0f} %" for s in pair if s)
        rows.append((depth, *(_stretch(s) for s in pair)))  # type: ignore[arg-type]
    return rows


def _stretch(stretch: Stretch | None) -> str:
    if stretch is None:
        return ""
    return f"{stretch.sqnr_db:.1f}, least {stretch.least_db:.1f} ({stretch.noisiest})"


def page(found: Consistency, title: str) -> str:
    """The page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_PAGE).render(title=title, rows=rows_of(found), depth=depth_rows(found))
