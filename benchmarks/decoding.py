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
from docs_lm import DocsLm, perplexity_of

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
    model, precision = DocsLm.of(args.data), args.precision
    texts = model.tokens("evaluation")
    tokens = texts[0, : args.steps]
    steps = model.by_step(tokens)
    with TemporaryDirectory() as scratch:
        at_once = model.compile(
            "prefill.onnx", args.target, Path(scratch) / "prefill", axes={"length": args.steps},
            evaluation_data=model.at_once(tokens[None]), precision=precision,
        )  # fmt: skip
        by_step = model.compile(
            "decode.onnx", args.target, Path(scratch) / "decode", evaluation_data=steps[:4],
            precision=precision, kv_cache=args.kv_cache,
        )  # fmt: skip

        def logits(text: np.ndarray) -> np.ndarray:
            return np.stack([out["logits"][0, 0] for out in by_step.run_stream(model.by_step(text))])

        whole, parts = at_once.run({"input_ids": tokens[None]})["logits"][0], logits(tokens)
        score = perplexity_of(logits, texts[: args.sequences]) if args.sequences else None
        checks = [found.report["bit_exact"]["mismatches"] for found in (at_once, by_step)]
        memory = by_step.program.state
    different = int(np.count_nonzero(whole.view(np.int32) != parts.view(np.int32)))
    noise = np.linalg.norm(whole - parts) / np.linalg.norm(whole)
    assert memory
    print(
        f"{args.target} {precision}: {args.steps} steps, {different} of {whole.size} logits differ "
        f"({noise:.1e} of their size), {sum(checks)} values differ from the reference; "
        f"{memory.nbytes} bytes of caches"
        + (f"; perplexity {score:.4f} on {args.sequences} texts" if score else "")
    )


if __name__ == "__main__":
    main()
