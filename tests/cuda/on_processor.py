"""Simple CUDA kernels on this machine: blocks and threads become loops."""

from __future__ import annotations

from typing import Any

import kernel_cases
import numpy as np
import tvm
from tvm import tirx

from hwptq.kernels.cuda.flat import PIPELINE
from hwptq.tir.kernel import TensorType


def in_loops(func: Any) -> Any:
    """The same function with loops for blocks and threads."""

    def serial(body: Any) -> Any:
        if isinstance(body, tirx.SeqStmt):
            return tirx.SeqStmt([serial(part) for part in body.seq])
        if isinstance(body, tirx.For) and body.kind == tirx.ForKind.THREAD_BINDING:
            return tirx.For(body.loop_var, body.min, body.extent, tirx.ForKind.SERIAL, serial(body.body))
        return body

    body = serial(func.body)
    return func.with_body(body).without_attr(PIPELINE).with_attr("global_symbol", "kernel")


def run(func: Any, arrays: list[np.ndarray], out: TensorType) -> np.ndarray:
    """The output of a kernel of one thread an element."""
    kernel = tvm.compile(tvm.IRModule({"kernel": in_loops(func)}), target="llvm")
    y = tvm.runtime.tensor(np.full(out.shape, kernel_cases.UNWRITTEN, out.dtype))
    kernel["kernel"](*(tvm.runtime.tensor(a) for a in arrays), y)
    return y.numpy()
