"""The ONNX graph that is being written: its nodes and initializers, and what each Relax var is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tvm import relax

from hwptq.ir.dataflow import constant, shape_of

#: (array, name) -> a tensor that says what it holds, or where that lies.
Store = Callable[[np.ndarray, str], onnx.TensorProto]


class NotExportable(ValueError):
    """An operator that has no ONNX form here; the message names it."""


class Writer:
    """Nodes and initializers so far, and the ONNX name of every Relax var. store: what makes initializers."""

    def __init__(self, store: Store = numpy_helper.from_array) -> None:
        self._store = store
        self.names: dict[Any, Any] = {}  # Var -> name, or a list of names for a tuple
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}  # number of a name that was wanted

    def fresh(self, wanted: str, exact: bool = False) -> str:
        """An unused name like `wanted`; that very one if `exact`, and another tensor has to give way."""
        name, k = wanted, self._last.get(wanted, 0)
        while name in self._taken:
            k += 1
            name = f"{wanted}_{k}"
        self._last[wanted] = k
        if exact and name != wanted:
            self._rename(wanted, name)
            name = wanted
        self._taken |= {name, wanted}
        return name

    def _rename(self, old: str, new: str) -> None:
        self._taken.add(new)
        for node in self.nodes:
            node.input[:] = [new if n == old else n for n in node.input]
            node.output[:] = [new if n == old else n for n in node.output]
            node.name = new if node.name == old else node.name
        for var, name in self.names.items():
            self.names[var] = _renamed(name, old, new)

    def name(self, expr: Any) -> Any:
        """The ONNX name of an expression; constants become initializers."""
        array = constant(expr)
        if array is not None:
            return self.tensor(array)
        if isinstance(expr, relax.Tuple):
            return [self.name(field) for field in expr.fields]
        if isinstance(expr, relax.TupleGetItem):
            return self.name(expr.tuple_value)[expr.index]
        return self.names[expr]

    def maker(self, name: str) -> str:
        """The operator of the node that gives a tensor; "" where none does."""
        return next((node.op_type for node in reversed(self.nodes) if name in node.output), "")

    def tensor(self, array: Any, hint: str = "const") -> str:
        """A new initializer."""
        name = self.fresh(hint)
        self.initializers.append(self._store(np.asarray(array, order="C"), name))
        return name

    def node(
        self, op: str, inputs: Sequence[str], output: str | Sequence[str] = "", **attributes: Any
    ) -> Any:
        """A new node; returns its output."""
        output = output or self.fresh(op.lower())
        outputs = [output] if isinstance(output, str) else list(output)
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=outputs[0], **attributes))
        return output


#: (writer, call, the name of its result) -> that name, or a list of them for a tuple; adds the nodes.
Converter = Callable[[Writer, Any, str], Any]


def tensor_type(expr: Any) -> tuple[int, tuple[int, ...]]:
    return helper.np_dtype_to_tensor_dtype(np.dtype(str(expr.ty.dtype))), shape_of(expr)


def ints(values: Any) -> list[int]:
    return [int(v) for v in values]


def _renamed(name: Any, old: str, new: str) -> Any:
    """A name, or a list of names, with one of them changed."""
    return [_renamed(n, old, new) for n in name] if isinstance(name, list) else new if name == old else name
