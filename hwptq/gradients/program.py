"""A stretch of a float function as a list of steps, forward and backward, on one sample at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tvm
from tvm import relax

from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.dataflow import Constant, bindings, composite_name, op_name
from hwptq.ir.views import view

from .rules import elementwise, movement, products, reductions  # noqa: F401  (they register their rules)
from .rules.rule import Place, rule_of

#: A tensor: its var, or (var of a tuple, place in it); vars inside of composites are new for each call.
Key = Any
#: Values of tensors, and gradients of them.
Values = dict[Key, Any]


#: Operators that others may stand for: which of their operands is the constant matrix.
_MATRIX = {"matmul": 1, "take": 0}


class Substitute(Protocol):
    """What stands for a product with a constant matrix or a look-up in one, and learns from gradients."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Its result for rows x [..., K], or for the places of rows."""

    def backward(self, x: np.ndarray, gradient: np.ndarray) -> np.ndarray | None:
        """The gradient of x if it has one, given that of the result; its own is added to what it holds."""


class NotDifferentiable(ValueError):
    """An operator has no rule; the message names it."""


@dataclass(frozen=True)
class Step:
    """One operator. operands: for each var that the call reads, what tensor it is (or an array)."""

    out: Key
    call: Any
    operands: Mapping[Any, Any]
    inputs: tuple[Any, ...]  # keys or arrays, tuples spread out
    layer: Any = None  # the var of the layer that this product with a matrix is the head of


@dataclass(frozen=True)
class Program:
    """Steps of a function of `mod`, composites opened. layers: vars of layers that others may stand for."""

    interpreter: Interpreter
    steps: tuple[Step, ...]
    names: Mapping[Any, Key]

    @classmethod
    def of(cls, interpreter: Interpreter, pairs: Iterable[tuple[Any, Any]], layers: set[Any]) -> Program:
        """That of bindings. Raises NotDifferentiable where an operator has no rule."""
        reader = _Reader(interpreter.mod, layers)
        for var, value in pairs:
            reader.read(var, value, var if var in layers else None)
        return cls(interpreter, tuple(reader.steps), dict(reader.names))

    def key(self, var: Any) -> Key:
        """The tensor that a var of the function is."""
        return self.names.get(var, var)

    def forward(self, values: Values, substitutes: Mapping[Any, Substitute]) -> None:
        """Add the value of every step to `values`, which holds those from before."""
        for step in self.steps:
            if step.layer in substitutes:
                values[step.out] = substitutes[step.layer].forward(_value(step.inputs[0], values))
                continue
            env = {var: _value(operand, values) for var, operand in step.operands.items()}
            found = values[step.out] = self.interpreter.evaluate(step.call, env)
            if isinstance(found, tuple):
                values.update({(step.out, i): part for i, part in enumerate(found)})

    def backward(
        self,
        values: Values,
        gradients: Values,
        substitutes: Mapping[Any, Substitute],
        leaves: Collection[Key] = (),
    ) -> None:
        """From `gradients` of results to those of the substitutes, one for each layer, and of `leaves`, and
        of all that depends on one. Gradients that have gone on are taken out."""
        moving = self._moving(substitutes, leaves)
        for step in reversed(self.steps):
            gradient = _gradient_of(step, values, gradients)
            if gradient is None or step.out not in moving:
                continue
            if step.layer is not None:
                x = _value(step.inputs[0], values)
                back = [substitutes[step.layer].backward(x, gradient)]
            else:
                needed = [not isinstance(k, np.ndarray) and k in moving for k in step.inputs]
                inputs = [_value(k, values) for k in step.inputs]
                rule = rule_of(op_name(step.call))
                assert rule is not None
                back = list(rule(Place(step.call, inputs, values[step.out], needed), gradient))
            for key, g in zip(step.inputs, back, strict=False):
                if g is not None and not isinstance(key, np.ndarray) and key in moving:
                    gradients[key] = gradients[key] + g if key in gradients else g

    def _moving(self, substitutes: Mapping[Any, Substitute], leaves: Collection[Key]) -> set[Key]:
        """Tensors that depend on a substitute or a leaf."""
        found: set[Key] = set(leaves)
        for step in self.steps:
            if step.layer in substitutes or any(
                not isinstance(k, np.ndarray) and k in found for k in step.inputs
            ):
                found.add(step.out)
                parts = getattr(step.call.ty, "fields", ())
                found |= {(step.out, i) for i in range(len(parts))}
        return found


def _gradient_of(step: Step, values: Values, gradients: Values) -> Any:
    found = values[step.out]
    if not isinstance(found, tuple):
        return gradients.pop(step.out, None)
    parts = [gradients.pop((step.out, i), None) for i in range(len(found))]
    return None if all(part is None for part in parts) else parts


def _value(key: Any, values: Values) -> Any:
    return key if isinstance(key, np.ndarray) else values[key]


class _Reader:
    """Opens composites; gives each tensor a key."""

    def __init__(self, mod: tvm.IRModule, layers: set[Any]):
        self.mod, self.layers = mod, layers
        self.steps: list[Step] = []
        self.names: dict[Any, Any] = {}

    def read(
        self, var: Any, value: Any, layer: Any, names: dict[Any, Any] | None = None, at: Any = ()
    ) -> None:
        """One binding; names: of the vars of the function that it stands in, at: the calls around it."""
        names = self.names if names is None else names
        key = (*at, var) if at else var

        def named(expr: Any) -> Any:
            if isinstance(expr, Constant):
                return view(expr.value)
            return names.get(expr, (*at, expr) if at else expr)

        if isinstance(value, relax.Var | Constant):
            names[var] = named(value)
        elif isinstance(value, relax.Tuple):
            names[var] = tuple(map(named, value.fields))
        elif isinstance(value, relax.TupleGetItem):
            source, index = named(value.tuple_value), int(value.index)
            names[var] = source[index] if isinstance(value.tuple_value, relax.Tuple) else (source, index)
        elif isinstance(value.op, tvm.ir.GlobalVar) and composite_name(self.mod[value.op]) is not None:
            func = self.mod[value.op]
            inner: dict[Any, Any] = dict(zip(func.params, map(named, value.args), strict=True))
            for local, expression in bindings(func):
                self.read(local, expression, layer, inner, key if isinstance(key, tuple) else (key,))
            names[var] = inner.get(func.body.body, (key, func.body.body))
        else:
            self._step(key, value, named, layer)
            names[var] = key

    def _step(self, key: Key, call: Any, named: Callable[[Any], Any], layer: Any) -> None:
        name = op_name(call)
        spread: list[Any] = []
        operands: dict[Any, Any] = {}
        for arg in call.args:
            for expr in arg.fields if isinstance(arg, relax.Tuple) else [arg]:
                if isinstance(expr, relax.Var | Constant):
                    spread.append(named(expr))
                if isinstance(expr, relax.Var):
                    operands[expr] = named(expr)
        matrix = _MATRIX.get(name) if layer is not None else None
        if matrix is not None and isinstance(spread[matrix], np.ndarray):
            self.steps.append(Step(key, call, operands, (spread[1 - matrix],), layer))
        elif rule_of(name) is not None:
            self.steps.append(Step(key, call, operands, tuple(spread)))
        else:
            raise NotDifferentiable(f"{name or 'a function'} has no derivative")
