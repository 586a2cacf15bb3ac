"""A dense layer with int4 weights by group beside MatMulNBits of ONNX Runtime, one thread, in turns.

python benchmarks/group_layers.py [--inputs 2048] [--outputs 8192] [--tokens 1] [--weight int4] [--turns 60]

Both take float32 and quantize the tokens themselves (accuracy level 4); medians of processor time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from hwptq import passes
from hwptq.passes.graph.group_plan import GroupFormats
from hwptq.targets import load_target

SIZE = 32

command = argparse.ArgumentParser(description=__doc__)
command.add_argument("--target", default="x86-64-vnni")
command.add_argument("--weight", default="int4", help="a format; ONNX Runtime has int4 always")
command.add_argument("--inputs", type=int, default=2048)
command.add_argument("--outputs", type=int, default=8192)
command.add_argument("--tokens", type=int, default=1)
command.add_argument("--turns", type=int, default=60)


def ours(args: argparse.Namespace, weight: np.ndarray) -> Callable[[np.ndarray], Any]:
    """The layer by the kernels of a target."""
    target = load_target(args.target)
    x = relax.Var("x", relax.TensorType((1, args.tokens, args.inputs), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(relax.op.matmul(x, relax.const(weight)))
        builder.emit_func_output(y)
    steps = tvm.ir.transform.Sequential(
        [
            passes.FuseConvRelu(),
            passes.InsertDynamicQDQ(target, None, GroupFormats(args.weight, SIZE, args.weight, SIZE)),
            passes.LowerToInteger(target),
            passes.SelectKernels(target),
        ]
    )
    built = tvm.compile(steps(builder.get()), target=tvm.target.Target(dict(target.tvm)))
    run = relax.VirtualMachine(built, tvm.cpu())["main"]
    return lambda array: run(tvm.runtime.tensor(array))


def theirs(args: argparse.Namespace) -> Callable[[np.ndarray], Any]:
    """MatMulNBits of random codes."""
    rng, blocks = np.random.default_rng(0), args.inputs // SIZE
    codes = rng.integers(0, 256, (args.outputs, blocks, SIZE // 2)).astype(np.uint8)
    scales = rng.standard_normal(args.outputs * blocks).astype(np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", "codes", "scales"], ["y"], domain="com.microsoft", K=args.inputs,
        N=args.outputs, bits=4, block_size=SIZE, accuracy_level=4,
    )  # fmt: skip
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, args.tokens, width])
        for name, width in (("x", args.inputs), ("y", args.outputs))
    ]
    arrays = [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scales, "scales")]
    graph = helper.make_graph([node], "layer", ends[:1], ends[1:], arrays)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return lambda array: session.run(None, {"x": array})


def main() -> None:
    """Time both in turns."""
    args = command.parse_args()
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((args.inputs, args.outputs)) * 0.02).astype(np.float32)
    x = rng.standard_normal((1, args.tokens, args.inputs)).astype(np.float32)
    both = ours(args, weight), theirs(args)
    taken: list[list[float]] = [[], []]
    for _ in range(args.turns):
        for run, seconds in zip(both, taken, strict=True):
            begin = time.process_time()
            run(x)
            seconds.append(time.process_time() - begin)
    mine, other = (1e3 * float(np.median(seconds)) for seconds in taken)
    print(
        f"{args.target} {args.weight} {args.inputs} x {args.outputs}, {args.tokens} tokens: {mine:.3f} ms, "
        f"ONNX Runtime {onnxruntime.__version__} {other:.3f} ms, {other / mine:.2f} times as long"
    )


if __name__ == "__main__":
    main()
