"""KeepUnlisted: note which nodes stay in float because the target has no rule for their kind."""

from __future__ import annotations

from typing import Any

import tvm

from hwptq.ir.dataflow import bindings, main_functions
from hwptq.lowering.rules import family_of

from .graph.quantizable import with_float_reasons


@tvm.transform.module_pass(opt_level=0, name="hwptq.KeepUnlisted")
class KeepUnlisted:
    """For modules that come quantized; InsertQDQ asks the descriptor for those in float."""

    def __init__(self, target: Any):
        self.target = target

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        found = [(var, family_of(mod, value)) for _, f in main_functions(mod) for var, value in bindings(f)]
        reasons = {
            str(var.name): f"target {self.target.name} lists no operator {k}"
            for var, k in found
            if k is not None and self.target.rule(k) is None
        }
        return with_float_reasons(mod, reasons)
