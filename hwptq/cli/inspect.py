"""hwptq inspect: what is in an output folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from .talk import Talk


def inspect_command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="output folder of hwptq compile")],
    talk: Talk,
    trust_descriptor: Annotated[bool, typer.Option(help="whatever its metadata say runs it")] = False,
) -> None:
    """What is in OUT: target, inputs and outputs with scales, layers, memory, files. Runs nothing."""
    from hwptq.artifact import load
    from hwptq.inspection import inspect

    context.obj.begin(None, talk.verbose)
    found = inspect(load(folder, trust=trust_descriptor))
    talk.tell(found)
    if not talk.as_json:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    console, memory = Console(), found["memory"]
    console.print(f"[bold]{escape(found['model'])}[/] for {found['target']}, by hwptq {found['hwptq']}")
    if found["command"]:
        console.print(f"{found['date']}: {escape(found['command'])}", soft_wrap=True)
    console.print(_tensors("inputs", found["inputs"]), _tensors("outputs", found["outputs"]))
    console.print(_layers(found["layers"]))
    console.print(
        f"weights {memory['weight_bytes'] / 1e3:.1f} kB ({memory['float32_weight_bytes'] / 1e3:.1f} kB in "
        f"float32), activations {memory['arena_bytes'] / 1e3:.1f} kB at most"
        + (f", {memory['cache_bytes'] / 1e3:.1f} kB of them caches" if memory["cache_bytes"] else "")
    )
    files = Table(Column("file", overflow="fold"), Column("bytes", justify="right"))
    for name, size in found["files"].items():
        files.add_row(escape(name), f"{size:,}")
    console.print(files)


def _tensors(title: str, rows: Iterable[dict[str, Any]]) -> Table:
    table = Table(Column(title, overflow="fold"), "shape", "dtype", "inside", "scale", "zero point")
    for row in rows:
        inside = ("", "", "") if row["codes"] is None else (
            row["codes"], f"{row['scale']:.6g}", str(row["zero_point"])
        )  # fmt: skip
        table.add_row(escape(row["name"]), escape(str(row["shape"])), row["dtype"], *inside)
    return table


def _layers(rows: Iterable[dict[str, Any]]) -> Table:
    table = Table(
        Column("layer", overflow="fold"), "operator", "result", "weight × act.",
        Column("kernel", overflow="fold"), Column("M MACs", justify="right"),
        Column("bytes", justify="right"),
    )  # fmt: skip
    for row in rows:
        pair = f"{row['weight']} × {row['activation']}" if row["weight"] else ""
        macs = f"{row['macs'] / 1e6:.2f}" if row["macs"] else ""
        size = f"{row['weight_bytes']:,}" if row["weight_bytes"] else ""
        table.add_row(
            escape(row["name"]), row["operator"], row["result"], pair, row["kernel"] or "", macs, size
        )
    return table
