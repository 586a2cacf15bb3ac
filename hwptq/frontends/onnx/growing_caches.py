"""Caches that grow, an input of P rows and an output of P + 1 by Concat, become caches of P + 1 rows.

P is the size that the user gives the axis, the last step's; an axis whose size the file fixes is no cache's.
A step then writes its row at its position by Where, and what reads the rows sees those up to there: the
softmax of the others is zero. What the exporter computed from the number of rows, positions and the rows of a
causal mask, follows from the position, which is an input: that of the file, where it has one, else a new one
named `position`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hwptq.errors import UnsupportedError
from hwptq.notices import Warning

from .check_growth import Growth
from .fold_shapes import fold_shapes, static_shapes
from .fused_operators import unfused
from .qdq_form import in_qdq_form
from .rewrites.surroundings import attribute
from .weights.external_weights import array_of

Shapes = dict[str, tuple[int, ...]]
_HIDDEN = np.float32(-3e38)
#: Operands that are sizes, and may depend on the number of rows: the result has another shape then.
_SIZES = {"Reshape": (1,), "Expand": (1,), "ConstantOfShape": (0,), "Tile": (1,), "Slice": (2,)}
_POSITION = "position"
#: What an exporter writes between an integer and the table that it looks up; and a number may be added.
_MOVES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Identity", "Cast")


@dataclass(frozen=True)
class _Cache:
    past: str
    new: str
    present: str  # what Concat gives
    output: str  # of the model, a copy of it
    axis: int


def with_fixed_caches(
    model: onnx.ModelProto, shapes: Shapes
) -> tuple[onnx.ModelProto, Shapes, list[Warning], Growth | None]:
    """The model and the shapes of its inputs, both as they are where no cache grows, or nothing is a token;
    what its user should know, and what its steps can be compared with. Operators of ONNX Runtime, of whose
    results ONNX infers no shapes, are standard nodes in what is changed.

    Raises UnsupportedError where the caches differ in length, or something depends on it in a way that no
    position stands for.
    """
    given, model = model, unfused(model)  # ONNX Runtime's attention joins caches within
    caches = _growing(model.graph, shapes)
    if not caches:
        return given, shapes, [], None
    rows = {shapes[c.past][c.axis] for c in caches}
    if len(rows) > 1:
        raise UnsupportedError(f"caches of {sorted(rows)} rows grow together: give them one length")
    plainly = model
    model, warned = in_qdq_form(model)
    plain = _Fixed(model, shapes, caches, rows.pop())
    if not plain.looked_up():
        return given, shapes, [], None  # a part of a stream, say, before the next one
    _check_others(model.graph, caches)
    fixed = replace(plain, follows=plain.dependent())
    fixed.check()
    named = tuple((c.past, c.output, c.axis) for c in caches)
    growth = Growth(plainly, named, fixed.position or _POSITION, tuple(fixed.masks))
    return fixed.masked(), fixed.shapes, warned, growth


def _growing(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> list[_Cache]:
    made = {out: node for node in graph.node for out in node.output}
    dims = {v.name: v.type.tensor_type.shape.dim for v in graph.input}
    found = []
    for output in graph.output:
        node = made.get(output.name)
        while node is not None and _is_copy(node):
            node = made.get(node.input[0])
        if node is not None and node.op_type == "Concat" and len(node.input) == 2:
            past, new = node.input
            if past in shapes:
                axis = int(attribute(node, "axis")) % len(shapes[past])
                if not dims[past][axis].HasField("dim_value"):
                    found.append(_Cache(past, new, node.output[0], output.name, axis))
    return found


def _is_copy(node: onnx.NodeProto) -> bool:
    """Of a tensor of floats, which are all float32 here."""
    return node.op_type == "Identity" or (
        node.op_type == "Cast" and attribute(node, "to") == TensorProto.FLOAT
    )


def _check_others(graph: onnx.GraphProto, caches: Sequence[_Cache]) -> None:
    """Raise UnsupportedError for an input of floats that grows as caches do, but is none."""
    dims = {v.name: v.type.tensor_type.shape.dim for v in graph.input}
    names = {dims[c.past][c.axis].dim_param for c in caches} - {""}
    known = {c.past for c in caches}
    for value in graph.input:
        symbols = {d.dim_param for d in dims[value.name]}
        if (
            value.type.tensor_type.elem_type == TensorProto.FLOAT
            and value.name not in known
            and names & symbols
        ):
            raise UnsupportedError(
                f"input {value.name!r} is as long as the caches, but no output is it with a row behind: "
                "export the caches alike"
            )


@dataclass(frozen=True)
class _Follows:
    """What is computed from the position: results of Range, by name, with their values at position 0; and by
    their results the Slices of one row, with its number at position 0 and their axis."""

    ranges: Mapping[str, np.ndarray] = field(default_factory=dict)
    slices: Mapping[str, tuple[np.ndarray, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Fixed:
    """The model with caches of rows + 1."""

    model: onnx.ModelProto
    given: Shapes
    caches: Sequence[_Cache]
    rows: int
    follows: _Follows = _Follows()

    @property
    def token(self) -> str:
        """The integer that the largest table is looked up by."""
        return max(self.looked_up())[1]

    def looked_up(self) -> list[tuple[int, str]]:
        """(the size of a table, the input of one integer that its rows are looked up by), whatever moves it
        on the way."""
        graph = self.model.graph
        sizes = {t.name: int(np.prod(t.dims)) for t in graph.initializer}
        fixed = {*sizes, *(n.output[0] for n in graph.node if n.op_type == "Constant")}
        source, found = {name: name for name in self._ones()}, []
        for node in graph.node:
            if node.op_type == "Gather" and node.input[1] in source:
                found.append((sizes.get(node.input[0], 0), source[node.input[1]]))
            moved = [i for i in node.input if i in source]
            others = fixed.issuperset(i for i in node.input if i not in source)
            if moved and (node.op_type in _MOVES or (node.op_type in ("Add", "Sub") and others)):
                source[node.output[0]] = source[moved[0]]
        return found

    def _ones(self) -> list[str]:
        """Inputs of one integer."""
        kinds = {v.name: v.type.tensor_type.elem_type for v in self.model.graph.input}
        whole = (TensorProto.INT64, TensorProto.INT32)
        return [n for n, s in self.given.items() if int(np.prod(s)) == 1 and kinds[n] in whole]

    @property
    def position(self) -> str | None:
        """The input of the file that counts steps."""
        others = [name for name in self._ones() if name != self.token]
        if len(others) > 1:
            raise UnsupportedError(f"inputs {', '.join(others)}: which one counts the steps can't be told")
        return others[0] if others else None

    @property
    def masks(self) -> list[str]:
        """Inputs [1, rows + 1] of integers: which rows are there."""
        kinds = {v.name: v.type.tensor_type.elem_type for v in self.model.graph.input}
        whole = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
        return [n for n, s in self.given.items() if s == (1, self.rows + 1) and kinds[n] in whole]

    @property
    def shapes(self) -> Shapes:
        """Of the inputs of the new model."""
        wide = {c.past: c.axis for c in self.caches}
        found = {
            name: tuple(n + (name in wide and i == wide[name]) for i, n in enumerate(shape))
            for name, shape in self.given.items()
            if name not in self.masks
        }
        return found if self.position else {**found, _POSITION: (1,)}

    def _made(self) -> onnx.ModelProto:
        """The new model, but for the masks of its softmaxes."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        nodes, constants = self._of_position()
        for node in graph.node:
            if node.output[0] not in self.follows.ranges:
                instead, more = self._rewritten(node)
                nodes += instead
                constants |= more
        nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        for part, new in ((graph.input, self._inputs(graph)), (graph.node, nodes)):
            kept = [type(x).FromString(x.SerializeToString()) for x in new]
            del part[:]
            part.extend(kept)
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
        return model

    def _inputs(self, graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
        """Those of the new model: without masks, of the new sizes, with the position."""
        inputs = [v for v in graph.input if v.name not in self.masks]
        for value in inputs:
            for dim, size in zip(value.type.tensor_type.shape.dim, self.shapes[value.name], strict=True):
                dim.dim_value = size
        if self.position is None:
            inputs.append(helper.make_tensor_value_info(_POSITION, TensorProto.INT64, [1]))
        return inputs

    def _of_position(self) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
        """What follows from the position, masks and what does so in the file: nodes, and their constants."""
        kinds = {v.name: v.type.tensor_type.elem_type for v in self.model.graph.input}
        nodes = [
            _node("Reshape", [self.position or _POSITION, "fixed.one"], "fixed.at#0"),
            _node("Cast", ["fixed.at#0"], "fixed.at", to=TensorProto.INT64),
            _node("LessOrEqual", ["fixed.places", "fixed.at"], "fixed.seen"),
        ]
        constants = {"fixed.one": np.array([1]), "fixed.places": np.arange(self.rows + 1)[None]}
        nodes += [_node("Cast", ["fixed.seen"], name, to=kinds[name]) for name in self.masks]
        first = {**self.follows.ranges, **{f"{n}.row": row for n, (row, _) in self.follows.slices.items()}}
        for name, start in first.items():
            constants[f"{name}.start"] = start
            nodes.append(_node("Add", [f"{name}.start", "fixed.at"], name))
        return nodes, constants

    def _rewritten(self, node: onnx.NodeProto) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
        """What stands for a node of the file, and constants: for one that makes a cache longer what writes a
        row of it, for a size of an input a constant alone."""
        cache = next((c for c in self.caches if c.present == node.output[0]), None)
        if cache is not None:
            rank, here = len(self.given[cache.past]), f"{cache.present}.here"
            shape = [self.rows + 1 if i == cache.axis else 1 for i in range(rank)]
            places, chosen = f"{here}.places", [here, cache.new, cache.past]
            writing = [
                _node("Equal", [places, "fixed.at"], here),
                helper.make_node("Where", chosen, [cache.present], node.name),
            ]
            return writing, {places: np.arange(self.rows + 1).reshape(shape)}
        if node.op_type == "Shape" and node.input[0] in self.given:
            return [], {node.output[0]: np.array(self.given[node.input[0]])}
        return [self._row(node)], {}

    def _row(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A Slice of the row that the position says is a Gather."""
        if node.output[0] not in self.follows.slices:
            return node
        _, axis = self.follows.slices[node.output[0]]
        inputs = [node.input[0], f"{node.output[0]}.row"]
        return helper.make_node("Gather", inputs, node.output, node.name, axis=axis)

    def folded(self) -> onnx.ModelProto:
        """The new model without what follows from shapes."""
        return fold_shapes(self._made(), self.shapes)

    def shorter(self) -> _Fixed:
        """The same for caches of a row less."""
        growing = {(c.past, c.axis) for c in self.caches} | {(name, 1) for name in self.masks}
        less = {
            name: tuple(n - ((name, axis) in growing) for axis, n in enumerate(shape))
            for name, shape in self.given.items()
        }
        return replace(self, given=less, rows=self.rows - 1)

    def dependent(self) -> _Follows:
        """Constants of the folded model that are the position and a number: what Range gives, and where a
        Slice of one row begins."""
        folded = self.folded()
        here, there = _constants(folded), _constants(self.shorter().folded())
        shapes = static_shapes(folded)

        def moved(name: str) -> bool:
            a, b = here.get(name), there.get(name)
            return a is not None and b is not None and a.shape == b.shape and np.array_equal(a, b + 1)

        ranges, slices = {}, {}
        for node in self.model.graph.node:
            out = node.output[0]
            if node.op_type == "Range" and moved(out):
                ranges[out] = here[out] - self.rows
            if node.op_type == "Slice" and moved(node.input[1]) and here[node.input[1]].size == 1:
                given = here.get(node.input[3]) if len(node.input) > 3 else None
                axis = 0 if given is None else int(given.item())
                if shapes.get(out, ())[axis : axis + 1 or None] == (1,):
                    slices[out] = here[node.input[1]] - self.rows, axis
        return _Follows(ranges, slices)

    def check(self) -> None:
        """Raise UnsupportedError where a constant that is no size depends on the number of rows."""
        mine, others = self.folded(), _constants(self.shorter().folded())
        own = _constants(mine)
        for node in mine.graph.node:
            for i, name in enumerate(node.input):
                a, b = own.get(name), others.get(name)
                size = i in _SIZES.get(node.op_type, ())
                if a is None or b is None or size or a.shape != b.shape or np.array_equal(a, b):
                    continue
                raise UnsupportedError(
                    f"node {node.name or node.output[0]!r} ({node.op_type}): {name!r} depends on how many "
                    "rows the caches have; give the position as an input"
                )

    def masked(self) -> onnx.ModelProto:
        """The new model: each softmax over the rows of caches sees those up to the position."""
        model = self.folded()
        shapes, total = static_shapes(model), self.rows + 1
        graph, nodes, constants = model.graph, [], {}
        behind = {c.present for c in self.caches}
        for node in graph.node:
            touched = behind & set(node.input)
            if touched and node.op_type != "Softmax":
                behind |= set(node.output)
            last = shapes.get(node.input[0]) if node.op_type == "Softmax" else None
            if touched and last and last[-1] == total and _is_over_last(node, len(last)):
                shown = f"{node.input[0]}.shown"
                constants["fixed.hidden"] = np.array(_HIDDEN)
                nodes.append(_node("Where", ["fixed.seen", node.input[0], "fixed.hidden"], shown))
                node.input[0] = shown
            nodes.append(node)
        kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del graph.node[:]
        graph.node.extend(kept)
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
        return model


def _is_over_last(softmax: onnx.NodeProto, rank: int) -> bool:
    return int(attribute(softmax, "axis", -1)) % rank == rank - 1


def _node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [output], output, **attributes)


def _constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    found = {t.name: array_of(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found
