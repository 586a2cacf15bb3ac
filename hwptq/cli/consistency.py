"""hwptq consistency: how well two compiled towers agree on pairs, beside float32."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from hwptq.errors import InputError


def consistency_command(
    context: typer.Context,
    first: Annotated[Path, typer.Argument(metavar="OUT_A", help="output folder of one tower")],
    second: Annotated[Path, typer.Argument(metavar="OUT_B", help="output folder of the other")],
    pairs: Annotated[Path, typer.Option(metavar="PAIRS.npz", help="inputs of both, row by row")],
    float_a: Annotated[Path | None, typer.Option(metavar="A.onnx", help="the float model of OUT_A")] = None,
    float_b: Annotated[Path | None, typer.Option(metavar="B.onnx", help="the float model of OUT_B")] = None,
    samples: Annotated[int | None, typer.Option(metavar="N", help="the first N pairs", min=2)] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE.html", help="write a page")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print all that was found as JSON")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show what libraries print")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="show no progress")] = False,
) -> None:
    """Retrieval both ways, the margin of pairs, and with the float models ranks and noise beside them.

    OUT_A and OUT_B run on PAIRS.npz: arrays by the names of their inputs (with a. and b. before names that
    both have), of which row i of A belongs to row i of B.
    """
    from hwptq.consistency.page import page
    from hwptq.consistency.towers import compare_towers

    from .show_consistency import show_consistency
    from .terminal import TerminalProgress

    context.obj.begin(None, verbose)
    if (float_a is None) != (float_b is None):
        raise InputError("--float-a and --float-b are compared together: give both")
    models = (float_a, float_b) if float_a and float_b else None
    with TerminalProgress(quiet) as progress, progress.stage("run"):
        found = compare_towers((first, second), pairs, models, samples, progress.track)
    title = f"{first.name} and {second.name}"
    if html is not None:
        try:
            html.write_text(page(found, title), encoding="utf-8")
        except OSError as error:
            raise InputError(f"{html}: can't be written ({error})") from error
    if as_json:
        print(json.dumps(_finite({"a": str(first), "b": str(second), **found.row()}), indent=2))
    else:
        show_consistency(found, title)


def _finite(value: Any) -> Any:
    """JSON knows no infinity: an SQNR without noise is null."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
