"""Relax modules, made by any importer or by hand: one function of a module becomes the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.errors import InputError, UnsupportedError
from hwptq.ir.dataflow import bindings, composite_name
from hwptq.notices import Warning

from .frontend import Frontend
from .model import Model
from .symbolic_axes import bound_shapes

_FLOAT16 = ("float16", "bfloat16")


class RelaxFrontend(Frontend):
    """A module, or (module, its parameters) as relax.frontend.detach_params gives them."""

    accepts = "a Relax IRModule, (IRModule, parameters)"

    @classmethod
    def takes(cls, source: Any) -> bool:
        if isinstance(source, tuple) and len(source) == 2:
            source = source[0]
        return isinstance(source, tvm.IRModule)

    def read(self, source: Any, axes: Mapping[str, int]) -> Model:
        module, params = source if isinstance(source, tuple) else (source, {})
        return import_relax(module, params, axes)


def import_relax(
    module: tvm.IRModule, params: Mapping[str, Any] | None = None, axes: Mapping[str, int] | None = None
) -> Model:
    """The function `main` of a module, or its only one, as a model; what it calls becomes part of it.

    params: arrays by parameter, or lists of them by function; axes: sizes of symbolic axes.
    Raises InputError or UnsupportedError.
    """
    entry, left = _entry(module)
    module = _bound(_only(module, entry), params or {}, entry)
    shapes = _shapes(module, axes or {})
    module = _straight(_static(module, shapes, entry), entry)
    inputs = {str(p.name): (shapes[str(p.name)], str(p.ty.dtype)) for p in module["main"].params}
    warnings = [
        Warning("function", name, f"is left out: only {entry!r} is compiled; compile it by itself")
        for name in left
    ]
    return Model(entry, module, inputs, _outputs(module["main"]), tuple(warnings))


def _functions(module: tvm.IRModule) -> dict[str, Any]:
    """The Relax functions that are no composites."""
    found = {gv.name_hint: f for gv, f in module.functions.items() if isinstance(f, relax.Function)}
    return {name: f for name, f in found.items() if composite_name(f) is None}


def _entry(module: tvm.IRModule) -> tuple[str, list[str]]:
    """The function that is compiled, and those that neither are nor are called."""
    functions = _functions(module)
    called = {name: _called(f) & set(functions) for name, f in functions.items()}
    roots = [name for name in functions if not any(name in names for names in called.values())]
    if not functions:
        raise InputError("the module has no Relax function; give one with a function main")
    entry = "main" if "main" in roots or (len(functions) == 1 and "main" in functions) else None
    if entry is None and len(roots) == 1:
        entry = roots[0]
    if entry is None:
        raise InputError(f"the module has the functions {', '.join(functions)}: call the one to compile main")
    needed, todo = {entry}, [entry]
    while todo:
        new = called[todo.pop()] - needed
        needed |= new
        todo += new
    return entry, [name for name in functions if name not in needed]


def _called(func: Any) -> set[str]:
    found: set[str] = set()
    relax.analysis.post_order_visit(
        func, lambda e: found.add(e.name_hint) if isinstance(e, tvm.ir.GlobalVar) else None
    )
    return found


def _only(module: tvm.IRModule, entry: str) -> tvm.IRModule:
    """A module whose function `main` is the entry, with what it calls inside it."""
    kept = {}
    for gv, func in module.functions.items():
        is_entry = gv.name_hint == entry
        kept[gv] = func if is_entry or not isinstance(func, relax.Function) else _private(func)
    out = relax.transform.InlinePrivateFunctions()(tvm.IRModule(kept, attrs=module.attrs))
    gv = out.get_global_var(entry)
    func = out[gv].with_attr("global_symbol", "main")
    others = {g: f for g, f in out.functions.items() if g.name_hint != entry}
    return relax.transform.DeadCodeElimination(["main"])(tvm.IRModule({**others, "main": func}, out.attrs))


def _private(func: Any) -> Any:
    return func.without_attr("global_symbol") if "global_symbol" in (func.attrs or {}) else func


def _bound(module: tvm.IRModule, params: Mapping[str, Any], entry: str) -> tvm.IRModule:
    """The module with its parameters as constants: those given, or those that the importer attached."""
    func = module["main"]
    names = [str(p.name) for p in func.params]
    attrs = dict(func.attrs or {})
    count = int(attrs.get("num_input", len(names)))
    held = params.get(entry, attrs.get("params", ()) if not params else ())
    if isinstance(held, Sequence | tvm.ir.Array) and len(held):
        params = dict(zip(names[count:], held, strict=True))
    unknown = [name for name in params if name not in names]
    if unknown:
        raise InputError(f"parameter {unknown[0]!r}: {entry!r} has none of this name; it has {_few(names)}")
    missing = [name for name in names[count:] if name not in params]
    if missing:
        raise InputError(
            f"{entry!r} has {len(missing)} parameters without a value ({_few(missing)}): give (module, "
            "parameters), or bind them with relax.transform.BindParams"
        )
    if params:
        values = {name: tvm.runtime.tensor(_array(value)) for name, value in params.items()}
        module = relax.transform.BindParams("main", values)(module)
    func = module["main"]
    for name in ("num_input", "params", "tir_var_lower_bound", "tir_var_upper_bound"):
        if name in (func.attrs or {}):
            func = func.without_attr(name)
    others = {g: f for g, f in module.functions.items() if g.name_hint != "main"}
    return tvm.IRModule({**others, "main": func})


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _shapes(module: tvm.IRModule, axes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The static shape of every input."""
    dims: dict[str, list[int | str]] = {}
    for param in module["main"].params:
        name = str(param.name)
        if not isinstance(param.ty, relax.TensorType) or param.ty.shape is None:
            raise UnsupportedError(f"input {name!r} is no tensor of known rank")
        if str(param.ty.dtype) in _FLOAT16:
            raise UnsupportedError(f"input {name!r} is {param.ty.dtype}: only float32 modules are quantized")
        dims[name] = [_dim(name, size) for size in param.ty.shape.values]
    return bound_shapes(dims, axes)


def _dim(name: str, size: Any) -> int | str:
    if isinstance(size, int | tvm.tirx.IntImm):
        return int(size)
    if not isinstance(size, tvm.tirx.Var):
        raise UnsupportedError(f"input {name!r}: the size {size} is an expression; bind its symbols first")
    return str(size.name)


def _static(module: tvm.IRModule, shapes: Mapping[str, tuple[int, ...]], entry: str) -> tvm.IRModule:
    """The module with a number for every symbolic axis."""
    sizes: dict[Any, int] = {}
    for param in module["main"].params:
        for dim, size in zip(param.ty.shape.values, shapes[str(param.name)], strict=True):
            if isinstance(dim, tvm.tirx.Var) and sizes.setdefault(dim, size) != size:
                raise InputError(f"axis {dim.name!r} of {entry!r} can't be {sizes[dim]} and {size}")
    return relax.transform.BindSymbolicVars(sizes, "main")(module) if sizes else module


def _straight(module: tvm.IRModule, entry: str) -> tvm.IRModule:
    """The module in one dataflow block, its constants folded, its dead code gone."""
    steps = [
        relax.transform.ConvertToDataflow(1),
        relax.transform.FoldConstant(),
        relax.transform.DeadCodeElimination(["main"]),
    ]
    module = tvm.ir.transform.Sequential(steps)(module)
    try:
        bindings(module["main"])
    except ValueError as error:
        raise UnsupportedError(f"{entry!r}: {error}") from error
    return module


def _outputs(func: Any) -> tuple[str, ...]:
    """A name for each output: functions have none."""
    ty = func.ret_ty
    count = len(ty.fields) if isinstance(ty, relax.TupleType) else 1
    return ("output",) if count == 1 else tuple(f"output_{i}" for i in range(count))
