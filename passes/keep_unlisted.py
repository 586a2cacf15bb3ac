"""KeepUnlisted: note which nodes stay in float because the target has no rule for their kind."""

from __future__ import annotations

from typing import Any

import tvm

from hwptq.ir.dataflow import bindings, main_functions
from hwptq.ir.provenance import origins
from hwptq.lowering.rules import family_of

from .graph.quantizable import with_float_reasons


@tvm.transform.module_pass(opt_level=0, name="hwptq.KeepUnlisted")
class KeepUnlisted:
    """For modules that come quantized; InsertQDQ asks the descriptor for those in float."""

    def __init__(self, target: Any):
        self.target = target

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        reasons: dict[str, dict[str, str]] = {}
        for gv, func in main_functions(mod):
            named = origins(func)
            families = {var: family_of(mod, value) for var, value in bindings(func)}
            reasons[str(gv.name_hint)] = {
                named[var].label: f"target {self.target.name} lists no operator {family}"
                for var, family in families.items()
                if family is not None and self.target.rule(family) is None
            }
        return with_float_reasons(mod, reasons)
