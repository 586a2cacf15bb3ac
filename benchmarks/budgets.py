"""Top-1 of emitted code against the bytes of its weights: table and plot, from the least to the most bytes.

    python benchmarks/budgets.py cifar10-resnet20 [--target x86-64-vnni] [--points 8] [--recipe default]

Each point is the choice of AssignBitWidths for one budget, compiled, and run on all evaluation samples; the
first is the cheapest choice that there is, the last has every layer at its highest precision.
Writes docs/budgets-<case>.md and .png; needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import CASES, ROOT, parser, paths

from hwptq import Options
from hwptq.bitwidths.budget import Budget
from hwptq.cli.progress_display import TerminalProgress
from hwptq.data.dataset import open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.pipeline.stages import prepare
from hwptq.pipeline.step import Job
from hwptq.recipe import recipe
from hwptq.search.choose import BitWidths, Chooser
from hwptq.search.trial import Trial
from hwptq.targets import load_target

command = parser(__doc__)
command.add_argument("case", choices=list(CASES))
command.add_argument("--target", default="x86-64-vnni")
command.add_argument("--points", type=int, default=8)
command.add_argument("--recipe", default="default")
command.add_argument("--calibration", type=int, default=64, help="calibrate on the first N samples")
command.add_argument("--samples", type=int, help="evaluate the first N samples only")


@dataclass(frozen=True)
class Point:
    """One budget: bytes of the artefact's weights, share of MACs with int4 weights, points lost."""

    limit: int
    weight_bytes: int
    int4_share: float
    lost: float


def measure(args: argparse.Namespace) -> tuple[list[Point], float, int]:
    """The points, the top-1 of float32, and the number of samples."""
    files, target = paths(args.case, args.data), load_target(args.target)
    options = Options(recipe=recipe(args.recipe), samples=args.samples)
    model = import_onnx(files["model"])
    preprocess = load_preprocess(files["preprocess"])
    calibration, evaluation = (
        open_dataset(str(files[key]), model.inputs, preprocess)
        for key in ("calibration_data", "evaluation_data")
    )
    calibration = calibration.take(args.calibration)
    evaluation = evaluation.take(options.samples) if options.samples else evaluation
    with TerminalProgress() as progress:
        job = Job(target, calibration, options, progress)
        prepared = prepare(model.module, job)
        chooser, trial = Chooser(prepared, job), Trial(prepared, job, model.outputs, evaluation)

        def point(limit: int) -> Point:
            widths = chooser.choose(Budget("weights", limit))
            lost = trial.loss(widths).measured
            if trial.weight_bytes > limit:
                raise SystemExit(f"{trial.weight_bytes} bytes exceed the budget of {limit}")
            print(limit, trial.weight_bytes, f"{lost:.2f} points lost", file=sys.stderr, flush=True)
            return Point(limit, trial.weight_bytes, int4_share(chooser, widths), lost)

        least, most = chooser.least("weights"), chooser.costs.highest("weights")
        points = [point(round(v)) for v in np.linspace(least, most, args.points)]
    return points, trial.accuracy["float32"], trial.accuracy["samples"]


def int4_share(chooser: Chooser, widths: BitWidths) -> float:
    """Percent of the multiply-accumulates that have int4 weights."""
    all_macs = chooser.costs.highest("macs-int4")
    return 100 * (1 - chooser.costs.total("macs-int4", widths.pairs) / all_macs)


def table(points: list[Point], exact: float) -> str:
    """The points as a Markdown table."""
    rows = ["| budget, bytes | bytes of the artefact | MACs with int4 weights | top-1 | points lost |"]
    rows.append("|---:|---:|---:|---:|---:|")
    for p in points:
        top1 = f"{exact - p.lost:.2f} % | {p.lost:.2f}"
        rows.append(f"| {p.limit:,} | {p.weight_bytes:,} | {p.int4_share:.1f} % | {top1} |")
    return "\n".join(rows)


def plot(points: list[Point], exact: float, title: str, path: Path) -> None:
    """Top-1 against kilobytes of weights."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.axhline(exact, color="0.5", linestyle="--", label="float32")
    kilobytes, top1 = [p.weight_bytes / 1e3 for p in points], [exact - p.lost for p in points]
    axes.plot(kilobytes, top1, "o-", label="emitted code")
    axes.set(xlabel="weights, kB", ylabel="top-1, %", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, write, print."""
    args = command.parse_args()
    points, exact, samples = measure(args)
    path = ROOT / "docs" / f"budgets-{args.case}"
    text = table(points, exact)
    given = f"--points {args.points} --calibration {args.calibration} --samples {samples}"
    again = f"python benchmarks/budgets.py {args.case} --target {args.target} --recipe {args.recipe} {given}"
    paragraphs = [
        f"# Accuracy against bytes of weights: {args.case}",
        f"Emitted code for {args.target} on {samples} samples, recipe {args.recipe}; float32 {exact:.2f} %.",
        f"Made by `{again}`.",
        text,
        f"![plot]({path.name}.png)",
    ]
    path.with_suffix(".md").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    plot(points, exact, f"{args.case}, {args.target}", path.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
