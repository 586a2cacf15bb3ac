"""A language model step by step against the same tokens at once: the logits of emitted code, bit by bit.

python benchmarks/decoding.py [--target NAME] [--steps 64] [--precision w4a8] [--kv-cache float32]

Both graphs are compiled for the same target with weights by group; the one of a step keeps its caches in the
program.
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
command.add_argument("--steps", type=int, default=64)
command.add_argument("--kv-cache", default="float32")
command.add_argument(
    "--sequences", type=int, default=0, help="texts to measure the perplexity of the steps on"
)


def main() -> None:
    """Compile both, run both on the first tokens of a text, compare."""
    args = command.parse_args()
    folder = args.data / FOLDER
    texts = np.load(folder / "tokens.npz")["evaluation"].astype(np.int64)
    tokens = texts[0, : args.steps]
    words = {"activations": "dynamic", "weight_granularity": "group", "precision": args.precision}
    with TemporaryDirectory() as scratch:
        at_once = hwptq.compile(
            folder / "prefill.onnx", args.target, evaluation_data=[{"input_ids": tokens[None]}],
            output=Path(scratch) / "prefill", axes={"length": args.steps}, **words,
        )  # fmt: skip
        steps = samples_of(tokens)
        by_step = hwptq.compile(
            folder / "decode.onnx", args.target, evaluation_data=steps[:4],
            output=Path(scratch) / "decode", kv_cache=args.kv_cache, **words,
        )  # fmt: skip
        whole = at_once.run({"input_ids": tokens[None]})["logits"][0]
        parts = np.stack([out["logits"][0, 0] for out in by_step.run_stream(steps)])
        score = perplexity_of(by_step, texts[: args.sequences]) if args.sequences else None
        checks = [model.report["bit_exact"]["mismatches"] for model in (at_once, by_step)]
        memory = by_step.program.state
    different = int(np.count_nonzero(whole.view(np.int32) != parts.view(np.int32)))
    noise = np.linalg.norm(whole - parts) / np.linalg.norm(whole)
    assert memory
    print(
        f"{args.target} {args.precision}: {args.steps} steps, {different} of {whole.size} logits differ "
        f"({noise:.1e} of their size), {sum(checks)} values differ from the reference; "
        f"{memory.nbytes} bytes of caches"
        + (f"; perplexity {score:.4f} on {args.sequences} texts" if score else "")
    )


def samples_of(tokens: np.ndarray) -> list[dict[str, np.ndarray]]:
    """The steps of a text."""
    return [{"input_ids": token.reshape(1, 1), "position": np.array([i])} for i, token in enumerate(tokens)]


def perplexity_of(model: hwptq.CompiledModel, texts: np.ndarray) -> float:
    """By steps, every token but the first of each text predicted."""
    losses = []
    for text in texts:
        logits = np.stack([out["logits"][0, 0] for out in model.run_stream(samples_of(text[:-1]))])
        losses.append(np.log(perplexity([logits[None]], text[None, 1:], [])))
    return float(np.exp(np.mean(losses)))


if __name__ == "__main__":
    main()
