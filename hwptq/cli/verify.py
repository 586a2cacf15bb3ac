"""hwptq verify: whether compiled code still gives the outputs that were stored with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hwptq.errors import MismatchError


def verify_command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="output folder of hwptq compile")],
    as_json: Annotated[bool, typer.Option("--json", help="print what was found as JSON")] = False,
    trust_descriptor: Annotated[bool, typer.Option(help="run it by whatever its metadata say")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show what libraries print")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="show nothing but errors")] = False,
) -> None:
    """Run the code in OUT on the inputs of its golden.npz: the same outputs, bit for bit, or exit code 6."""
    from hwptq.artifact import load
    from hwptq.golden_check import check_golden

    context.obj.begin(None, verbose)
    found = check_golden(load(folder, trust=trust_descriptor))
    if as_json:
        print(json.dumps(found.row(), indent=2))
    elif not quiet:
        print(f"{folder}: {found.samples} samples, {found.values} values, {found.mismatches} differ")
    if found.mismatches:
        raise MismatchError(f"{folder}: {found.mismatches} of {found.values} values differ from golden.npz")
