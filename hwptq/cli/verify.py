"""hwptq verify: whether compiled code still gives the outputs that were stored with it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from hwptq.errors import MismatchError

from .place import On
from .progress_display import TerminalProgress
from .talk import Talk


def verify_command(
    context: typer.Context,
    folders: Annotated[list[Path], typer.Argument(metavar="OUT…", help="output folders of hwptq compile")],
    talk: Talk,
    on: On = None,
    trust_descriptor: Annotated[bool, typer.Option(help="run it by whatever its metadata say")] = False,
) -> None:
    """Run the code in each OUT on the inputs of its golden.npz: the same outputs, all bits, or exit code 6.

    With --on rpc-tracker:HOST:PORT/KEY on every board that the tracker has free for KEY; of one that differs
    the first tensor that does is named.
    """
    context.obj.begin(None, talk.verbose)
    with TerminalProgress(talk.quiet) as progress:
        with progress.loading():
            from hwptq.artifact import load
            from hwptq.fleet_check import check_fleet
            from hwptq.golden_check import check_golden
        if on is not None and on.startswith("rpc-tracker:"):
            models = [load(folder, None, trust_descriptor) for folder in folders]
            with progress.stage("verify"):
                boards = check_fleet(models, on, progress.track)
            rows = [board.row() for board in boards]
        else:
            rows = []
            for folder in folders:
                with closing(load(folder, on, trust_descriptor)) as model, progress.stage("verify"):
                    rows.append({"output": str(folder), **check_golden(model, progress.track).row()})
    _tell(rows, talk, on)


def _tell(rows: list[dict[str, Any]], talk: Talk, on: str | None) -> None:
    """Show the rows; raises MismatchError where one holds a value that differs."""
    differing = [row for row in rows if row["mismatches"]]
    talk.tell(rows[0] if len(rows) == 1 else {"mismatches": sum(r["mismatches"] for r in rows), "rows": rows})
    if talk.shows:
        for row in rows:
            where = f"; {row['executor']}" if on else ""
            golden = f", golden {row['golden'][:16]}" if "golden" in row else ""
            counted = f"{row['samples']} samples, {row['values']} values, {row['mismatches']} differ"
            print(f"{row['output']}: {counted}{golden}{where}")
    if differing:
        raise MismatchError("; ".join(map(_difference, differing)))


def _difference(row: dict[str, Any]) -> str:
    first = f", first {row['differs']}" if row.get("differs") else ""
    on = f" on {row['executor']}" if "golden" in row else ""
    return f"{row['output']}{on}: {row['mismatches']} of {row['values']} values differ from golden.npz{first}"
