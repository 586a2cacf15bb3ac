"""Bindings that one kernel computes together: what is found of them, and the call that stands for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import Rewriter, bindings, main_functions, rewrite, shape_of, users
from hwptq.kernels.joins import Joined
from hwptq.tir.kernel import TensorType

from .fused_groups import integer_node


@dataclass(frozen=True)
class KernelGroup:
    """A kernel that stands for bindings: at the place of `at` it gives `results`, in the order of its own."""

    at: Any
    kernel: Joined
    activations: Sequence[Any]
    constants: Sequence[Any]
    results: Sequence[Any]  # vars
    vars: Sequence[Any]  # all bindings that it stands for
    before: tuple[Joined, Any] | None = None  # what makes its first activations of another one, and that


def _emitted(r: Rewriter, group: KernelGroup) -> Any:
    """The call; its results are known to the rewriter. What stands for `at`."""
    given = [r.get(a) for a in group.activations]
    if group.before is not None:
        joined, x = group.before
        wide = r.emit(_call(r, joined, [r.get(x)]))
        given = [wide, wide, wide, *given]
    single = len(group.kernel.results) == 1
    made = r.emit(_call(r, group.kernel, [*given, *group.constants]), r.origins[group.at] if single else None)
    if single:
        r.env[group.results[0]] = made
        return made
    for i, var in enumerate(group.results):
        if var is not None:
            r.env[var] = r.emit(relax.TupleGetItem(made, i), r.origins[var])
    return r.env.get(group.at, made)


def _call(r: Rewriter, kernel: Joined, given: Sequence[Any]) -> Any:
    func = r.add_function(kernel.func, f"hwptq_{kernel.name}")
    arrays = [relax.const(a) for a in kernel.constants]
    types = [relax.TensorType(t.shape, t.dtype) for t in kernel.results]
    return relax.call_tir(func, [*given, *arrays], types if len(types) > 1 else types[0])


#: A function's finder -> its groups, by the binding in whose place each stands.
Groups = dict[Any, KernelGroup]


def join(mod: tvm.IRModule, groups_of: Callable[[Any], Groups]) -> tvm.IRModule:
    """The module with a call for each group that groups_of(function) gives."""
    found: Groups = {}
    for _, func in main_functions(mod):
        found |= groups_of(func)
    inside = {var for group in found.values() for var in group.vars} - set(found)

    def visit(r: Rewriter, var: Any, value: Any) -> Any:
        if var in found:
            return _emitted(r, found[var])
        return None if var in inside else r.keep(value)

    return rewrite(mod, visit) if found else mod


class Finder:
    """What finds the groups of a function."""

    def __init__(self, mod: tvm.IRModule, func: Any, selector: Any):
        self.mod, self.selector = mod, selector
        self.values, self.readers = dict(bindings(func)), users(func)

    def node(self, var: Any, *kinds: type) -> Any:
        """The operator of a binding with its tensors, if it is one of those."""
        found = integer_node(self.mod, var, self.values[var]) if var in self.values else None
        return found if found is not None and isinstance(found.op, kinds) else None

    def only_reader(self, var: Any) -> Any:
        """The one binding that reads `var`, or None; the function's result is none."""
        readers = self.readers.get(var, [])
        return readers[0] if len(readers) == 1 else None


def type_of(expr: Any) -> TensorType:
    return TensorType(shape_of(expr), str(expr.ty.dtype))
