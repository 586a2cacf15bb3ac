"""hwptq diagnose: what a quantization loses, where, by what, and what would mend it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwptq.errors import InputError

from .asked import Case, Quantization
from .progress_display import TerminalProgress
from .talk import Talk

if TYPE_CHECKING:
    from hwptq.options import Options


def diagnose_command(
    context: typer.Context,
    case: Case,
    quantization: Quantization,
    talk: Talk,
    repair_it: Annotated[
        bool, typer.Option("--repair", help="find the cheapest remedies that hold --max-drop, and compile")
    ] = False,
    output: Annotated[Path, typer.Option(metavar="DIR", help="of --repair: folder to write")] = Path("out"),
) -> None:
    """Say what the quantization of MODEL.onnx loses, where and by what, and try what may mend it.

    Remedies are options of hwptq compile, ready to be pasted.
    """
    context.obj.begin(output if repair_it else None, talk.verbose)
    if case.calibration_data is None:
        raise InputError("diagnose quantizes the model: give --calibration-data")
    with TerminalProgress(talk.quiet) as progress:
        with progress.loading():
            from hwptq.forecast import diagnose
            from hwptq.options import options_of
        options = options_of(None, **quantization.words())
        if not repair_it:
            found = diagnose(*case.arguments, options, progress).row()
    if repair_it:
        _repair(case, options, output, talk)
        return
    talk.tell({"model": case.model.stem, "target": case.target, **found})
    if not talk.as_json:
        from .show_diagnosis import show_diagnosis

        show_diagnosis(found, f"{case.model.stem} for {case.target}")


def _repair(case: Case, options: Options, output: Path, talk: Talk) -> None:
    from hwptq.flow import compile
    from hwptq.forecast import repair

    from .terminal import show_report

    with TerminalProgress(talk.quiet) as progress:
        repaired = repair(*case.arguments, options, progress)
        compile(*case.arguments, output, replace(repaired.applied(options), max_drop=None), progress)
    arguments = repaired.change.arguments(options)
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    talk.tell({"output": str(output), "arguments": arguments, "drop": repaired.drop, "report": report})
    if not talk.as_json:
        print(f"{shlex.join(arguments) or 'nothing to mend'}: loses {repaired.drop:.2f} points")
    if talk.shows:
        show_report(report, output)
