"""hwptq compile: a model to machine code, and its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hwptq.errors import HwptqError

from .asked import Case, Code, Quantization
from .progress_display import TerminalProgress
from .talk import Talk


def compile_command(
    context: typer.Context,
    case: Case,
    quantization: Quantization,
    code: Code,
    talk: Talk,
    output: Annotated[Path, typer.Option(metavar="DIR", help="folder to write")] = Path("out"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the dtypes of each layer and their cost, and stop")
    ] = False,
) -> None:
    """Compile MODEL.onnx for a target, run the code, and report what it costs in accuracy."""
    context.obj.begin(output, talk.verbose)
    with TerminalProgress(talk.quiet) as progress:
        with progress.loading():
            from hwptq.flow import compile
            from hwptq.forecast import plan
            from hwptq.options import options_of
        options = options_of(None, **quantization.words(), **code.words())
        if dry_run:
            found = plan(case.model, case.target, case.calibration_data, case.preprocess, options, progress)
        else:
            try:
                compile(*case.arguments, output, options, progress)
            except HwptqError as error:
                if error.exit_code in (5, 6):  # the output is complete, and worth a look
                    progress.stop()
                    _show(output, talk)
                raise
    if dry_run:
        _show_plan(found, talk)
    else:
        _show(output, talk)


def _show_plan(found: dict[str, Any], talk: Talk) -> None:
    from .terminal import show_assignment

    talk.tell(found)
    if not talk.as_json:
        show_assignment(found)


def _show(folder: Path, talk: Talk) -> None:
    from .terminal import show_report

    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    talk.tell({"output": str(folder), **report})
    if talk.shows:
        show_report(report, folder)
