"""What a quantized graph is made of: operators as frozen dataclasses, each with its meaning and its code.

One description serves everybody: its numpy reference defines the values, its portable code and the kernel
templates compute the same, bit for bit, and the graph carries it (as JSON, in an attribute of the PrimFunc),
so a graph made for one device gives the same values on any other. Images are NHWC.

A subclass with a `kind` is registered where it is defined, in this package or in anybody's.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any, ClassVar

import numpy as np
import tvm

from hwptq.tir.builder import ELEMENT_BY_ELEMENT, OVERLAYS, TEMPLATE, primfunc
from hwptq.tir.kernel import TensorType, overlaid
from hwptq.tir.layout import PLAIN
from hwptq.tir.vector_unit import SCALAR, VectorUnit

from .dataflow import op_name

#: The attribute of a PrimFunc that holds the operator it implements.
ATTRIBUTE = "hwptq.op"
#: The package whose modules define the operators of ours.
_HOME = "hwptq.operators"
_BY_KIND: dict[str, type[Operator]] = {}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Hiding:
    """What an operator takes no notice of, where a mask hides it.

    mask: the activation (its number) whose last axis hides positions, where it is not 0. of: the activations,
    and their axes from the end, whose values at a hidden position change nothing, as long as one is shown.
    zero: the code that the result has there, on its last axis; None = it has no such axis.
    """

    mask: int
    of: Mapping[int, int]
    zero: int | None = None


@dataclass(frozen=True)
class Contraction:
    """Products of two activations are summed along an axis of each, from the end; one of them is 0 where the
    activation has the code in `zeros`."""

    axes: tuple[int, int]
    zeros: tuple[int, int]


@dataclass(frozen=True)
class Operator:
    """The base of all operators; a subclass says in its docstring which tensors it takes, activations first.

    kind: its name, one of all. family: the name under which a descriptor lists what computes it; its kind, if
    neither it nor a base says so. without_rule: what it is emitted for, if no rule emits it for a node.
    by_value: a value of the result depends on the values of the same place only, of each activation (one that
    broadcasts, on others). in_float: no codes are multiplied or moved, so reports list it as left in float.
    reads_layouts, writes_layouts: its portable code takes its activation in any
    layout in rows, writes its result so.
    """

    kind: ClassVar[str]
    family: ClassVar[str]
    without_rule: ClassVar[str] = ""
    by_value: ClassVar[bool] = False
    in_float: ClassVar[bool] = False
    reads_layouts: ClassVar[bool] = False
    writes_layouts: ClassVar[bool] = False
    #: The value on arrays, in the order of the docstring.
    reference: ClassVar[Callable[..., np.ndarray]]

    def __init_subclass__(cls) -> None:
        kind = cls.__dict__.get("kind")
        if kind is None:  # a base of several operators
            return
        known = _BY_KIND.setdefault(kind, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(
                f"{cls.__qualname__} and {known.__qualname__} are both operators of kind {kind!r}"
            )
        _BY_KIND[kind] = cls  # a decorator such as dataclass(slots=True) makes the class anew
        if not hasattr(cls, "family"):
            cls.family = kind

    @property
    def activations(self) -> int:
        """How many of its tensors, the first ones, are activations; the others are constants."""
        return 1

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Multiply-accumulates, by the shapes of its tensors and of its result."""
        return 0

    def rule(self, constants: Sequence[np.ndarray]) -> str:
        """The name under which a descriptor lists a kernel for it."""
        return self.family

    def of_rows(self, rows: range, inputs: Sequence[Shape]) -> tuple[Operator, list[range]] | None:
        """What computes some rows of the result, an image [N,H,W,C], from rows of the activations, and which.

        `inputs` are the shapes of all its tensors. None where a row depends on all of them.
        """
        images = inputs[: self.activations]
        if not self.by_value or any(len(shape) != 4 for shape in images):
            return None
        return self, [rows if shape[1] > 1 else range(1) for shape in images]

    def runs_along(self, axis: int, inputs: Sequence[Shape]) -> tuple[int | None, ...] | None:
        """The axis of each activation that runs along with `axis` of the result, one value with one value,
        and None for one that is read whole; None where nothing does.

        Axes are counted from the end, -1 is the last; one beyond those of the result is a new one in front.
        """
        return (axis,) * self.activations if self.by_value else None

    @property
    def hides(self) -> Hiding | None:
        """What is hidden from the result by one of the activations, if anything is."""
        return None

    @property
    def contraction(self) -> Contraction | None:
        """Along which axes two activations are multiplied and summed, if they are."""
        return None

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        """What emits code for any device from its tensors and the result, as Flat. `unit` makes the vectors
        explicit. Raises ValueError for shapes that it does not take.
        """
        raise NotImplementedError(f"{self.kind} has no portable code")

    def element_by_element(self, unit: VectorUnit) -> bool:
        """Whether its portable code computes one element at a time."""
        return unit.lanes == 1

    def primfunc(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit = SCALAR
    ) -> tvm.tirx.PrimFunc:
        """The PrimFunc (inputs…, out) of its portable code; `inputs` are all its tensors.

        It carries the operator as its attribute if its result is plain. Raises ValueError for shapes that the
        operator does not take.
        """
        attributes = {TEMPLATE: "portable"}
        if out.layout == PLAIN:
            attributes[ATTRIBUTE] = to_json(self)
        if self.element_by_element(unit):
            attributes[ELEMENT_BY_ELEMENT] = "yes"
        if self.by_value and (unit.lanes == 1 or (out.shape[-1:] and out.shape[-1] % unit.lanes == 0)):
            attributes[OVERLAYS] = overlaid([*inputs, out], range(self.activations))  # vectors don't overlap
        return primfunc([*inputs, out], attributes, self.portable(inputs, out, unit))


def along_rows(axis: int, activations: int) -> tuple[int | None, ...] | None:
    """Operator.runs_along of one that works row by row of the last axis."""
    return None if axis == -1 else (axis,) * activations


class WeightedOperator(Operator):
    """An operator whose first constant is a weight, its output channels first: [O, ...]."""

    @property
    def grouped(self) -> bool:
        """Whether output channels see only a part of the input channels."""
        return False

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """For each value of the result one product with each weight of its channel."""
        return prod(out) * prod(inputs[self.activations][1:])


def operators() -> dict[str, type[Operator]]:
    """Every operator that is defined, by its kind."""
    importlib.import_module(_HOME)
    return dict(_BY_KIND)


def to_json(op: Operator) -> str:
    """The operator as a JSON object: its `kind` and its fields."""
    return json.dumps({"kind": op.kind, **asdict(op)})


def from_json(text: str) -> Operator:
    """The inverse of to_json. Raises ValueError for an unknown kind or missing fields."""
    values = json.loads(text)
    kind = values.pop("kind", None)
    cls = _BY_KIND.get(kind) or operators().get(kind)
    if cls is None:
        raise ValueError(f"unknown operator {kind!r}")
    names = {f.name for f in fields(cls)}
    if set(values) != names:
        raise ValueError(f"{kind}: fields {sorted(values)} instead of {sorted(names)}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def integer_operator(mod: tvm.IRModule, value: Any) -> Operator | None:
    """The operator that a call_tir stands for, or None."""
    if op_name(value) != "call_tir":
        return None
    attrs = mod[value.args[0]].attrs
    return from_json(str(attrs[ATTRIBUTE])) if attrs and ATTRIBUTE in attrs else None


def kernel_name(value: Any) -> str:
    """The name of the PrimFunc that a call_tir calls, or "" for anything else."""
    return str(value.args[0].name_hint) if op_name(value) == "call_tir" else ""
