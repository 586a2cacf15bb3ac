"""The consistency of two towers as a table."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hwptq.consistency.measures import Consistency
from hwptq.consistency.page import rows_of


def show_consistency(found: Consistency, title: str) -> None:
    """Print it."""
    head, *rows = rows_of(found)
    table = Table(*head, title=escape(title), title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
