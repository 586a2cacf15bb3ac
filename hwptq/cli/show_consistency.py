"""The consistency of two towers as a table."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hwptq.consistency.measures import Consistency
from hwptq.consistency.page import depth_rows, rows_of


def show_consistency(found: Consistency, title: str) -> None:
    """Print it."""
    _show(rows_of(found), title)
    if any(found.depth):
        _show(depth_rows(found), "noise by depth")


def _show(rows: list[tuple[str, str, str]], title: str) -> None:
    head, *rest = rows
    table = Table(*head, title=escape(title), title_justify="left")
    for row in rest:
        table.add_row(*map(escape, row))
    Console().print(table)
