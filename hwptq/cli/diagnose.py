"""hwptq diagnose: what a quantization loses, where, by what, and what would mend it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hwptq.errors import InputError

from .words import axes_of, observer_setting


def diagnose_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="fp32 model")],
    target: Annotated[str, typer.Option(metavar="NAME|FILE.toml", help="device, see: hwptq targets list")],
    calibration_data: Annotated[
        str | None, typer.Option(metavar="DATA", help=".npz, .npy, image folder or module:function")
    ] = None,
    evaluation_data: Annotated[
        str | None, typer.Option(metavar="DATA", help="other samples; labels in y")
    ] = None,
    preprocess: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="mean, std, resize … by input")
    ] = None,
    weight_granularity: Annotated[
        str | None, typer.Option(metavar="tensor|channel|group", help="as for compile, and so all below")
    ] = None,
    precision: Annotated[str | None, typer.Option(metavar="w8a8|w4a8|w8a16|…")] = None,
    lower_ends: Annotated[bool, typer.Option("--lower-ends")] = False,
    budget: Annotated[str | None, typer.Option(metavar="KIND=VALUE")] = None,
    exclude: Annotated[str | None, typer.Option(metavar="REGEX")] = None,
    keep_float: Annotated[str | None, typer.Option(metavar="REGEX")] = None,
    axes: Annotated[list[str] | None, typer.Option("--axis", metavar="NAME=SIZE")] = None,
    samples: Annotated[int | None, typer.Option(metavar="N", min=1)] = None,
    metric: Annotated[str | None, typer.Option(metavar="NAME|module:function")] = None,
    calibration_method: Annotated[str | None, typer.Option(metavar="METHOD")] = None,
    recipe: Annotated[str, typer.Option(metavar="fast|default|best")] = "default",
    steps: Annotated[list[str] | None, typer.Option("--set", metavar="STEP=VALUE")] = None,
    repair_it: Annotated[
        bool, typer.Option("--repair", help="find the cheapest remedies that hold --max-drop, and compile")
    ] = False,
    max_drop: Annotated[float | None, typer.Option(metavar="POINTS", min=0)] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="of --repair: folder to write")] = Path("out"),
    as_json: Annotated[bool, typer.Option("--json", help="print all that was found as JSON")] = False,
    trust_descriptor: Annotated[bool, typer.Option(help="let a descriptor file run any program")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show what libraries print")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="show no progress")] = False,
) -> None:
    """Say what the quantization of MODEL.onnx loses, where and by what, and try what may mend it.

    Remedies are options of hwptq compile, ready to be pasted.
    """
    from hwptq.flow import compile, diagnose, repair
    from hwptq.options import options_of
    from hwptq.recipe import recipe as named_recipe

    from .show_diagnosis import show_diagnosis
    from .terminal import TerminalProgress, show_report

    context.obj.begin(output if repair_it else None, verbose)
    if calibration_data is None:
        raise InputError("diagnose quantizes the model: give --calibration-data")
    options = options_of(
        None,
        weight_granularity=weight_granularity,
        axes=axes_of(axes or ()),
        precision=precision,
        budget=budget,
        exclude=exclude,
        keep_float=keep_float,
        lower_ends=lower_ends,
        samples=samples,
        max_drop=max_drop,
        metric=metric,
        trust_descriptor=trust_descriptor,
        recipe=named_recipe(recipe, [*(steps or ()), *observer_setting(calibration_method)]),
    )
    case = model, target, calibration_data, evaluation_data, preprocess
    if repair_it:
        with TerminalProgress(quiet) as progress:
            repaired = repair(*case, options, progress)
            compile(*case, output, replace(repaired.applied(options), max_drop=None), progress)
        arguments = repaired.change.arguments(options)
        print(f"{shlex.join(arguments) or 'nothing to mend'}: loses {repaired.drop:.2f} points")
        if not quiet:
            show_report(output)
        return
    with TerminalProgress(quiet) as progress:
        found = diagnose(*case, options, progress)
    if as_json:
        print(json.dumps({"model": model.stem, "target": target, **found.row()}, indent=2))
    else:
        show_diagnosis(found.row(), f"{model.stem} for {target}")
