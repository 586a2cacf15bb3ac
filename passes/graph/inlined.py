"""Composites that nothing has made an operator of, as the operators inside of them."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import Rewriter, bindings, composite_name


def inlined(mod: tvm.IRModule, r: Rewriter, value: Any) -> Any:
    """The value of a binding; for a composite, the last of its operators, all of which are emitted."""
    called = value.op if isinstance(value, relax.Call) else None
    if not isinstance(called, tvm.ir.GlobalVar) or composite_name(mod[called]) is None:
        return r.keep(value)
    func = mod[value.op]
    inner = dict(zip(func.params, map(r.get, value.args), strict=True))
    *_, last = (var for var, step in bindings(func) if isinstance(step, relax.Call))
    for var, step in bindings(func):
        if isinstance(step, relax.Call):
            args = [inner.get(a, a) for a in step.args]
            call = relax.Call(step.op, args, step.attrs, step.ty_args)
            inner[var] = r.emit(call, r.origin if var == last else None)
        else:
            inner[var] = inner[step]
    return inner[func.body.body]
