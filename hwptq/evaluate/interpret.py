"""Evaluates a Relax module binding by binding: float operators in numpy or TVM, integer ones as defined.

Slow code nobody ships, but it shows every intermediate tensor: calibration observes them, and the integer
graph evaluated here is the reference that emitted code must equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from hwptq.ir.dataflow import (
    Constant,
    arguments,
    bindings,
    composite_name,
    entry_functions,
    only_function,
    op_name,
    reads,
    shape_of,
)
from hwptq.ir.mapped import is_mapped, page_out
from hwptq.ir.operator import ATTRIBUTE, from_json
from hwptq.ir.provenance import Origin, origins
from hwptq.ir.views import view

from .compile_operator import compiled_alone, is_array
from .numpy_operators import prepare

#: Sees a tensor: the name of its function, its origin, its value.
Observe = Callable[[str, Origin, np.ndarray], None]
#: Makes of an observer one that is shown what counts of a sample's tensors.
Watch = Callable[[Mapping[str, np.ndarray], Observe], Observe]

#: Gives what stands for a tensor from there on: its origin, its value.
Instead = Callable[[Origin, np.ndarray], np.ndarray]

#: Gives the value of an expression, from those of the vars that it reads.
Step = Callable[[Mapping[Any, Any]], Any]


@dataclass(frozen=True)
class _Function:
    """A function, its IR read once: that takes longer than many an operator in numpy."""

    name: str
    params: tuple[Any, ...]
    steps: tuple[
        tuple[Any, Step, tuple[Any, ...]], ...
    ]  # var, its value, the vars that nobody reads after it
    result: Step
    origins: Mapping[Any, Origin]

    def __call__(
        self, args: Iterable[Any], observe: Observe | None = None, instead: Instead | None = None
    ) -> Any:
        env = dict(zip(self.params, args, strict=True))
        if observe:
            for param in self.params:
                observe(self.name, self.origins[param], env[param])
        for var, step, dead in self.steps:
            env[var] = step(env)
            if observe and isinstance(env[var], np.ndarray):
                observe(self.name, self.origins[var], env[var])
            if instead and isinstance(env[var], np.ndarray):
                env[var] = instead(self.origins[var], env[var])
            for other in dead:
                del env[other]
        return self.result(env)


class Interpreter:
    """Runs `function` of `mod` (its only one, if not given) on numpy arrays; what is prepared or compiled for
    it is kept between runs.
    """

    def __init__(self, mod: tvm.IRModule, function: str | None = None):
        self.mod = mod
        self.name = function or only_function(mod)
        self.func = mod[self.name]
        self._mapped = is_mapped(self.func)
        self._observe: Observe | None = None
        self._vars: dict[Any, Any] = {}  # one Python object for each var, so that looking it up is quick
        self._steps: dict[Any, Step] = {}
        self._functions: dict[Any, _Function] = {}
        self._compiled: dict[Any, Any] = {}

    def run(
        self,
        inputs: dict[str, np.ndarray],
        observe: Observe | None = None,
        instead: Instead | None = None,
    ) -> list[np.ndarray]:
        """The outputs for `inputs` (by parameter name); `observe` sees every tensor on its way, except inside
        of composites, and `instead` gives what others read of it.
        """
        function = self._function(self.func, self.name)
        args = [inputs[str(p.name)] for p in function.params]
        self._observe = observe
        try:
            out = function(args, observe, instead)
        finally:
            self._observe = None
        return list(out) if isinstance(out, tuple) else [out]

    def evaluate(self, value: Any, env: Mapping[Any, Any]) -> Any:
        """One binding's value, given those of the vars it reads."""
        if value not in self._steps:
            self._steps[value] = self._prepare(value)
        return self._steps[value](env)

    def _function(self, func: Any, name: str) -> _Function:
        if func not in self._functions:
            last, steps = _last_readers(func), []
            for var, value in bindings(func):
                dead = tuple(self._var(s) for s in reads(value) if last[s] == var)
                steps.append((self._var(var), self._prepare(value), dead))
            params = tuple(self._var(p) for p in func.params)
            result, named = self._atom(func.body.body), {self._var(v): o for v, o in origins(func).items()}
            self._functions[func] = _Function(name, params, tuple(steps), result, named)
        return self._functions[func]

    def _var(self, var: Any) -> Any:
        return self._vars.setdefault(var, var)

    def _atom(self, expr: Any) -> Step:
        if isinstance(expr, relax.Var):
            return itemgetter(self._var(expr))
        if isinstance(expr, Constant):
            value = view(expr.value)
            return lambda env: value
        if isinstance(expr, relax.Tuple):
            fields = [self._atom(f) for f in expr.fields]
            return lambda env: tuple(f(env) for f in fields)
        raise ValueError(f"can't evaluate {type(expr).__name__}")

    def _prepare(self, value: Any) -> Step:
        step = self._step(value)
        held = [view(a.value) for a in arguments(value) if isinstance(a, Constant)] if self._mapped else []
        if not held:
            return step

        def paged(env: Mapping[Any, Any]) -> Any:
            result = step(env)
            page_out(*held)
            return result

        return paged

    def _step(self, value: Any) -> Step:
        if isinstance(value, relax.TupleGetItem):
            source, index = self._atom(value.tuple_value), int(value.index)
            return lambda env: source(env)[index]
        if isinstance(value, relax.Function):  # inside one for another code generator
            local = self._function(value, self.name)
            return lambda env: local
        if not isinstance(value, relax.Call):
            return self._atom(value)
        if isinstance(value.op, relax.Var):
            inner, args = self._var(value.op), [self._atom(a) for a in value.args]
            return lambda env: env[inner](a(env) for a in args)
        if isinstance(value.op, tvm.ir.GlobalVar):
            func, args = self.mod[value.op], [self._atom(a) for a in value.args]
            function = self._function(func, str(value.op.name_hint))
            if composite_name(func) is None:
                return lambda env: function((a(env) for a in args), self._observe)
            return lambda env: function(a(env) for a in args)
        name = op_name(value)
        if name == "call_tir":
            return self._call_tir(value)
        evaluate, compiled = prepare(name, value), self._by_tvm(value)
        if evaluate is None:
            return compiled
        tensors = [self._atom(a) for a in value.args if _is_data(a)]

        def step(env: Mapping[Any, Any]) -> Any:
            result = evaluate(*[t(env) for t in tensors])
            return compiled(env) if result is None else _arrays(result)

        return step

    def _call_tir(self, value: Any) -> Step:
        func = self.mod[value.args[0]]
        if not func.attrs or ATTRIBUTE not in func.attrs:
            return self._by_tvm(value)
        op = from_json(str(func.attrs[ATTRIBUTE]))
        args = [self._atom(a) for a in value.args[1].fields]
        return lambda env: np.asarray(op.reference(*[a(env) for a in args]))

    def _by_tvm(self, value: Any) -> Step:
        """One operator that numpy does not offer, compiled for this machine when it is first needed."""
        tensors = [a for a in arguments(value) if isinstance(a, relax.Var) or is_array(a)]
        if set(reads(value)) - set(tensors):  # some are inside tuples
            tensors = reads(value)
        atoms = [self._atom(t) for t in tensors]
        held = {i: t.value for i, t in enumerate(tensors) if isinstance(t, Constant)}  # not copied each time

        def step(env: Mapping[Any, Any]) -> Any:
            if value not in self._compiled:
                self._compiled[value] = compiled_alone(self.mod, value, tensors)
            arrays = [held[i] if i in held else _tensor(atom(env)) for i, atom in enumerate(atoms)]
            result = self._compiled[value](*arrays)
            if isinstance(result, tvm_ffi.Shape):
                return result
            return result.numpy() if hasattr(result, "numpy") else tuple(r.numpy() for r in result)

        return step


def _tensor(array: np.ndarray) -> Any:
    if isinstance(array, tvm_ffi.Shape):
        return array
    return tvm.runtime.tensor(np.asarray(array, order="C"))  # np.ascontiguousarray gives no rank 0


def _arrays(result: Any) -> Any:
    """The same of arrays only: numpy gives numbers where an array of rank 0 is meant."""
    return result if isinstance(result, np.ndarray | tuple | tvm_ffi.Shape) else np.asarray(result)


def _is_data(argument: Any) -> bool:
    """Whether an argument is a tensor or a tuple of tensors; others are attributes."""
    fields = argument.fields if isinstance(argument, relax.Tuple) else [argument]
    return bool(fields) and all(isinstance(f, relax.Var | Constant) for f in fields)


class UnfitSample(ValueError):
    """A sample that lacks inputs of the model, or has them in other shapes."""


def observe_all(
    mod: tvm.IRModule, batches: Iterable[dict[str, np.ndarray]], observe: Observe, watch: Watch | None = None
) -> int:  # fmt: skip
    """Run every function of a module that a batch has the inputs of, those aside that others call; `observe`
    sees all tensors, or what `watch` shows it. Returns the number of batches. Raises UnfitSample for one that
    no function takes.
    """
    interpreters = [Interpreter(mod, function) for function in entry_functions(mod)]
    inputs = [{str(p.name) for p in interpreter.func.params} for interpreter in interpreters]
    number = 0
    for batch in batches:
        fitting = [i for i, names in zip(interpreters, inputs, strict=True) if names <= batch.keys()]
        if not fitting:
            wanted = " or ".join(", ".join(sorted(names)) for names in inputs)
            raise UnfitSample(f"a sample holds {', '.join(batch)}; the model takes {wanted}")
        for interpreter in fitting:
            _check_shapes(interpreter.func, batch)
            interpreter.run(batch, watch(batch, observe) if watch else observe)
        number += 1
    return number


def _check_shapes(func: Any, batch: Mapping[str, np.ndarray]) -> None:
    for param in func.params:
        shape, found = shape_of(param), np.shape(batch[str(param.name)])
        if shape != found:
            raise UnfitSample(f"input {str(param.name)!r} is {list(found)}; the model takes {list(shape)}")


def _last_readers(func: Any) -> dict[Any, Any]:
    """var -> the last var whose binding reads it; the function's result reads its own to the end."""
    last = {source: var for var, value in bindings(func) for source in reads(value)}
    return {**last, **dict.fromkeys(reads(func.body.body))}
