"""A prompt read at once against the same tokens step by step, and against a graph of a whole text.

python benchmarks/prompts.py [--target NAME] [--tokens 128] [--prompt 32] [--precision w8a8] [--group 32]

decode.onnx is compiled with --prompt; its program reads the tokens both ways, and what comes out, logits
and caches, is compared in every bit. Processor time by the programs themselves, the least of some rounds in
turns. Without --group weights have a scale for each channel.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import parser
from docs_lm import DocsLm

import hwptq
from hwptq.executors.requests import CACHES, Request

command = parser(__doc__)
command.add_argument("--target", default="x86-64-vnni")
command.add_argument("--precision", default="w8a8")
command.add_argument("--group", type=int, default=0)
command.add_argument("--tokens", type=int, default=128)
command.add_argument("--prompt", type=int, default=32)
command.add_argument("--rounds", type=int, default=5)

Samples = list[dict[str, np.ndarray]]


def main() -> None:
    """Compile both graphs, compare, time."""
    args = command.parse_args()
    model = DocsLm.of(args.data)
    tokens = model.tokens("evaluation")[0, : args.tokens]
    words: dict[str, Any] = {"precision": args.precision, "weight_granularity": "channel", "cache": True}
    if args.group:
        words |= {"weight_granularity": "group", "group": args.group}
    with TemporaryDirectory() as scratch:
        both = model.compile(
            "decode.onnx", args.target, Path(scratch) / "both", prompt=args.prompt, **words
        )  # fmt: skip
        alone = model.compile("decode.onnx", args.target, Path(scratch) / "alone", **words)
        whole = model.compile(
            "prefill.onnx", args.target, Path(scratch) / "whole", axes={"length": args.tokens},
            evaluation_data=model.at_once(tokens[None]), **words,
        )  # fmt: skip
        steps, prompts = model.by_step(tokens), parts(tokens, args.prompt)
        *logits, caches = list(both.running.run_stream([*steps, CACHES]))
        *found, filled = list(both.running.run_stream([*prompts, CACHES]))
        differ = np.count_nonzero(logits[-1][0].view(np.int32) != found[-1][0].view(np.int32))
        differ += np.count_nonzero(caches[0] != filled[0])
        rows = [
            (busy(both, steps), busy(both, prompts), busy(whole, model.at_once(tokens[None])))
            for _ in range(args.rounds)
        ]
        sizes = [(m.folder / "decode.o").stat().st_size for m in (both, alone)]
        weights = [m.report["weight_bytes"]["quantized"] for m in (both, alone)]
        checked = both.report["bit_exact"]["mismatches"]
    by_step, at_once, whole_text = (min(column) / 1e6 for column in zip(*rows, strict=True))
    print(
        f"{args.target} {args.precision} {args.group or 'by channel'}, {args.tokens} tokens in parts of "
        f"{args.prompt}: {differ} bytes and logits differ, {checked} values at compile; "
        f"ms of processor time: {by_step:.2f} step by step, "
        f"{at_once:.2f} at once ({by_step / at_once:.2f} times less), "
        f"{whole_text:.2f} by prefill.onnx, which makes all logits; object {sizes[0]} bytes, without prompt "
        f"{sizes[1]}; weights {weights[0]} and {weights[1]}"
    )


def parts(tokens: np.ndarray, most: int) -> Samples:
    """A text as prompts."""
    found = []
    for at in range(0, len(tokens), most):
        part = tokens[at : at + most]
        padded = np.pad(part, (0, most - len(part)))[None]
        found.append(
            {"input_ids": padded, "position": np.array([at]), "count": np.array([len(part)])}
        )  # fmt: skip
    return found


def busy(model: hwptq.CompiledModel, samples: Samples, repeat: int = 5) -> float:
    """Nanoseconds of processor time of all samples, each computed `repeat` times more in its place."""
    program, data = model.program, b""
    for sample in samples:
        prompt = program.prompt if program.prompt and "count" in sample else None
        if program.prompt:
            data += bytes([Request.PROMPT if prompt else Request.STEP])
        inputs = prompt.inputs if prompt else program.inputs
        data += b"".join(np.ascontiguousarray(sample[t.name], t.dtype).tobytes() for t in inputs)
    options = ["--repeat", str(repeat), *(["--prompts"] if program.prompt else [])]
    done = subprocess.run([*program.command, *options], input=data, capture_output=True, check=True)
    return float(sum(int(line.split()[1]) for line in done.stderr.decode().splitlines()))


if __name__ == "__main__":
    main()
