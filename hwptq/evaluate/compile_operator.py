"""One operator compiled by TVM for this machine; nodes that are alike share what was compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import tvm
from tvm import relax
from tvm_ffi import StructuralKey

from hwptq.ir.dataflow import Constant, op_name
from hwptq.ir.provenance import origin_of

_ONE_BUILDER = Lock()  # TVM keeps one stack of BlockBuilders for all threads
#: The structure of a module of one operator -> what was compiled from it.
_COMPILED: dict[Any, Any] = {}
#: The function has looked at what it is given before its kernel, whose checks took longer than its own code.
_UNCHECKED = {"tirx.disable_assert": True}


def is_array(expr: Any) -> bool:
    """Whether an operand is a constant of rank 1 or more: handed over as a tensor is, so that nodes with
    other weights are alike. Scalars become part of the code."""
    return isinstance(expr, Constant) and bool(len(expr.ty.shape.values))


def compiled_alone(mod: tvm.IRModule, value: Any, tensors: Sequence[Any]) -> Callable[..., Any]:
    """A function of `tensors`, the vars and constants among the operands of `value`, a call in `mod`.

    Raises ValueError that names the node where TVM has no code for it.
    """
    with _ONE_BUILDER:
        try:
            module = _module(mod, value, tensors)
            key = StructuralKey(module)  # type: ignore[call-arg, unused-ignore]
            if key not in _COMPILED:
                with tvm.transform.PassContext(config=_UNCHECKED):
                    _COMPILED[key] = tvm.compile(module, target="llvm")
        except MemoryError:
            raise
        except Exception as error:  # TVM takes attributes unchecked, and its own Python falls over them
            raise ValueError(_uncomputable(value, error)) from error
        return relax.VirtualMachine(_COMPILED[key], tvm.cpu())["only"]  # one VM serves one thread at a time


def _uncomputable(value: Any, error: Exception) -> str:
    origin, lines = origin_of(value), [line.strip() for line in str(error).splitlines() if line.strip()]
    where = f"node {origin.node!r}: " if origin else ""
    return f"{where}TVM can't compute {op_name(value)} as it is here ({lines[-1] if lines else 'no reason'})"


def _module(mod: tvm.IRModule, value: Any, tensors: Sequence[Any]) -> tvm.IRModule:
    """A module whose function `only` maps `tensors` to `value`."""
    called = [a for a in value.args if isinstance(a, tvm.ir.GlobalVar)]
    params = [relax.Var(f"p{i}", t.ty) for i, t in enumerate(tensors)]
    builder = relax.BlockBuilder(tvm.IRModule({gv: mod[gv] for gv in called}))
    names = {t: p for t, p in zip(tensors, params, strict=True)}

    def renamed(expr: Any) -> Any:
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([renamed(f) for f in expr.fields])
        return names.get(expr, expr) if isinstance(expr, relax.Var | Constant) else expr

    args = [renamed(a) for a in value.args]
    with builder.function("only", params):
        builder.emit_func_output(builder.emit(relax.Call(value.op, args, value.attrs, value.ty_args)))
    return builder.get()
