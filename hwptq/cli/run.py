"""hwptq run: compiled code on data."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from .place import On
from .progress_display import TerminalProgress
from .talk import Talk


def run_command(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="output folder of hwptq compile")],
    data: Annotated[str, typer.Argument(metavar="DATA", help=".npz, .npy, image folder or module:function")],
    talk: Talk,
    on: On = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="write the outputs, instead of showing them")
    ] = None,
    preprocess: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="instead of that which OUT was compiled with")
    ] = None,
    samples: Annotated[int | None, typer.Option(metavar="N", help="the first N samples", min=1)] = None,
    top: Annotated[int, typer.Option(metavar="N", help="classes that are shown of a sample", min=1)] = 3,
    trust_descriptor: Annotated[bool, typer.Option(help="run it by whatever its metadata say")] = False,
) -> None:
    """Run the code in OUT on DATA: the top classes of each sample, or its outputs as FILE.npz."""
    context.obj.begin(None, talk.verbose)
    found, rows = [], []
    with TerminalProgress(talk.quiet) as progress:
        with progress.loading():
            from hwptq.answers import answers, data_for, write_answers
            from hwptq.artifact import load
        model = load(folder, on, trust_descriptor)
        dataset = data_for(model, data, preprocess, samples)
        with closing(model), progress.stage("run"):
            for answer in progress.track(answers(model, dataset), dataset.count):
                rows.append(answer.row(top))
                if output is not None:
                    found.append(answer)
    if output is not None:
        write_answers(output, found)
    hits = _hits(rows)
    executor = model.running.description
    talk.tell({"executor": executor, "samples": rows, "top1": hits, "written": output and str(output)})
    if talk.as_json:
        return
    if output is None:
        for i, row in enumerate(rows):
            print(_line(i, row))
    if talk.shows:
        known = "" if hits is None else f", top-1 {hits:.2f} %"
        count = f"{len(rows)} sample{'s' if len(rows) != 1 else ''}"
        print(f"{count}{known}; {executor}{f'; written to {output}' if output else ''}")


def _hits(rows: list[dict[str, Any]]) -> float | None:
    """Percent of the samples whose label is the first class; None where there are no such labels."""
    if not all("top" in row and isinstance(row["label"], int) for row in rows):
        return None
    return 100 * sum(row["top"][0][0] == row["label"] for row in rows) / len(rows)


def _line(number: int, row: dict[str, Any]) -> str:
    label = "" if row["label"] is None or isinstance(row["label"], list) else f" (label {row['label']})"
    if "top" in row:
        return f"{number}{label}: " + ", ".join(f"{int(c)} {value:.4g}" for c, value in row["top"])
    parts = (f"{n} {held['shape']} {held['first']}…" for n, held in row["outputs"].items())
    return f"{number}{label}: " + "; ".join(parts)
