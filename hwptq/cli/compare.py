"""hwptq compare: output folders beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from hwptq.errors import InputError

from .talk import Talk


def compare_command(
    context: typer.Context,
    folders: Annotated[
        list[Path], typer.Argument(metavar="OUT OUT…", help="output folders of hwptq compile")
    ],
    talk: Talk,
    runs: Annotated[
        int, typer.Option(metavar="N", help="calls that are timed where the code runs here", min=0)
    ] = 30,
    trust_descriptor: Annotated[bool, typer.Option(help="run them by whatever their metadata say")] = False,
) -> None:
    """Accuracy, size, speed and dtypes of several OUT, and how many outputs differ from the first's."""
    from hwptq.artifact import load
    from hwptq.comparison import compare

    from .progress_display import TerminalProgress

    context.obj.begin(None, talk.verbose)
    if len(folders) < 2:
        raise InputError("give two output folders or more")
    models = [load(folder, trust=trust_descriptor) for folder in folders]
    with TerminalProgress(talk.quiet) as progress, progress.stage("compare"):
        rows = compare(models, runs, progress.track)
    talk.tell({"compared": rows})
    if not talk.as_json:
        _show(rows)


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(Column("", style="bold"), *(Column(escape(row["output"]), overflow="fold") for row in rows))
    lines = {
        "target": lambda row: row["target"],
        "weight × activation": _dtypes,
        "weights": lambda row: f"{row['weight_bytes'] / 1e3:.1f} kB",
        "activations": lambda row: f"{row['arena_bytes'] / 1e3:.1f} kB",
        "accuracy": _accuracy,
        "one sample": lambda row: "" if row["milliseconds"] is None else f"{row['milliseconds']:.3f} ms",
        "outputs that differ": _differing,
    }
    for name, text in lines.items():
        table.add_row(name, *(escape(text(row)) for row in rows))
    Console().print(table)


def _dtypes(row: dict[str, Any]) -> str:
    return ", ".join(f"{pair} {100 * share:.1f} %" for pair, share in row["dtypes"].items())


def _accuracy(row: dict[str, Any]) -> str:
    if row["accuracy"] is None:
        return ""
    lost = "" if row["drop"] is None else f", {row['drop']:.4g} lost"
    return f"{row['metric']} {row['accuracy']:.4g}{lost} ({row['samples']} samples)"


def _differing(row: dict[str, Any]) -> str:
    if row["why"]:
        return str(row["why"])
    noise = "" if row["sqnr_db"] is None else f", SQNR {row['sqnr_db']:.1f} dB"
    return f"{row['differing']} of {row['compared']}{noise}"
