"""Perplexity of a small language model by emitted code, weights by group, activations int8 per token.

python benchmarks/language_model.py --precision w4a8 [--group 32] [--recipe best] [--sequences 64]

Calibrated on the model's calibration sequences, scored on the first of its evaluation sequences, every token
but the first predicted. Bits a weight are those of codes and scales; a table that is the head counts once.
"""

from __future__ import annotations

import time

import numpy as np
import tvm
from common import parser
from tvm import relax

from hwptq.data.dataset import from_batches
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.frontend import read_model
from hwptq.ir.dataflow import constant
from hwptq.metrics.perplexity import perplexity
from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.options import options_of
from hwptq.pipeline.stages import dynamic, integers, kernels
from hwptq.pipeline.step import Job
from hwptq.report.coverage import integer_nodes
from hwptq.targets import load_target

FOLDER = "docs-lm"

command = parser(__doc__)
command.add_argument("--target", default="x86-64-vnni")
command.add_argument("--precision", default="w4a8")
command.add_argument("--group", type=int, default=32)
command.add_argument("--recipe", default="best")
command.add_argument("--sequences", type=int, default=64)
command.add_argument("--verified", type=int, default=1, help="sequences to compare with the reference")


def main() -> None:
    """Quantize, build, score; compare some outputs with the reference, bit by bit."""
    args = command.parse_args()
    folder, target = args.data / FOLDER, load_target(args.target)
    tokens = np.load(folder / "tokens.npz")
    length = tokens["calibration"].shape[1]
    imported = read_model(folder / "prefill.onnx", {"length": length})
    samples = [{"input_ids": ids[None].astype(np.int64)} for ids in tokens["calibration"]]
    data = from_batches(samples, imported.inputs)
    options = options_of(
        None, activations="dynamic", weight_granularity="group", precision=args.precision, group=args.group,
        recipe=args.recipe,
    )  # fmt: skip
    job = Job(target, data, options)
    begin = time.perf_counter()
    integer = integers(dynamic(imported.module, job), job)
    seconds = time.perf_counter() - begin
    device = tvm.target.Target(dict(target.tvm))
    run = relax.VirtualMachine(tvm.compile(kernels(integer, job), target=device), tvm.cpu())["main"]
    losses, reference, mismatches = [], Interpreter(integer), 0
    sequences = tokens["evaluation"][: args.sequences].astype(np.int64)
    for number, ids in enumerate(sequences):
        found = run(tvm.runtime.tensor(ids[None])).numpy()
        if number < args.verified:
            mismatches += int(np.sum(found != reference.run({"input_ids": ids[None]})[0]))
        losses.append(np.log(perplexity([found[:, :-1]], ids[None, 1:], [])))
    print(
        f"{args.precision} groups of {args.group} {args.recipe}: perplexity {np.exp(np.mean(losses)):.3f} on "
        f"{len(sequences)} sequences, {bits(integer):.3f} bits a weight, {mismatches} values of "
        f"{args.verified} sequences differ, {seconds:.0f} s to quantize"
    )


def bits(integer: tvm.IRModule) -> float:
    """Bits a weight of an integer module, equal rows counted once."""
    seen: dict[bytes, tuple[int, int]] = {}
    for _, op, args in integer_nodes(integer):
        if isinstance(op, GroupDense | GroupEmbedding):
            arrays = [a for a in map(constant, args[1:]) if a is not None]
            seen[arrays[0].tobytes()] = sum(a.nbytes for a in arrays), len(arrays[0]) * op.depth
    nbytes, weights = map(sum, zip(*seen.values(), strict=True))
    return 8 * nbytes / weights


if __name__ == "__main__":
    main()
