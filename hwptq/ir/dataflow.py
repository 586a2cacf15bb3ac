"""Reading and rewriting straight-line Relax functions: what every pass here is built on."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import tvm
from tvm import relax

from .provenance import Origin, Part, origin_of, origins, with_origin
from .views import view

Constant = type(relax.const(1))
Visit = Callable[["Rewriter", Any, Any], Any]


def main_functions(mod: tvm.IRModule) -> Iterator[tuple[Any, Any]]:
    """The (GlobalVar, Function) pairs to rewrite: Relax functions that are no outlined composite, and not
    given to another code generator.
    """
    for gv, func in mod.functions.items():
        attrs = func.attrs or {}
        if isinstance(func, relax.Function) and "Composite" not in attrs and "Codegen" not in attrs:
            yield gv, func


def only_function(mod: tvm.IRModule) -> str:
    """The name of the function that a model is: the one Relax function that no other calls. Raises ValueError
    where there are several.
    """
    found = entry_functions(mod)
    if len(found) != 1:
        raise ValueError(f"a module with one function is needed, this one has {', '.join(found) or 'none'}")
    return found[0]


def entry_functions(mod: tvm.IRModule) -> list[str]:
    """The names of the Relax functions that no other function of the module calls."""
    found = dict(main_functions(mod))
    called = {
        value.op
        for func in found.values()
        for block in func.body.blocks
        for value in (b.value for b in block.bindings if isinstance(b, relax.VarBinding))
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar)
    }
    return [str(gv.name_hint) for gv in found if gv not in called]


def composite_name(func: Any) -> str | None:
    """The Composite attribute of a function, or None."""
    if isinstance(func, relax.Function) and func.attrs and "Composite" in func.attrs:
        return str(func.attrs["Composite"])
    return None


def bindings(func: Any) -> list[tuple[Any, Any]]:
    """(var, value) of every binding, in order. Raises ValueError for control flow."""
    out = []
    for block in func.body.blocks:
        for b in block.bindings:
            if not isinstance(b, relax.VarBinding) or isinstance(b.value, relax.If):
                raise ValueError("only straight-line functions can be quantized; found control flow")
            out.append((b.var, b.value))
    return out


def arguments(value: Any) -> list[Any]:
    """The expressions that `value` reads."""
    if isinstance(value, relax.Call):
        return list(value.args)
    if isinstance(value, relax.Tuple):
        return list(value.fields)
    if isinstance(value, relax.TupleGetItem):
        return [value.tuple_value]
    return [value]


def reads(value: Any) -> list[Any]:
    """The vars that `value` reads, also through tuples, each once."""
    if isinstance(value, relax.Var):
        return [value]
    if not isinstance(value, relax.Call | relax.Tuple | relax.TupleGetItem):
        return []
    return list(dict.fromkeys(var for arg in arguments(value) for var in reads(arg)))


def data_of(value: Any) -> list[Any]:
    """The activations that a node reads."""
    found: list[Any] = []
    for a in value.args:
        found += [f for f in a.fields] if isinstance(a, relax.Tuple) else [a]
    return [a for a in found if isinstance(a, relax.Var)]


def users(func: Any) -> dict[Any, list[Any]]:
    """var -> the vars whose binding reads it (through tuples); the function's result counts as None."""
    found: dict[Any, list[Any]] = {}
    for var, value in [*bindings(func), (None, func.body.body)]:
        for source in reads(value):
            found.setdefault(source, []).append(var)
    return found


def made_of(var: Any, root: Any, values: Mapping[Any, Any]) -> list[Any]:
    """What `var` is computed from, itself included, back to `root`; each var behind those that it reads."""
    found: dict[Any, None] = {}
    waiting = [var]
    while waiting:
        missing = [v for v in reads(values[waiting[-1]]) if v != root and v not in found]
        waiting += missing
        if not missing:
            found[waiting.pop()] = None
    return list(found)


def op_name(value: Any) -> str:
    """The operator of a call without its "relax." prefix, or "" for anything else."""
    if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
        return str(value.op.name).removeprefix("relax.")
    return ""


def constant(expr: Any) -> np.ndarray | None:
    """The value of a constant expression, which can't be written to, or None."""
    return view(expr.value) if isinstance(expr, Constant) else None


def slice_bounds(call: Any) -> tuple[list[int], list[int], list[int], list[int]]:
    """axes, begin, end and strides of a strided_slice with constant bounds."""
    axes, begin, end, *strides = ([int(v) for v in argument.fields] for argument in call.args[1:5])
    return axes, begin, end, strides[0] if strides else [1] * len(axes)


def shape_of(expr: Any) -> tuple[int, ...]:
    """The static shape of a tensor expression. Raises ValueError where it is symbolic."""
    try:
        return tuple(int(d) for d in expr.ty.shape.values)
    except (AttributeError, TypeError, ValueError) as error:
        name = getattr(expr, "name", expr)
        raise ValueError(
            f"{name}: its shape is not static; bind it first, by relax.transform.BindSymbolicVars"
        ) from error


class Rewriter:
    """Builds a new function binding by binding; `env` maps old vars to new expressions.

    origins: of the old vars; emitted: of the new ones. origin: of the binding that is rewritten, which
    everything emitted meanwhile inherits as steps on the way to it, unless told otherwise.
    """

    def __init__(self, mod: tvm.IRModule, func: Any, name: str = "main"):
        self.mod, self.func, self.name = mod, func, name
        self.origins = origins(func)
        self.emitted: dict[Any, Origin] = {}
        self.origin = Origin(name)
        self._known = {_place(o) for o in self.origins.values()}
        self._emitted = {_place(self.origins[p]) for p in func.params}
        self.builder = relax.BlockBuilder()
        self.env: MutableMapping[Any, Any] = {p: p for p in func.params}
        self.added: dict[str, Any] = {}
        self._taken = {gv.name_hint for gv in mod.functions}

    def get(self, expr: Any) -> Any:
        """The new expression that stands for an old one."""
        if isinstance(expr, relax.Var):
            return self.env[expr]
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.get(f) for f in expr.fields])
        return expr

    @contextmanager
    def reading(self, others: dict[Any, Any]) -> Iterator[None]:
        """Within the block, old vars stand for the new expressions of `others`, where they have one there."""
        outer = self.env
        self.env = ChainMap(others, outer) if others else outer
        try:
            yield
        finally:
            self.env = outer

    def keep(self, value: Any) -> Any:
        """An old binding's value over the new arguments, of the same origin."""
        if isinstance(value, relax.Call):
            args = [self.get(a) for a in value.args]
            return relax.Call(value.op, args, value.attrs, value.ty_args, value.span)
        if isinstance(value, relax.TupleGetItem):
            source = self.get(value.tuple_value)
            return (
                source.fields[value.index]
                if isinstance(source, relax.Tuple)
                else relax.TupleGetItem(source, value.index, value.span)
            )
        return self.get(value)

    def emit(self, expr: Any, origin: Origin | None = None) -> Any:
        """Bind `expr` to a new var, of the origin given, of its own, or a step on the way to the binding that
        is rewritten; a number is added to a step where that is of something else already.
        """
        given = origin or origin_of(expr)
        if given is None:
            of = self.origin.unless(lambda o: o.step == 0 or _place(o) in self._known | self._emitted)
        else:
            of = given.unless(lambda o: _place(o) in self._emitted)
        self._emitted.add(_place(of))
        # TVM's code in CUDA names its parameters after it
        var = self.builder.emit(with_origin(expr, of), name_hint=re.sub(r"\W", "_", of.hint))
        self.emitted[var] = of
        return var

    def add_function(self, func: Any, hint: str) -> Any:
        """Add a function to the module under an unused name; returns its GlobalVar."""
        name, k = hint, 0
        while name in self._taken:
            k += 1
            name = f"{hint}_{k}"
        self._taken.add(name)
        gv = self.builder.add_func(func, name)
        self.added[gv.name_hint] = func
        return gv


def _place(origin: Origin) -> tuple[str, Part]:
    """What no two bindings of a function have in common."""
    return origin.label, origin.part


def rewrite(
    mod: tvm.IRModule,
    visit: Visit,
    begin: Callable[[Rewriter], None] | None = None,
    result: Callable[[Rewriter], Any] | None = None,
    params: Callable[[str, Any], list[Any]] | None = None,
) -> tvm.IRModule:
    """A new module in which visit(rewriter, var, value) gave the new expression of every binding.

    `visit` returns an expression (of the old origin if it is not a var yet) or None for one that is dropped;
    `begin` may emit before the first binding, `result` give other outputs, and `params` other parameters of a
    function, by its name (`begin` then says what stands for those that are gone). The module given is left
    unchanged.
    """
    out = {gv: f for gv, f in mod.functions.items()}
    for gv, func in main_functions(mod):
        r = Rewriter(tvm.IRModule(out, attrs=mod.attrs), func, str(gv.name_hint))
        taken = params(str(gv.name_hint), func) if params else list(func.params)
        with r.builder.function(gv.name_hint, taken, attrs=dict(func.attrs or {})):
            with r.builder.dataflow():
                if begin:
                    begin(r)
                for var, value in bindings(func):
                    r.origin = r.origins[var]
                    new = visit(r, var, value)
                    if new is None:
                        continue
                    atom = isinstance(new, relax.Var | relax.Tuple | Constant)
                    r.env[var] = new if atom else r.emit(new, r.origin)
                output = r.builder.emit_output(result(r) if result else r.get(func.body.body))
            r.builder.emit_func_output(output)
        built = r.builder.get()
        new_main = next(f for g, f in built.functions.items() if g.name_hint == gv.name_hint)
        for g, f in built.functions.items():
            if g.name_hint != gv.name_hint:
                out[g] = f
        out[gv] = new_main
    return relax.transform.DeadCodeElimination()(tvm.IRModule(out, attrs=mod.attrs))
