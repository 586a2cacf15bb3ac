"""Einsum as products of matrices, which have an integer form."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from .parts import Parts
from .surroundings import Surroundings, attribute


@dataclass(frozen=True)
class _Term:
    """A tensor, and the label of each of its axes; `value` where it is constant."""

    name: str
    labels: tuple[str, ...]
    value: np.ndarray | None = None


class _Sum:
    """The nodes of one Einsum. sizes: of the axes, by label."""

    def __init__(self, around: Surroundings, node: onnx.NodeProto, sizes: dict[str, int]):
        self.parts, self.sizes = Parts(around, node), sizes

    def reduced(self, term: _Term, labels: Container[str]) -> _Term:
        """Summed over all axes that are not among `labels`."""
        axes = [i for i, label in enumerate(term.labels) if label not in labels]
        kept = tuple(label for label in term.labels if label in labels)
        if not axes:
            return term
        name = self.parts.reduced("ReduceSum", term.name, axes, keepdims=0)
        return _Term(name, kept)

    def ordered(self, term: _Term, labels: Sequence[str], shape: Sequence[int]) -> _Term:
        """With its axes in the order of `labels`, then of another shape."""
        order = [term.labels.index(label) for label in labels]
        if term.value is not None:
            value = term.value.transpose(order).reshape(shape)
            return _Term(self.parts.constant(value, value.dtype), tuple(labels), value)
        name = term.name
        if order != sorted(order):
            name = self.parts.op("Transpose", [name], perm=order)
        if list(shape) != self.shape(labels):
            name = self.parts.reshaped(name, *shape)
        return _Term(name, tuple(labels))

    def shape(self, labels: Sequence[str]) -> list[int]:
        return [self.sizes[label] for label in labels]

    def product(self, a: _Term, b: _Term, wanted: Sequence[str]) -> _Term:
        """The sum of products over the axes that aren't `wanted`, of two terms.

        Axes of both are summed (k) or stay (batch), those of one are m and n: [batch, m, k] · [batch, k, n].
        """
        if a.value is not None and b.value is None:
            a, b = b, a  # weights stand behind
        a, b = (self.reduced(x, {*wanted, *y.labels}) for x, y in ((a, b), (b, a)))
        shared = [label for label in a.labels if label in b.labels]
        batch, k = ([label for label in shared if (label in wanted) == stays] for stays in (True, False))
        m, n = ([i for i in x.labels if i not in y.labels] for x, y in ((a, b), (b, a)))
        of = self.shape
        if not k:
            left = self.ordered(a, [*batch, *m], [*of(batch), *of(m), *[1] * len(n)])
            right = self.ordered(b, [*batch, *n], [*of(batch), *[1] * len(m), *of(n)])
            return _Term(self.parts.op("Mul", [left.name, right.name]), (*batch, *m, *n))
        rows = of(m) if m and not batch and b.value is not None else [prod(of(m))]
        left = self.ordered(a, [*batch, *m, *k], [*of(batch), *rows, prod(of(k))])
        right = self.ordered(b, [*batch, *k, *n], [*of(batch), prod(of(k)), prod(of(n))])
        name = self.parts.op("MatMul", [left.name, right.name])
        if [*rows, prod(of(n))] != [*of(m), *of(n)]:
            name = self.parts.reshaped(name, *of(batch), *of(m), *of(n))
        return _Term(name, (*batch, *m, *n))


def einsum(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Products of two operands at a time, from the left; None where an operand has one label twice, or sizes
    are unknown or broadcast.
    """
    shapes = [around.shape(name) for name in node.input]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    operands, result = _labels(attribute(node, "equation"), [len(shape) for shape in known])
    sizes: dict[str, int] = {}
    for labels, shape in zip(operands, known, strict=True):
        if len(set(labels)) < len(labels):
            return None
        for label, size in zip(labels, shape, strict=True):
            if sizes.setdefault(label, size) != size:
                return None
    made = _Sum(around, node, sizes)
    terms = [_Term(n, of, around.constant(n)) for n, of in zip(node.input, operands, strict=True)]
    while len(terms) > 1:
        a, b, *rest = terms
        wanted = {*result, *(label for term in rest for label in term.labels)}
        terms = [made.product(a, b, sorted(wanted)), *rest]
    last = made.reduced(_Term(terms[0].name, terms[0].labels), result)
    order = [last.labels.index(label) for label in result]
    if order == sorted(order):
        made.parts.op("Identity", [last.name], node.output[0])
    else:
        made.parts.op("Transpose", [last.name], node.output[0], perm=order)
    return made.parts.nodes


def _labels(equation: str, ranks: Sequence[int]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """The labels of the operands and of the result; axes of an ellipsis are counted from behind."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    operands = [_expanded(term, rank) for term, rank in zip(left.split(","), ranks, strict=True)]
    dotted = max((labels for labels in operands), key=lambda labels: sum(i.isdigit() for i in labels))
    rest = [label for label in dotted if label.isdigit()]
    if arrow:
        before, dots, after = right.partition("...")
        return operands, (*before, *(rest if dots else ()), *after)
    every = [label for labels in operands for label in labels]
    return operands, (*rest, *sorted(i for i in set(every) if every.count(i) == 1 and not i.isdigit()))


def _expanded(term: str, rank: int) -> tuple[str, ...]:
    before, dots, after = term.partition("...")
    hidden = rank - len(before) - len(after)
    return (*before, *(str(i) for i in reversed(range(hidden))), *after) if dots else tuple(term)
