"""CarryCaches: notes which inputs of a step are outputs of the step before it."""

from __future__ import annotations

from typing import Any

import tvm

from hwptq.ir.caches import with_caches
from hwptq.ir.dataflow import main_functions

from .graph.find_caches import find_caches


@tvm.transform.module_pass(opt_level=0, name="hwptq.CarryCaches")
class CarryCaches:
    """An attribute on each function that has caches (hwptq/ir/caches.py): passes keep it, backends read it.

    They are found by structure, not by order or name: an output that is where(…, new, input). Nothing else
    changes.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        out = mod.clone()
        for gv, func in main_functions(mod):
            if (caches := find_caches(func)) is not None:
                out[gv] = with_caches(func, caches)
        return out
