"""hwptq bench: the latency of compiled code here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def bench_command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="output folder of hwptq compile")],
    runs: Annotated[int, typer.Option(metavar="N", help="calls that are timed", min=1)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="print what was measured as JSON")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show what libraries print")] = False,
) -> None:
    """Time the code in OUT in this process: the median of one sample, and the quartiles."""
    from hwptq.artifact import load
    from hwptq.latency import latency

    context.obj.begin(None, verbose)
    found = latency(load(folder), runs)
    if as_json:
        print(json.dumps(found.row(), indent=2))
        return
    print(
        f"{folder}: median {found.median:.3f} ms, quartiles {found.lower_quartile:.3f} … "
        f"{found.upper_quartile:.3f}, {found.least:.3f} … {found.most:.3f} in {found.runs} runs; "
        f"{found.executor}"
    )
