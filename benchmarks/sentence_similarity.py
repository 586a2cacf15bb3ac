"""Sentence similarity by emitted code: Spearman correlation with scores of people, everything in integers.

python benchmarks/sentence_similarity.py [--pairs 100] [--target x86-64-vnni] [--set smooth=off]
python benchmarks/sentence_similarity.py --dense-only          dense layers in int8, all else in float
python benchmarks/sentence_similarity.py --compiled FOLDER     an output folder made elsewhere
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from common import parser, row
from scipy.stats import spearmanr

import hwptq
from hwptq.cli.progress_display import TerminalProgress
from hwptq.recipe import recipe

FOLDER = "sts-minilm-l6"
#: What is no dense layer.
KEPT_FLOAT = r"_(qk|scale|maskadd|av|res1|res2)$|^emb"
FLOAT32 = 82.05  # on all pairs, by ONNX Runtime
BOUND = 0.3  # points of Spearman's correlation
_VARIABLE = "HWPTQ_STS"  # the data folder, for the functions that hwptq.compile calls by name

command = parser(__doc__)
command.add_argument("--target", default="x86-64-vnni")
command.add_argument("--pairs", type=int, default=1379, help="the first N pairs only")
command.add_argument(
    "--verified",
    type=int,
    default=8,
    help="pairs to compare with the reference, bit by bit; one has no order",
)
command.add_argument("--dense-only", action="store_true", help="dense layers in int8, all else in float")
command.add_argument("--calibration", type=int, default=256, help="sentences to calibrate with, of 256")
command.add_argument("--compiled", type=Path, help="run this output folder instead of compiling")
command.add_argument("--set", action="append", default=[], help="STEP=VALUE of the recipe")


def main() -> None:
    """Compile, compare with the reference on some pairs, run on both sentences of all, correlate."""
    args = command.parse_args()
    os.environ[_VARIABLE] = str(args.data / FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        model = hwptq.load(args.compiled) if args.compiled else compiled(args, Path(folder))
        samples = list(islice(sentences(), 2 * args.pairs))
        labels = np.concatenate([sample.pop("y") for sample in samples])
        found = np.concatenate([next(iter(out.values())).reshape(1, -1) for out in model.run_stream(samples)])
    emitted = spearman([found], labels)
    figure = f"Spearman {emitted:.2f} emitted on {args.pairs} pairs, {FLOAT32} float32 on all (bound {BOUND})"
    good = FLOAT32 - emitted <= BOUND
    if not args.compiled:
        cover, exact = (model.report[key] for key in ("coverage", "bit_exact"))
        share = 100 * cover["macs_quantized"] / cover["macs_total"]
        figure += (
            f"; {share:.1f} % of MACs in integers; {exact['mismatches']} of {exact['values']} values differ "
        )
        figure += f"({args.verified} pairs)"
        good = good and exact["mismatches"] == 0
    row(f"{FOLDER}, {args.target}", figure, good)


def compiled(args: argparse.Namespace, folder: Path) -> hwptq.CompiledModel:
    """The model, compiled into `folder` and verified."""
    options = hwptq.Options(
        axes={"S": 64},
        keep_float=KEPT_FLOAT if args.dense_only else None,
        samples=2 * args.verified,
        metric="sentence_similarity:spearman",
        recipe=recipe("default", args.set),
    )
    calibration = np.load(args.data / FOLDER / "calib.npz")
    few = folder / "calib.npz"
    np.savez(few, **{name: calibration[name][: args.calibration] for name in calibration})
    with TerminalProgress() as progress:
        return hwptq.compile(
            args.data / FOLDER / "model.onnx",
            args.target,
            few,
            "sentence_similarity:sentences",
            output=folder / "out",
            options=options,
            progress=progress,
        )


def sentences() -> Iterator[dict[str, np.ndarray]]:
    """Both sentences of each pair, one after the other, with the pair's score as their label."""
    data = np.load(Path(os.environ[_VARIABLE], "eval.npz"))
    for i, score in enumerate(data["score"]):
        for side in "ab":
            yield {
                "input_ids": data[f"ids_{side}"][i : i + 1].astype(np.int64),
                "attention_mask": data[f"mask_{side}"][i : i + 1].astype(np.int64),
                "y": np.asarray([score]),
            }


def spearman(outputs: list[np.ndarray], labels: np.ndarray) -> float:
    """100 times Spearman's correlation of the pairs' dot products with their scores."""
    first, second = outputs[0][0::2], outputs[0][1::2]
    return 100 * float(spearmanr((first * second).sum(axis=1), labels[0::2]).statistic)


if __name__ == "__main__":
    main()
