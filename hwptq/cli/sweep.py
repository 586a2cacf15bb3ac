"""hwptq sweep: many compilations from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from hwptq.errors import HwptqError

from .asked import Cluster, NoCache
from .progress_display import TerminalProgress
from .talk import Talk


class FailedRuns(HwptqError):
    """Some compilations of a sweep failed: the largest of their exit codes."""

    def __init__(self, text: str, exit_code: int = 2):
        super().__init__(text)
        self.exit_code = exit_code


def sweep_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="models, targets and recipes")],
    talk: Talk,
    output: Annotated[Path, typer.Option(metavar="DIR", help="folder to write")] = Path("out"),
    cluster: Cluster = None,
    no_cache: NoCache = False,
) -> None:
    """Compile every model of FILE.toml for every target by every recipe, and compare them on one page.

    Writes sweep.html and sweep.json, and MODEL/TARGET/RECIPE for each. A sweep that was ended goes on with
    what is missing when it is run again.
    """
    context.obj.begin(None, talk.verbose)
    with TerminalProgress(talk.quiet) as progress:
        with progress.loading():
            from hwptq.sweep.matrix import read_matrix
            from hwptq.sweep.page import write_sweep
            from hwptq.sweep.sweep import sweep
        rows = sweep(read_matrix(file), output, cluster, not no_cache, progress)
        write_sweep(rows, output, file.stem)
    talk.tell({"output": str(output), "rows": rows})
    if talk.shows:
        _show(rows, output)
    failed = [row for row in rows if row["error"] is not None]
    if failed:
        text = "; ".join(f"{row['output']}: {row['error']}" for row in failed)
        raise FailedRuns(
            f"{len(failed)} of {len(rows)} failed: {text}", max(row["exit_code"] for row in failed)
        )


def _show(rows: list[dict[str, Any]], output: Path) -> None:
    right = ("emitted", "float32", "kB of weights")
    table = Table("model", "target", "recipe", *(Column(name, justify="right") for name in right))
    for row in rows:
        cells = [row["model"], row["target"], row["recipe"]]
        if row["error"]:
            cells += [row["error"], "", ""]
        else:
            score = row["reference"] if row["emitted"] is None else row["emitted"]
            cells += [f"{row['metric']} {score}", str(row["float32"]), f"{row['weight_bytes'] / 1e3:,.1f}"]
        table.add_row(*map(escape, cells))
    console = Console()
    console.print(table)
    console.print(f"written to {output}/sweep.html", markup=False, highlight=False)
