"""Perplexity of a small language model by emitted code, weights by group, activations int8 per token.

python benchmarks/language_model.py --precision w4a8 [--group 32] [--recipe best] [--set blocks=off]
python benchmarks/language_model.py --budget bits=3.2

Calibrated on the model's calibration sequences, scored on the first of its evaluation sequences, every token
but the first predicted. Bits a weight are those of codes and scales; a table that is the head counts once.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import parser
from docs_lm import DocsLm, perplexity_of

from hwptq.recipe import recipe

command = parser(__doc__)
command.add_argument("--target", default="x86-64-vnni")
command.add_argument("--precision", default="w4a8")
command.add_argument("--budget", help="bits=3.2: instead of a precision")
command.add_argument("--group", type=int, help="32 if not given, and with a budget several")
command.add_argument("--recipe", default="best")
command.add_argument("--set", action="append", default=[], help="a step of the recipe: STEP=VALUE")
command.add_argument("--calibration", type=int, default=256, help="sequences to calibrate on, from all over")
command.add_argument("--sequences", type=int, default=64)
command.add_argument("--verified", type=int, default=1, help="sequences to compare with the reference")


def main() -> None:
    """Compile, which compares with the reference operator by operator; then score."""
    args = command.parse_args()
    lm = DocsLm.of(args.data)
    texts, calibration = lm.tokens("evaluation"), lm.tokens("calibration")
    calibration = calibration[:: max(1, len(calibration) // args.calibration)]
    length = calibration.shape[1]
    with TemporaryDirectory() as scratch:
        model = lm.compile(
            "prefill.onnx", args.target, Path(scratch) / "out", axes={"length": length},
            calibration_data=lm.at_once(calibration), evaluation_data=lm.at_once(texts[: args.verified]),
            precision=None if args.budget else args.precision, group=args.group, budget=args.budget,
            recipe=recipe(args.recipe, args.set),
        )  # fmt: skip

        def logits(text: np.ndarray) -> np.ndarray:
            """The graph reads a whole text; what its last token gives is not asked for."""
            whole = np.pad(text, (0, length - len(text)))
            return model.run({"input_ids": whole[None]})["logits"][0, : len(text)]

        scored = texts[: args.sequences]
        score, report = perplexity_of(logits, scored), model.report
    exact, kept = report["bit_exact"], report["collapse"]["outputs"][0]
    weights = sum(row["macs"] for row in report["bits"] if row["weight_bytes"]) / length
    bits = 8 * sum(row["weight_bytes"] for row in report["bits"]) / weights
    rounding = sum(report["seconds"].get(stage, 0) for stage in ("round weights", "reconstruct blocks"))
    groups = "groups of any size" if args.budget and not args.group else f"groups of {args.group or 32}"
    steps = " ".join([args.recipe, *args.set])
    print(
        f"{args.budget or args.precision} {groups} {steps}: perplexity {score:.3f} on "
        f"{len(scored)} sequences, {bits:.3f} bits a weight, {exact['mismatches']} of {exact['values']} "
        f"values of {args.verified} sequences differ, logits {kept['verdict']} ({kept['kept']:.3f} kept), "
        f"{rounding:.0f} s to round"
    )


if __name__ == "__main__":
    main()
