"""Which operators of an integer graph one kernel computes: a layer, and what follows it elementwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import tvm

from hwptq.ir.dataflow import bindings, op_name, shape_of, users
from hwptq.ir.movement import order_of_axes
from hwptq.ir.operator import Operator, integer_operator
from hwptq.operators.add import Add
from hwptq.operators.clamp import Clamp


@dataclass(frozen=True)
class Node:
    """An integer operator of the graph: its result, activations and constants."""

    var: Any
    op: Operator
    activations: tuple[Any, ...]
    constants: tuple[Any, ...]


def integer_node(mod: tvm.IRModule, var: Any, value: Any) -> Node | None:
    """The operator of a binding with its tensors, or None."""
    op = integer_operator(mod, value)
    if op is None:
        return None
    args, n = tuple(value.args[1].fields), op.activations
    return Node(var, op, args[:n], args[n:])


@dataclass(frozen=True)
class Group:
    """A node, and the followers that its kernel computes too; each reads the result of the one before it."""

    head: Node
    followers: tuple[Node, ...] = ()

    @property
    def var(self) -> Any:
        """The result."""
        return (self.followers or (self.head,))[-1].var

    def carried(self, number: int) -> int:
        """Which activation of follower `number` is the result of the node before it."""
        before = self.followers[number - 1] if number else self.head
        return self.followers[number].activations.index(before.var)

    @property
    def activations(self) -> list[Any]:
        """Those of the head, then the other operand of each follower that has one."""
        others = [
            tensor
            for number, node in enumerate(self.followers)
            for i, tensor in enumerate(node.activations)
            if i != self.carried(number)
        ]
        return [*self.head.activations, *others]


def fused_groups(
    func: Any, node_of: Callable[[Any, Any], Node | None], fuses: Callable[[Node], bool],
    makes_images: Callable[[Node], bool],
) -> dict[Any, Group | None]:  # fmt: skip
    """For the var of each integer node its group, by the last var of it; None where a later one holds it.

    `fuses` says whether the kernel of a layer can take followers; `makes_images`, whether that of a Quantize
    of [N,C,H,W] can write [N,H,W,C].
    """
    readers = users(func)
    groups: dict[Any, Group | None] = {}
    images = set()  # whose axes have been moved: not a second time
    for var, value in bindings(func):
        node = node_of(var, value)
        if node is None:
            source = _source_of_image(value)
            group = groups.get(source)
            fresh = group is not None and source not in images and readers[source] == [var]
            if group is not None and fresh and makes_images(group.head):
                images.add(var)
                groups[var], groups[source] = Group(replace(group.head, var=var)), None
            continue
        groups[var] = Group(node)
        for before in reversed(list(groups)):  # the later operand of an Add: the other one is ready then
            group = groups[before]
            if group is None or before not in node.activations or readers[before] != [var]:
                continue
            if _follows(node, before) and fuses(group.head):
                groups[var] = Group(group.head, (*group.followers, node))
                groups[before] = None
                break
    return groups


def _source_of_image(value: Any) -> Any:
    """The tensor [N,C,H,W] that `value` makes [N,H,W,C]; None for other values."""
    moves = op_name(value) == "permute_dims" and order_of_axes(value) == (0, 2, 3, 1)
    return value.args[0] if moves else None


def _follows(node: Node, before: Any) -> bool:
    """Whether `node` computes each element from that of `before`, and of another tensor of its shape; all
    of one dtype.
    """
    if len({str(t.ty.dtype) for t in (*node.activations, node.var)}) > 1:
        return False
    if isinstance(node.op, Clamp):
        return True
    if not isinstance(node.op, Add) or len(set(node.activations)) != 2:
        return False
    return all(shape_of(tensor) == shape_of(before) for tensor in node.activations)
