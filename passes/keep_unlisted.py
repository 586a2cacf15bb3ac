"""KeepUnlisted: note which nodes stay in float because the target has no rule that serves them."""

from __future__ import annotations

from typing import Any

import tvm

from hwptq.ir.dataflow import bindings, main_functions
from hwptq.ir.provenance import origins
from hwptq.lowering.rules import family_of

from .graph.quantizable import with_float_reasons
from .graph.shape_limits import beyond_limits


@tvm.transform.module_pass(opt_level=0, name="hwptq.KeepUnlisted")
class KeepUnlisted:
    """For modules that come quantized; InsertQDQ asks the descriptor for those in float."""

    def __init__(self, target: Any):
        self.target = target

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        reasons: dict[str, dict[str, str]] = {}
        for gv, func in main_functions(mod):
            named = origins(func)
            found = [(named[var].label, self._why_float(mod, value)) for var, value in bindings(func)]
            reasons[str(gv.name_hint)] = {label: why for label, why in found if why}
        return with_float_reasons(mod, reasons)

    def _why_float(self, mod: tvm.IRModule, value: Any) -> str | None:
        family = family_of(mod, value)
        rule = self.target.rule(family) if family is not None else None
        if family is None or rule is not None:
            return beyond_limits(mod, value, rule) if rule else None
        return f"target {self.target.name} lists no operator {family}"
