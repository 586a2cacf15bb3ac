"""Perplexity of a small language model by emitted code, weights by group, activations int8 per token.

python benchmarks/language_model.py --precision w4a8 [--group 32] [--recipe best] [--sequences 64]

Calibrated on the model's calibration sequences, scored on the first of its evaluation sequences, every token
but the first predicted. Bits a weight are those of codes and scales; a table that is the head counts once.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import parser

import hwptq
from hwptq.metrics.perplexity import perplexity

FOLDER = "docs-lm"

command = parser(__doc__)
command.add_argument("--target", default="x86-64-vnni")
command.add_argument("--precision", default="w4a8")
command.add_argument("--group", type=int, default=32)
command.add_argument("--recipe", default="best")
command.add_argument("--sequences", type=int, default=64)
command.add_argument("--verified", type=int, default=1, help="sequences to compare with the reference")


def main() -> None:
    """Compile, which compares with the reference operator by operator; then score."""
    args = command.parse_args()
    folder = args.data / FOLDER
    tokens = {name: array.astype(np.int64) for name, array in np.load(folder / "tokens.npz").items()}
    length = tokens["calibration"].shape[1]

    def samples(kind: str) -> list[dict[str, np.ndarray]]:
        return [{"input_ids": ids[None]} for ids in tokens[kind]]

    with TemporaryDirectory() as scratch:
        model = hwptq.compile(
            folder / "prefill.onnx", args.target, samples("calibration"),
            samples("evaluation")[: args.verified], output=Path(scratch) / "out", axes={"length": length},
            activations="dynamic", weight_granularity="group", precision=args.precision, group=args.group,
            recipe=args.recipe,
        )  # fmt: skip
        losses = []
        for sample in samples("evaluation")[: args.sequences]:
            logits, ids = model.run(sample)["logits"], sample["input_ids"]
            losses.append(np.log(perplexity([logits[:, :-1]], ids[:, 1:], [])))
        report = model.report
    exact, kept = report["bit_exact"], report["collapse"]["outputs"][0]
    weights = sum(row["macs"] for row in report["bits"]) / length
    bits = 8 * sum(row["weight_bytes"] for row in report["bits"]) / weights
    print(
        f"{args.precision} groups of {args.group} {args.recipe}: perplexity {np.exp(np.mean(losses)):.3f} on "
        f"{len(losses)} sequences, {bits:.3f} bits a weight, {exact['mismatches']} of {exact['values']} "
        f"values of {args.verified} sequences differ, logits {kept['verdict']} ({kept['kept']:.3f} kept), "
        f"{report['seconds'].get('round weights', 0):.0f} s to round"
    )


if __name__ == "__main__":
    main()
