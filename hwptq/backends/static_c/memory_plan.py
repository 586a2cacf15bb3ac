"""A lowered Relax module as a straight list of kernel calls over one static arena of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax, s_tir, tirx
from tvm_ffi import StructuralKey

from hwptq.backends.program import State, Stay, Tensor
from hwptq.backends.write_caches import WriteCachesInPlace
from hwptq.ir.caches import caches_of
from hwptq.ir.dataflow import bindings, constant, shape_of
from hwptq.ir.provenance import label_of
from hwptq.tir.builder import CYCLES, OVERLAYS
from hwptq.tir.vector_unit import THREADS

from .arena import Life, centred, least_bytes, packed, total_bytes
from .constants import Constants, Laid

_ALLOCATION = "relax.builtin.alloc_tensor"


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: `kind` input | output | arena | weights, with its index or its byte offset.

    While a plan is made, "tensor" and the index of one that will lie in the arena.
    """

    kind: str
    at: int


@dataclass(frozen=True)
class Call:
    """One kernel call.

    over: the parameter of the function whose place the result takes, so that there is no argument for it.
    """

    function: str
    args: tuple[Place, ...]
    cycles: int = 0  # that the kernel takes about, if threads can share all of it; else 0
    over: int | None = None
    renamed: str = ""  # where another function has its name

    @property
    def symbol(self) -> str:
        """The name of what is called."""
        return self.renamed or (self.function if self.over is None else f"{self.function}_over_{self.over}")


@dataclass(frozen=True)
class PromptPlan:
    """What of a plan is a prompt's own; its outputs, weights and arena are those of the step."""

    inputs: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    copies: tuple[tuple[Place, Place, int], ...]


@dataclass(frozen=True)
class MemoryPlan:
    """Everything a runtime-free program needs beside the kernels."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    copies: tuple[tuple[Place, Place, int], ...]  # (from, to output or cache, bytes) after the calls
    arena_bytes: int  # of caches, which come first, and activations
    weights: Constants
    functions: dict[str, Any]  # PrimFuncs by symbol
    threads: int = 1  # that can share a kernel
    stays: tuple[Stay, ...] = ()  # of the tensors of the arena
    least_bytes: int = 0  # of the arena at its fullest call
    state: State | None = None  # of a step that has caches
    prompt: PromptPlan | None = None  # of what reads several tokens at once


def plan_memory(
    mod: tvm.IRModule, output_names: tuple[str, ...], alignment: int, prompt: tvm.IRModule | None = None
) -> MemoryPlan:
    """Plan `main` of a module of call_tir and data movement, and of that of its prompt, if there is one.

    Raises ValueError for what needs a runtime.
    """
    weights = Laid(alignment)
    plan = _Planner(_planned(mod), output_names, alignment, weights).plan()
    if prompt is not None:
        plan = joined(plan, _Planner(_planned(prompt), output_names, alignment, weights).plan())
    return replace(plan, weights=weights.constants)


def _planned(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with calls of kernels alone, on memory that is allocated."""
    return tvm.ir.transform.Sequential(
        [
            WriteCachesInPlace(),
            relax.transform.LegalizeOps(),
            relax.transform.RewriteDataflowReshape(),  # what only changes the shape copies nothing
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
        ]
    )(mod)


def shared_cycles(func: tirx.PrimFunc) -> int:
    """The CYCLES of a kernel that is one parallel loop; 0 where there is none, or anything outside of it."""
    body = func.body
    while not isinstance(body, tirx.For):
        if isinstance(body, tirx.SeqStmt):
            steps = [s for s in body if not isinstance(s, tirx.DeclBuffer)]
            if len(steps) != 1:
                return 0
            body = steps[0]
        elif isinstance(body, s_tir.SBlockRealize):
            body = body.block.body
        else:
            return 0
    return int(body.annotations.get(CYCLES, 0)) if body.kind == tirx.ForKind.PARALLEL else 0


class _Planner:
    """Plans one function. plan() leaves out the weights, which others may share."""

    def __init__(
        self, mod: tvm.IRModule, output_names: tuple[str, ...], alignment: int, weights: Laid
    ):  # fmt: skip
        self.mod, self.alignment, self.output_names, self.weights = mod, alignment, output_names, weights
        self.func = mod["main"]
        self.caches = caches_of(self.func)
        held = self.caches.inputs if self.caches else {}
        self.fed = [p for i, p in enumerate(self.func.params) if i not in held]
        self.places: dict[Any, Any] = {p: Place("input", i) for i, p in enumerate(self.fed)}
        self.threads = int((mod.attrs or {}).get(THREADS, 1))
        self.sizes: list[int] = []  # of the tensors
        self.calls: list[Call] = []
        self.first = 0  # byte of the arena behind the caches
        for i in held:
            past = self.func.params[i]
            self.places[past] = Place("arena", self.first)
            self.first += -(-_nbytes(past) // alignment) * alignment
        self.state = self._state(list(held)) if self.caches else None

    def _state(self, held: list[int]) -> State:
        """What the arena begins with."""
        assert self.caches
        params, position = self.func.params, self.caches.position
        fed = None if position is None else self.fed.index(params[position])
        return State(self.first, tuple(_tensor(params[i]) for i in held), fed, self.caches.context)

    def plan(self) -> MemoryPlan:
        for var, value in bindings(self.func):
            call = self._bind(var, value)
            if call is not None:
                self.calls.append(call)
        result = self.func.body.body
        place = self._place(result)
        results = place if isinstance(place, tuple) else (place,)
        types = result.ty.fields if isinstance(place, tuple) else [result.ty]
        caches = self.caches.outputs if self.caches else {}
        given = [(i, t) for i, t in enumerate(types) if i not in caches]
        outputs = tuple(
            Tensor(name, tuple(int(d) for d in t.shape.values), str(t.dtype))
            for name, (_, t) in zip(self.output_names, given, strict=True)
        )
        moved, copies = _outputs([results[i] for i, _ in given], outputs)
        copies += self._kept(results, moved)
        calls = [replace(c, args=tuple(moved.get(a, a) for a in c.args)) for c in self.calls]
        functions = {gv.name_hint: f for gv, f in self.mod.functions.items() if isinstance(f, tirx.PrimFunc)}
        tensors = _Tensors(self.sizes, calls, copies)
        if self.threads == 1:
            calls = tensors.overlaid(calls, functions)
        offsets, arena, least = tensors.placed(self.first, self.alignment, self.threads)
        return MemoryPlan(
            tuple(map(_tensor, self.fed)),
            outputs,
            tuple(replace(c, args=tuple(_resolved(a, offsets) for a in c.args)) for c in calls),
            tuple((_resolved(source, offsets), to, nbytes) for source, to, nbytes in copies),
            arena,
            Constants(),
            _called(calls, functions),
            self.threads,
            tensors.stays(offsets),
            least,
            self.state,
        )

    def _kept(self, results: Any, moved: dict[Place, Place]) -> tuple[Any, ...]:
        """Copies of what caches will hold, where it is not written there."""
        pairs = self.caches.pairs if self.caches else ()
        found = [(self.func.params[cache.input], results[cache.output]) for cache in pairs]
        return tuple(
            (moved.get(place, place), self.places[past], _nbytes(past))
            for past, place in found
            if place != self.places[past]
        )

    def _bind(self, var: Any, value: Any) -> Call | None:
        if not isinstance(value, relax.Call):
            self.places[var] = self._place(value)
            return None
        if isinstance(value.op, tvm.ir.GlobalVar):
            args = tuple(self._place(a) for a in value.args)
            return Call(value.op.name_hint, args, shared_cycles(self.mod[value.op]))
        name = str(value.op.name)
        if name == _ALLOCATION:
            self.places[var] = Place("tensor", len(self.sizes))
            self.sizes.append(_nbytes(var))
        elif name == "relax.reshape":  # of a tensor in place
            self.places[var] = self._place(value.args[0])
        else:
            raise ValueError(f"node {label_of(var, value)}: {name} can't be computed without the TVM runtime")
        return None

    def _place(self, expr: Any) -> Any:
        array = constant(expr)
        if array is not None:
            return Place("weights", self.weights.offset(array))
        if isinstance(expr, relax.Tuple):
            return tuple(self._place(f) for f in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self._place(expr.tuple_value)[expr.index]
        return self.places[expr]


def joined(step: MemoryPlan, prompt: MemoryPlan) -> MemoryPlan:
    """The plan of a step with that of its prompt. Functions of the prompt that differ from one of the same
    name get another."""
    functions, names = dict(step.functions), dict[str, str]()
    for name, func in prompt.functions.items():
        new, k = name, 0
        while new in functions and not _are_equal(functions[new], func):
            k += 1
            new = f"{name}_p{k}"
        functions[new], names[name] = func, new
    own = PromptPlan(
        prompt.inputs,
        tuple(replace(call, renamed=names[call.symbol]) for call in prompt.calls),
        prompt.copies,
    )
    arena = max(step.arena_bytes, prompt.arena_bytes)
    least = max(step.least_bytes, prompt.least_bytes)
    return replace(step, functions=functions, arena_bytes=arena, least_bytes=least, prompt=own)


def _are_equal(a: Any, b: Any) -> bool:
    return bool(StructuralKey(a) == StructuralKey(b))  # type: ignore[call-arg]


def _tensor(param: Any) -> Tensor:
    return Tensor(str(param.name), shape_of(param), str(param.ty.dtype))


def _nbytes(var: Any) -> int:
    return prod(shape_of(var)) * np.dtype(str(var.ty.dtype)).itemsize


def _outputs(results: Any, outputs: Any) -> tuple[dict[Place, Place], tuple[Any, ...]]:
    """Tensors that are results are written where the caller wants them; all else is copied."""
    moved: dict[Place, Place] = {}
    copies = []
    for i, (place, tensor) in enumerate(zip(results, outputs, strict=True)):
        target = Place("output", i)
        if place.kind == "tensor" and place not in moved:
            moved[place] = target
        else:
            copies.append((moved.get(place, place), target, tensor.nbytes))
    return moved, tuple(copies)


def _resolved(place: Place, offsets: Mapping[int, int]) -> Place:
    return Place("arena", offsets[place.at]) if place.kind == "tensor" else place


def _called(calls: Sequence[Call], functions: Mapping[str, Any]) -> dict[str, Any]:
    """What is called, by symbol; a result over an operand is one parameter for both."""
    found = {}
    for call in calls:
        func = functions[call.function]
        if call.over is not None:
            func = func.specialize({func.params[call.over]: func.params[-1]})
        found[call.symbol] = func
    return found


class _Tensors:
    """The tensors of the arena, by their index, and which of them take the memory of another."""

    def __init__(self, sizes: Sequence[int], calls: Sequence[Call], copies: Sequence[Any]):
        self.sizes = sizes
        self.born: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.base: dict[int, int] = {}  # the tensor in whose memory one lies
        for number, call in enumerate(calls):
            for place in call.args:
                self._meet(place, number)
        for place, _, _ in copies:
            self._meet(place, len(calls))

    def _meet(self, place: Place, call: int) -> None:
        if place.kind == "tensor":
            self.born.setdefault(place.at, call)
            self.last[place.at] = call
            self.base.setdefault(place.at, place.at)

    def overlaid(self, calls: Sequence[Call], functions: Mapping[str, Any]) -> list[Call]:
        """The calls, with results over operands wherever a kernel allows it and nobody reads them later."""
        return [self._overlaid(n, call, functions[call.function]) for n, call in enumerate(calls)]

    def _overlaid(self, number: int, call: Call, func: Any) -> Call:
        allowed = [int(i) for i in str((func.attrs or {}).get(OVERLAYS, "")).split()]
        out = call.args[-1]
        for i in allowed:
            operand = call.args[i]
            if not operand.kind == out.kind == "tensor" or call.args.count(operand) > 1:
                continue
            if self.last[operand.at] == number and self.born[out.at] == number:
                self.base[out.at] = self.base[operand.at]
                self.last[operand.at] = number - 1  # from here on its bytes are those of the result
                return replace(call, over=i, args=tuple(a for n, a in enumerate(call.args) if n != i))
        return call

    def placed(self, first: int, alignment: int, threads: int) -> tuple[dict[int, int], int, int]:
        """The offset of each, from `first` on, the bytes of the arena, and those of its fullest call."""
        shared: dict[int, Life] = {}
        for at, base in self.base.items():
            life = Life(self.sizes[at], self.born[at], self.last[at])
            known = shared.get(base, life)
            shared[base] = Life(
                max(known.size, life.size), min(known.born, life.born), max(known.last, life.last)
            )
        lives = list(shared.values())
        found = packed(lives, alignment) if threads == 1 else centred(lives, alignment)
        offsets = {base: first + at for base, at in zip(shared, found, strict=True)}
        arena = first + -(-total_bytes(lives, found) // alignment) * alignment
        return {at: offsets[base] for at, base in self.base.items()}, arena, first + least_bytes(lives)

    def stays(self, offsets: Mapping[int, int]) -> tuple[Stay, ...]:
        """When each is there."""
        return tuple(Stay(offsets[at], self.sizes[at], self.born[at], self.last[at]) for at in self.base)
