"""hwptq consistency: how well two compiled towers agree on pairs, beside float32."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwptq.errors import InputError

from .talk import Talk


def consistency_command(
    context: typer.Context,
    talk: Talk,
    first: Annotated[Path, typer.Argument(metavar="OUT_A", help="output folder of one tower")],
    second: Annotated[Path, typer.Argument(metavar="OUT_B", help="output folder of the other")],
    pairs: Annotated[Path, typer.Option(metavar="PAIRS.npz", help="inputs of both, row by row")],
    float_a: Annotated[Path | None, typer.Option(metavar="A.onnx", help="the float model of OUT_A")] = None,
    float_b: Annotated[Path | None, typer.Option(metavar="B.onnx", help="the float model of OUT_B")] = None,
    samples: Annotated[int | None, typer.Option(metavar="N", help="the first N pairs", min=2)] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE.html", help="write a page")] = None,
) -> None:
    """Retrieval both ways, the margin of pairs, and with the float models ranks and noise beside them.

    OUT_A and OUT_B run on PAIRS.npz: arrays by the names of their inputs (with a. and b. before names that
    both have), of which row i of A belongs to row i of B.
    """
    from hwptq.consistency.page import page
    from hwptq.consistency.towers import compare_towers

    from .progress_display import TerminalProgress
    from .show_consistency import show_consistency

    context.obj.begin(None, talk.verbose)
    if (float_a is None) != (float_b is None):
        raise InputError("--float-a and --float-b are compared together: give both")
    models = (float_a, float_b) if float_a and float_b else None
    with TerminalProgress(talk.quiet) as progress, progress.stage("run"):
        found = compare_towers((first, second), pairs, models, samples, progress.track)
    title = f"{first.name} and {second.name}"
    if html is not None:
        try:
            html.write_text(page(found, title), encoding="utf-8")
        except OSError as error:
            raise InputError(f"{html}: can't be written ({error})") from error
    talk.tell({"a": str(first), "b": str(second), **found.row()})
    if not talk.as_json:
        show_consistency(found, title)
