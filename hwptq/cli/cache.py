"""hwptq cache info | clear: about results of earlier compilations."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.table import Column, Table

from .grouped import grouped
from .talk import Talk

cache_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at what is kept of earlier compilations."
)


@cache_app.command("info", short_help="Where it lies, how much of each kind, and its bytes.")
@grouped
def cache_info(context: typer.Context, talk: Talk) -> None:
    """Where results of earlier compilations lie, how many there are of each kind, and their bytes."""
    from hwptq.cache.store import Store
    from hwptq.user_cache import results_folder

    context.obj.begin(None, talk.verbose)
    store = Store(results_folder())
    kinds = store.kinds()
    found: dict[str, Any] = {
        "folder": str(store.folder),
        "limit": store.limit,
        "bytes": sum(kind.bytes for kind in kinds),
        "kinds": [{"kind": k.name, "entries": k.entries, "bytes": k.bytes} for k in kinds],
    }
    talk.tell(found)
    if talk.as_json:
        return
    table = Table("kind", Column("entries", justify="right"), Column("MB", justify="right"))
    for kind in kinds:
        table.add_row(kind.name, str(kind.entries), f"{kind.bytes / 1e6:.1f}")
    console = Console()
    console.print(f"{store.folder}: {found['bytes'] / 1e6:.1f} of at most {store.limit / 1e6:,.0f} MB",
                  markup=False, highlight=False, soft_wrap=True)  # fmt: skip
    if kinds:
        console.print(table)


@cache_app.command("clear")
@grouped
def clear_cache(context: typer.Context, talk: Talk) -> None:
    """Remove all results of earlier compilations."""
    from hwptq.cache.store import Store
    from hwptq.user_cache import results_folder

    context.obj.begin(None, talk.verbose)
    store = Store(results_folder())
    removed = store.clear()
    talk.tell({"folder": str(store.folder), "removed": removed})
    if talk.shows:
        print(f"{store.folder}: {removed / 1e6:.1f} MB removed")
