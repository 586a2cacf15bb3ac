"""SelectKernels: each integer operator becomes calls of the kernels that the target's descriptor names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.tirx import PrimFunc
from tvm_ffi import StructuralKey

from hwptq.formats import holds_codes
from hwptq.ir.dataflow import constant, main_functions, op_name, rewrite, shape_of
from hwptq.ir.provenance import Origin, Part, label_of
from hwptq.ir.real_operator import real_operator
from hwptq.kernels.epilogue import Follower
from hwptq.kernels.layer import Layer
from hwptq.kernels.select import select, selector_of
from hwptq.kernels.wishes import AS_IT_IS
from hwptq.operators.add import Add
from hwptq.operators.clamp import Clamp
from hwptq.operators.quantize import Quantize
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import PLAIN, Layout
from hwptq.tir.vector_unit import THREADS

from .graph.fused_groups import Group, Node, fused_groups, integer_node
from .graph.inlined import inlined
from .graph.layouts import Readings, stored_layouts
from .graph.movement import walk


@tvm.transform.module_pass(opt_level=0, name="hwptq.SelectKernels")
class SelectKernels:
    """Replace the portable code of every integer operator by the target's; constants are packed on the way.

    The results stay the same, bit for bit: only LowerToInteger decides about arithmetic. What stays in float
    is no composite any more, but its operators, which TVM has code for. `threads`: the most that
    share large kernels; the module carries it as its attribute THREADS. `tile_of` says which of its tiles
    a layer's kernel takes, 0 = the one that should be the best. `beside_one`: the module is a prompt, and
    its weights are to lie as those of the step beside it do (see Selector); `tile_of` is that of the step.
    """

    def __init__(
        self, target: Any, threads: int = 1, tile_of: Callable[[Layer], int] = lambda layer: 0,
        beside_one: bool = False,
    ):  # fmt: skip
        self.target, self.threads, self.tile_of, self.beside_one = target, threads, tile_of, beside_one
        self.selector = selector_of(target, threads, beside_one)

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        # one function for steps that are structurally equal; what is portable already stays
        primitive = [(gv, f) for gv, f in mod.functions.items() if isinstance(f, PrimFunc)]
        functions = {StructuralKey(f): gv for gv, f in primitive}  # type: ignore[call-arg]

        groups: dict[Any, Group | None] = {}
        layouts: dict[Any, Layout] = {}
        for _, func in main_functions(mod):
            read = partial(integer_node, mod)
            found = fused_groups(func, read, self._takes_followers, self._makes_images)
            layouts |= stored_layouts(func, partial(self._readings, groups=found))
            groups |= found
        emitter = _Emitter(functions, layouts)

        def visit(r: Any, var: Any, value: Any) -> Any:
            if var in groups:
                group = groups[var]
                if group is None:
                    return None
                layer, name = layer_of(group, layouts), r.origins[group.head.var].label
                tile = self.tile_of(of_one_row(layer) if self.beside_one else layer)
                steps = kernel_steps(layer, name, self.target, self.threads, tile, self.beside_one)
                return emitter.emit(r, steps, group.activations, var)
            if _joins(value) and holds_codes(str(var.ty.dtype)):
                parts = list(value.args[0].fields)
                axis = int(value.attrs.axis) % len(shape_of(var))
                out = _type(var, layouts.get(var, PLAIN))
                step = self.selector.concatenation([_type(t) for t in parts], axis, out)
                return emitter.emit(r, (step,), parts, var)
            real = self._real(mod, var, value)
            if real:
                return emitter.emit(r, real, list(value.args[1].fields), var)
            moved = self._moved(var, value)
            if moved is not None:
                return emitter.emit(r, (moved,), [value.args[0]], var)
            return inlined(mod, r, value)

        out = rewrite(mod, visit)
        return out if self.threads == 1 else out.with_attr(THREADS, self.threads)

    def _takes_followers(self, node: Node) -> bool:
        return self.selector.takes_followers(layer_of(Group(node), {}))

    def _makes_images(self, node: Node) -> bool:
        if not isinstance(node.op, Quantize) or not _may_be_laid_out(node.var):
            return False
        return self.selector.quantizes_images(shape_of(node.activations[0]))

    def _real(self, mod: tvm.IRModule, var: Any, value: Any) -> tuple[Step, ...]:
        """The kernels of an operator on real numbers, where its own code is not for the target."""
        real = real_operator(mod, value)
        return self.selector.real(real, [_type(t) for t in value.args[1].fields], _type(var)) if real else ()

    def _moved(self, var: Any, value: Any) -> Step | None:
        """The kernel of a transpose or slice of int8 that can be vectors, else None."""
        way = walk(value)
        if way is None or not _may_be_laid_out(var):
            return None
        return self.selector.movement(_type(value.args[0]), way.strides, way.first, _type(var))

    def _readings(self, var: Any, value: Any, groups: Mapping[Any, Group | None]) -> Readings | None:
        if _joins(value) and _may_be_laid_out(var):
            pairs = tuple((part, AS_IT_IS) for part in value.args[0].fields)
            return Readings(pairs, lambda layout: layout.padding.empty and layout.rows == 1)
        if var not in groups:
            return None
        group = groups[var]
        if group is None:
            return Readings((), lambda layout: False)
        layer = layer_of(group, {})
        pairs = tuple(zip(group.activations, self.selector.wishes(layer), strict=True))
        over = _own_size(group) if self.threads == 1 else ()  # parts of threads must not meet in memory
        return Readings(pairs, partial(self.selector.writes, layer), over)


def _may_be_laid_out(var: Any) -> bool:
    """Whether layouts, and what moves vectors of them, are about tensors of that dtype."""
    return str(var.ty.dtype) == PLAIN.dtype


def _own_size(group: Group) -> tuple[Any, ...]:
    """The tensors whose values a kernel may replace by those of its result."""
    tensors = (
        group.activations if group.head.op.by_value else group.activations[len(group.head.activations) :]
    )
    kind = shape_of(group.var), str(group.var.ty.dtype)
    return tuple(t for t in tensors if (shape_of(t), str(t.ty.dtype)) == kind)


def _joins(value: Any) -> bool:
    return op_name(value) == "concat"


def layer_of(group: Group, layouts: Mapping[Any, Layout]) -> Layer:
    """A group with its tensors; `layouts` are those of tensors that are not stored plainly."""
    head = group.head
    *types, out = (_type(t, layouts.get(t, PLAIN)) for t in (*group.activations, group.var))
    others = iter(types[len(head.activations) :])
    followers = []
    for number, node in enumerate(group.followers):
        other = next(others) if len(node.activations) == 2 else None
        assert isinstance(node.op, Add | Clamp)
        followers.append(Follower(node.op, _arrays(node), other, second=group.carried(number) == 1))
    return Layer(head.op, tuple(types), _arrays(head), out, tuple(followers))


def of_one_row(layer: Layer) -> Layer:
    """The layer as it is for one row (token)."""

    def single(t: TensorType) -> TensorType:
        return replace(t, shape=(*(1 for _ in t.shape[:-1]), *t.shape[-1:]))

    return replace(layer, activations=tuple(map(single, layer.activations)), out=single(layer.out))


def kernel_steps(
    layer: Layer, name: str, target: Any, threads: int = 1, tile: int = 0, beside_one: bool = False
) -> tuple[Step, ...]:  # fmt: skip
    """The steps by which `target` computes a layer called `name`."""
    try:
        return select(layer, target, threads, tile, beside_one)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _arrays(node: Node) -> tuple[np.ndarray, ...]:
    return tuple(_array(c, node.var) for c in node.constants)


def _array(expr: Any, var: Any) -> np.ndarray:
    value = constant(expr)
    if value is None:
        raise ValueError(f"{label_of(var, None)}: weights, biases and tables must be constants")
    return value


def _type(expr: Any, layout: Layout = PLAIN) -> TensorType:
    return TensorType(shape_of(expr), str(expr.ty.dtype), layout)


class _Emitter:
    """Emits steps. Those that compute the same from the same are emitted once, as is each PrimFunc."""

    def __init__(self, functions: dict[Any, Any], layouts: Mapping[Any, Layout]):
        self.functions, self.layouts = functions, layouts
        self._done: dict[Any, Any] = {}

    def emit(self, r: Any, steps: tuple[Step, ...], activations: list[Any], var: Any) -> Any:
        """The result of `steps`; that of the last one is of the origin of `var`, the part PACKED unless it is
        stored plainly.
        """
        origin = r.origin.with_part(Part.PACKED) if var in self.layouts else r.origin
        results: list[Any] = []
        for step in steps:
            args = [
                a if isinstance(a, np.ndarray) else results[a] if a < 0 else r.get(activations[a])
                for a in step.args
            ]
            results.append(self._call(r, step, args, origin if step is steps[-1] else None))
        return results[-1]

    def _call(self, r: Any, step: Step, args: list[Any], origin: Origin | None) -> Any:
        function = StructuralKey(step.func)  # type: ignore[call-arg]
        if function not in self.functions:
            self.functions[function] = r.add_function(step.func, f"hwptq_{step.name}")
        gv = self.functions[function]
        again = (gv, *args) if all(isinstance(a, relax.Var) for a in args) else None
        if again in self._done:
            return self._done[again]
        arrays = [relax.const(a) if isinstance(a, np.ndarray) else a for a in args]
        stored = step.out.stored
        call = relax.call_tir(gv, arrays, relax.TensorType(stored.shape, stored.dtype))
        result = r.emit(call, origin)
        if again:
            self._done[again] = result
        return result
