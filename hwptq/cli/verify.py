"""hwptq verify: whether compiled code still gives the outputs that were stored with it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from hwptq.errors import MismatchError

from .place import On
from .progress_display import TerminalProgress
from .talk import Talk


def verify_command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="output folder of hwptq compile")],
    talk: Talk,
    on: On = None,
    trust_descriptor: Annotated[bool, typer.Option(help="run it by whatever its metadata say")] = False,
) -> None:
    """Run the code in OUT on the inputs of its golden.npz: the same outputs, bit for bit, or exit code 6."""
    context.obj.begin(None, talk.verbose)
    with TerminalProgress(talk.quiet) as progress:
        with progress.loading():
            from hwptq.artifact import load
            from hwptq.golden_check import check_golden
        with closing(load(folder, on, trust_descriptor)) as model, progress.stage("verify"):
            found = check_golden(model, progress.track)
    talk.tell(found.row())
    if talk.shows:
        where = f"; {found.executor}" if on else ""
        print(f"{folder}: {found.samples} samples, {found.values} values, {found.mismatches} differ{where}")
    if found.mismatches:
        raise MismatchError(f"{folder}: {found.mismatches} of {found.values} values differ from golden.npz")
