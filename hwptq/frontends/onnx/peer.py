"""What a model computes, by an evaluator that has nothing in common with the importer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from hwptq.ir.mapped import page_out

from .reference_operators import OPERATORS, refuse_large
from .rewrites.random_operators import RANDOM
from .weights.external_weights import array_of, as_inputs, is_apart, weights_apart

#: Evaluated by onnx.reference one pixel at a time.
_SLOW = ("GridSample", "RoiAlign", "DeformConv")


@dataclass(frozen=True)
class Peer:
    """The values of tensors by name, and who computed them; `reason`: why not all of them were, or ""."""

    name: str
    values: Mapping[str, np.ndarray] = field(repr=False)
    reason: str = ""


def by_runtime(proto: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> Peer | None:
    """The outputs of `proto` by ONNX Runtime, where it is installed and takes the model; not with weights
    in files of their own, which it would hold in memory."""
    if weights_apart(proto):
        return None
    try:
        import onnxruntime  # type: ignore[import-not-found, import-untyped, unused-ignore]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        if any(node.op_type == "QuantizeLinear" for node in proto.graph.node):
            # as the file says, in float: integer kernels round elsewhere
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [o.name for o in proto.graph.output]
        values = dict(zip(names, session.run(names, dict(inputs)), strict=True))
    except Exception:  # not there, or the model is not for it
        return None
    return Peer(f"onnxruntime {onnxruntime.__version__}", values)


def by_reference(proto: onnx.ModelProto, inputs: Mapping[str, np.ndarray], seconds: float) -> Peer:
    """The tensors of `proto` by onnx.reference, as far as `seconds` and the operators it knows allow."""
    name, end = f"onnx.reference {onnx.__version__}", time.monotonic() + seconds
    apart = {t.name: array_of(t) for t in proto.graph.initializer if is_apart(t)}
    try:
        evaluator = ReferenceEvaluator(as_inputs(proto) if apart else proto, new_ops=OPERATORS)
    except Exception as error:
        return Peer(name, {}, _why("the model", error))
    values = {"": None, **evaluator.rt_inits_, **apart, **inputs}
    for node in evaluator.rt_nodes_:
        where = f"node {node.onnx_node.name or node.output[0]!r} ({node.op_type})"
        if node.op_type in RANDOM:
            return Peer(name, values, f"{where} draws random numbers")
        if time.monotonic() > end:
            return Peer(name, values, f"{where} was not reached in {seconds:g} s")
        context = {"context": values} if node.need_context() else {}
        try:
            if node.op_type in _SLOW:
                refuse_large(values[node.input[0]], node.op_type)
            with np.errstate(all="ignore"):
                results = node.run(*[values[i] for i in node.input], **context)
        except Exception as error:
            return Peer(name, values, _why(where, error))
        values.update(zip(node.output, results, strict=False))
        page_out(*(apart[i] for i in node.input if i in apart))
    return Peer(name, values)


def _why(where: str, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"it can't evaluate {where}: {lines[0] if lines else type(error).__name__}"
