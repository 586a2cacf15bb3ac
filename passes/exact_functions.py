"""ExactFunctions: functions that are left in float become operators that give the same bits everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm

from hwptq.ir.dataflow import Rewriter, bindings, op_name, rewrite, shape_of
from hwptq.ir.operator import Operator
from hwptq.lowering.emitter import Emitter
from hwptq.operators.real_sigmoid import RealSigmoid
from hwptq.targets.schema import Descriptor

#: By the name of Relax's operator.
_FUNCTIONS: Mapping[str, Operator] = {"sigmoid": RealSigmoid()}


@tvm.transform.module_pass(opt_level=0, name="hwptq.ExactFunctions")
class ExactFunctions:
    """For an integer module, behind LowerToInteger: of float32 alone. TVM's own code calls the C library for
    each value, whose last bits differ from one to the next."""

    def __init__(self, target: Descriptor):
        self.target = target

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        emitters: dict[int, Emitter] = {}

        def visit(r: Rewriter, var: Any, value: Any) -> Any:
            found = _FUNCTIONS.get(op_name(value))
            if found is None or str(var.ty.dtype) != "float32":
                return r.keep(value)
            if id(r) not in emitters:
                emitters[id(r)] = Emitter(r, dict(bindings(r.func)), self.target.accumulators)
            x = r.get(value.args[0])
            return emitters[id(r)].call(found, [x], (), shape_of(var), "float32", r.origins[var])

        return rewrite(mod, visit)
