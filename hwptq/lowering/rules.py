"""The rules that lower nodes, by the operator of Relax or the composite that they are for.

A rule is registered where its operator is defined, in this package or in anybody's:

    @lowers("nn.max_pool2d", family="max_pool")
    def max_pool(e: Emitter, call: Any, out: Output) -> Any:
        ...returns an expression of the node's result as `out` says, or raises NotInteger with the reason
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import tvm
from tvm import relax

from hwptq.formats import Format
from hwptq.ir.composite import composite_kind, read_composite
from hwptq.ir.dataflow import op_name
from hwptq.ir.operator import Operator
from hwptq.ir.real_operator import real_operator
from hwptq.targets.op_kinds import register_op

from .elementwise import is_elementwise
from .emitter import Emitter
from .operand import NotInteger
from .output import Output

Ends = tuple[float, float]

#: The package whose modules register the rules of ours.
_HOME = "hwptq.operators"


class Lower(Protocol):
    """Emits the operators of a node, a call or a Composite, and returns an expression of its result."""

    def __call__(self, e: Emitter, node: Any, out: Output, /) -> Any: ...


@dataclass(frozen=True)
class Rule:
    """How nodes of one operator are lowered: see lowers."""

    lower: Lower
    family: Callable[[tvm.IRModule, Any], str | None]
    why_not: Callable[[Any], str | None]
    makes: tuple[type[Operator], ...]
    selects: Callable[[Any], bool]
    output_range: Callable[[tvm.IRModule, Any], Ends | None]
    output_format: Callable[[tvm.IRModule, Any], Format | None]
    real_operands: Callable[[tvm.IRModule, Any], Sequence[Any]]


_RULES: dict[str, Rule] = {}


def lowers(
    *names: str,
    family: str | Callable[[tvm.IRModule, Any], str | None],
    makes: tuple[type[Operator], ...] = (),
    why_not: Callable[[Any], str | None] = lambda call: None,
    selects: bool | Callable[[Any], bool] = False,
    output_range: Ends | Callable[[tvm.IRModule, Any], Ends] | None = None,
    output_format: Callable[[tvm.IRModule, Any], Format | None] = lambda mod, call: None,
    real_operands: Callable[[tvm.IRModule, Any], Sequence[Any]] = lambda mod, call: (),
    everywhere: bool = False,
) -> Callable[[Lower], Lower]:
    """Register a rule for Relax operators of these names ("nn.max_pool2d"), or for composites
    ("composite.conv2d"), or for operators of ours on real numbers ("real.recurrent"). Raises ValueError for a
    name that has one.

    family: the name under which descriptors list what computes such nodes, perhaps by module and call; None
    where one can't be quantized. everywhere: descriptors need not list it, see op_kinds.register_op.
    makes: the operators that the rule emits. why_not: why it can't lower a call, None where it can. selects:
    whether results are values of the input, so that both have one scale, perhaps by call. output_range: the
    least and the greatest real value of results, where they are the same for all inputs. output_format: the
    format of the result, where readers do not decide. real_operands: what is read as it is, unrounded.
    """

    def of(mod: tvm.IRModule, call: Any) -> str | None:
        if why_not(call):
            return None
        return family if isinstance(family, str) else family(mod, call)

    def range_of(mod: tvm.IRModule, call: Any) -> Ends | None:
        return output_range(mod, call) if callable(output_range) else output_range

    def selected(call: Any) -> bool:
        return selects(call) if callable(selects) else selects

    def register(lower: Lower) -> Lower:
        if isinstance(family, str):
            register_op(family, everywhere)
        for name in names:
            if name in _RULES:
                raise ValueError(f"there is a rule for {name} already")
            _RULES[name] = Rule(lower, of, why_not, makes, selected, range_of, output_format, real_operands)
        return lower

    return register


def rules() -> dict[str, Rule]:
    """Every rule that is registered, by the name of what it lowers."""
    importlib.import_module(_HOME)
    return dict(_RULES)


def rule_of(mod: tvm.IRModule, value: Any) -> Rule | None:
    """The rule for a node, or None."""
    importlib.import_module(_HOME)
    return _RULES.get(node_kind(mod, value))


def node_kind(mod: tvm.IRModule, value: Any) -> str:
    """What rules are registered for: the name of an operator, "composite." and the kind of a composite; ""
    for anything else."""
    kind, real = composite_kind(mod, value), real_operator(mod, value)
    if real is not None:
        return f"real.{real.kind}"
    return f"composite.{kind}" if kind else op_name(value)


def family_of(mod: tvm.IRModule, value: Any) -> str | None:
    """The name under which descriptors list what computes a float node, or None where nothing does.

    Functions of one tensor, element by element, are tables: "lookup".
    """
    if not isinstance(value, relax.Call) or getattr(value.ty, "dtype", None) != "float32":
        return None
    if is_elementwise(value):
        return "lookup"
    rule = rule_of(mod, value)
    return rule.family(mod, value) if rule else None


def lower_node(e: Emitter, value: Any, out: Output) -> Any:
    """Emit the operators of a node. Raises NotInteger with the reason where there is no exact form."""
    rule = rule_of(e.mod, value)
    if rule is None:
        called = op_name(value) or getattr(getattr(value, "op", None), "name_hint", "call")
        raise NotInteger(f"{called} has no {'float' if out.in_floats else 'integer'} form")
    return rule.lower(e, read_composite(e.mod, value) or value, out)
