"""hwptq bench: the latency of compiled code here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .talk import Talk


def bench_command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="output folder of hwptq compile")],
    talk: Talk,
    runs: Annotated[int, typer.Option(metavar="N", help="calls that are timed", min=1)] = 100,
) -> None:
    """Time the code in OUT in this process: the median of one sample, and the quartiles."""
    from hwptq.artifact import load
    from hwptq.latency import latency

    context.obj.begin(None, talk.verbose)
    found = latency(load(folder), runs)
    talk.tell(found.row())
    if talk.as_json:
        return
    print(
        f"{folder}: median {found.median:.3f} ms, quartiles {found.lower_quartile:.3f} … "
        f"{found.upper_quartile:.3f}, {found.least:.3f} … {found.most:.3f} in {found.runs} runs; "
        f"{found.executor}"
    )
