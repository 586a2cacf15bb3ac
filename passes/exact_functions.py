"""ExactFunctions: what is left in float becomes operators that give the same bits everywhere, in vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.composite import is_clamped, read_composite
from hwptq.ir.dataflow import Rewriter, bindings, constant, op_name, rewrite, shape_of
from hwptq.ir.operator import Operator
from hwptq.lowering.emitter import Emitter
from hwptq.operators.real_arithmetic import FUNCTIONS, RealArithmetic
from hwptq.operators.real_norm import RealLayerNorm, RealRmsNorm
from hwptq.operators.real_sigmoid import RealSigmoid
from hwptq.targets.schema import Descriptor


@dataclass(frozen=True)
class _Made:
    """An operator with its activations, expressions of the old function, and its constants."""

    op: Operator
    activations: Sequence[Any]
    constants: tuple[np.ndarray, ...] = ()


def _sigmoid(call: Any) -> _Made:
    return _Made(RealSigmoid(), [call.args[0]])


def _arithmetic(call: Any) -> _Made:
    return _Made(RealArithmetic(op_name(call)), call.args)


def _negative(call: Any) -> _Made:
    return _Made(RealArithmetic("multiply"), [call.args[0], relax.const(np.float32(-1))])


def _norm(call: Any) -> _Made | None:
    """Over the last axis, by constants."""
    x, *vectors = call.args
    arrays = [constant(v) for v in vectors]
    last = [int(a) % len(shape_of(x)) for a in call.attrs.axes] == [len(shape_of(x)) - 1]
    if not last or any(a is None or a.ndim != 1 for a in arrays):
        return None
    made = RealRmsNorm if op_name(call) == "nn.rms_norm" else RealLayerNorm
    return _Made(made(float(call.attrs.epsilon)), [x], tuple(a for a in arrays if a is not None))


#: By the name of Relax's operator.
_FUNCTIONS: Mapping[str, Callable[[Any], _Made | None]] = {
    "sigmoid": _sigmoid,
    "negative": _negative,
    "nn.layer_norm": _norm,
    "nn.rms_norm": _norm,
    **dict.fromkeys(FUNCTIONS, _arithmetic),
}


@tvm.transform.module_pass(opt_level=0, name="hwptq.ExactFunctions")
class ExactFunctions:
    """For an integer module, behind LowerToInteger and what reads Relax's operators: of float32 alone.

    TVM's own code calls the C library for each value of a function, whose last bits differ from one library
    to the next, and adds the values of a row, and those of short rows, one by one.
    """

    def __init__(self, target: Descriptor):
        self.target = target

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        emitters: dict[int, Emitter] = {}

        def visit(r: Rewriter, var: Any, value: Any) -> Any:
            made = _made(r.mod, value)
            if made is None or not all(_is_real(t) for t in (var, *made.activations)):
                return r.keep(value)
            if id(r) not in emitters:
                emitters[id(r)] = Emitter(r, dict(bindings(r.func)), self.target.accumulators)
            inputs, shape = [r.get(x) for x in made.activations], shape_of(var)
            return emitters[id(r)].call(made.op, inputs, made.constants, shape, "float32", r.origins[var])

        return rewrite(mod, visit)


def _made(mod: tvm.IRModule, call: Any) -> _Made | None:
    """What a call becomes, or None. A sum may stand in a composite, alone."""
    unit = read_composite(mod, call)
    if unit is None:
        make = _FUNCTIONS.get(op_name(call))
        return make(call) if make is not None else None
    head, alone = op_name(unit.head), unit.bias is None and not is_clamped(unit)
    return _Made(RealArithmetic(head), unit.args) if head in FUNCTIONS and alone else None


def _is_real(tensor: Any) -> bool:
    return str(tensor.ty.dtype) == "float32"
