"""hwptq bench: the latency of compiled code, here or on a board."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from .place import On
from .talk import Talk

#: Of what a board tells of its state.
_UNITS = {"clock_mhz": "MHz", "temperature_c": "°C"}


def bench_command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="output folder of hwptq compile")],
    talk: Talk,
    on: On = None,
    runs: Annotated[int, typer.Option(metavar="N", help="calls that are timed", min=1)] = 100,
) -> None:
    """Time the code in OUT in this process, or on a board: the median of one sample, and the quartiles.

    Under an emulator its instructions are counted instead.
    """
    from hwptq.artifact import load
    from hwptq.latency import latency

    context.obj.begin(None, talk.verbose)
    with closing(load(folder, on)) as model:
        found = latency(model, runs)
    talk.tell(found.row())
    if talk.as_json:
        return
    state = "".join(f", {found.after[key]:g} {unit}" for key, unit in _UNITS.items() if key in found.after)
    digits = 3 if found.unit == "ms" else 0
    least, lower, median, upper, most = (
        f"{value:,.{digits}f}"
        for value in (found.least, found.lower_quartile, found.median, found.upper_quartile, found.most)
    )
    print(
        f"{folder}: median {median} {found.unit}, quartiles {lower} … {upper}, least "
        f"{least}, most {most} in {found.runs} runs; {found.executor}{state}"
    )
