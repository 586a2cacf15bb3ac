"""Where a binding comes from: the node of the user's file, which of its results, and what part it plays.

The origin is the span of the expression that a var is bound to, or of a parameter. TVM's own passes keep
spans, saving keeps them, and comparing modules ignores them; names of vars are for human readers only. A
binding without an origin, as in a module that another program made, has that of its var's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from itertools import count
from typing import Any

import tvm
from tvm import relax

_MARK = "hwptq.origin:"  # begins the source name of a span of ours


class Part(Enum):
    """What a binding is of its node; the value ends the name of a var, for those who read the IR."""

    RESULT = ""
    WEIGHT = "w"
    CLIPPED = "clip"  # to the steps of a format that is narrower than what holds it
    CODES = "q"  # quantized
    REAL = "dq"  # dequantized again
    IMAGE = "nhwc"  # codes of an image, channels last
    UNCLAMPED = "unclamped"  # codes before the clamp that gives the result
    SUMS = "sums"  # of a layer, before the scale of their row
    PACKED = "packed"  # codes as the kernels behind it want them


@dataclass(frozen=True)
class Origin:
    """node: its name as in the user's file. output: which of the node's outputs, the first is 0. step: 0 for
    the output itself, else the number of a step on the way to it. weights_of: the label of the layer whose
    weights it holds, where that is another: an addition may be computed together with the layer before it.
    """

    node: str
    output: int = 0
    step: int = 0
    part: Part = Part.RESULT
    weights_of: str = field(default="", compare=False)

    def with_part(self, part: Part) -> Origin:
        """Another part of the same."""
        return replace(self, part=part)

    @property
    def label(self) -> str:
        """The node and what of it, but for the part: what tables, statistics and reports go by. It is the
        name of the node for its first output, and belongs to one tensor of a function.
        """
        output = f":{self.output}" if self.output else ""
        return f"{self.node}{output}{f'#{self.step}' if self.step else ''}"

    @property
    def layer(self) -> str:
        """The label of the layer whose weights it holds, if it holds any."""
        return self.weights_of or self.label

    @property
    def hint(self) -> str:
        """A name for a var, for those who read the IR."""
        name = f"{self.label}_{self.part.value}" if self.part.value else self.label
        return f"_{name}" if name[:1].isdigit() else name

    def unless(self, taken: Callable[[Origin], bool]) -> Origin:
        """This origin, or that of the first step that is not taken."""
        steps = (replace(self, step=step) for step in count(self.step))
        return next(origin for origin in steps if not taken(origin))


def origin_of(expr: Any) -> Origin | None:
    """The origin that an expression carries, or None."""
    span = getattr(expr, "span", None)
    text = "" if span is None else str(span.source_name.name)
    return _decoded(text) if text.startswith(_MARK) else None


def with_origin(expr: Any, origin: Origin | None) -> Any:
    """The same operation, of `origin`; a var or a constant, which is bound elsewhere, as it is."""
    if origin is None:
        return expr
    if isinstance(expr, relax.Call):
        return relax.Call(expr.op, expr.args, expr.attrs, expr.ty_args, _span(origin))
    if isinstance(expr, relax.TupleGetItem):
        return relax.TupleGetItem(expr.tuple_value, expr.index, _span(origin))
    return expr


def label_of(var: Any, value: Any) -> str:
    """How a message calls a binding: by the label of its origin."""
    return (origin_of(value) or Origin(str(var.name))).label


def origins(func: Any) -> dict[Any, Origin]:
    """The origin of every parameter and every binding of a function, by var. No two of the same part have one
    label: a step is counted up where they would, as in a function that another one was inlined into twice.
    """
    bound = [(b.var, b.value) for block in func.body.blocks for b in block.bindings if hasattr(b, "value")]
    given = {var: origin_of(value) for var, value in bound if not isinstance(value, relax.Var)}
    given = {**{p: origin_of(p) for p in func.params}, **given}
    names = {var: Origin(str(var.name)) for var in [*func.params, *(var for var, _ in bound)]}
    found: dict[Any, Origin] = {}
    taken: set[tuple[str, Part]] = set()
    for var, origin in [*given.items(), *names.items()]:
        if origin is not None and var not in found:
            found[var] = origin.unless(lambda o: (o.label, o.part) in taken)
            taken.add((found[var].label, found[var].part))
    return {var: found[var] for var in names}


def _span(origin: Origin) -> Any:
    values = [origin.node, origin.output, origin.step, origin.part.name, origin.weights_of]
    return tvm.ir.Span(tvm.ir.SourceName(_MARK + json.dumps(values)), 0, 0, 0, 0)


@lru_cache(maxsize=2**16)
def _decoded(text: str) -> Origin:
    node, output, step, part, weights_of = json.loads(text.removeprefix(_MARK))
    return Origin(node, output, step, Part[part], weights_of)
