"""hwptq verify: whether compiled code still gives the outputs that were stored with it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from hwptq.errors import MismatchError

from .place import On
from .talk import Talk


def verify_command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="output folder of hwptq compile")],
    talk: Talk,
    on: On = None,
    trust_descriptor: Annotated[bool, typer.Option(help="run it by whatever its metadata say")] = False,
) -> None:
    """Run the code in OUT on the inputs of its golden.npz: the same outputs, bit for bit, or exit code 6."""
    from hwptq.artifact import load
    from hwptq.golden_check import check_golden

    context.obj.begin(None, talk.verbose)
    with closing(load(folder, on, trust_descriptor)) as model:
        found = check_golden(model)
    talk.tell(found.row())
    if talk.shows:
        where = f"; {found.executor}" if on else ""
        print(f"{folder}: {found.samples} samples, {found.values} values, {found.mismatches} differ{where}")
    if found.mismatches:
        raise MismatchError(f"{folder}: {found.mismatches} of {found.values} values differ from golden.npz")
