"""A lowered Relax module as a straight list of kernel calls over one static arena of memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax, s_tir, tirx

from hwptq.backends.program import State, Stay, Tensor
from hwptq.ir.caches import caches_of
from hwptq.ir.dataflow import bindings, constant, shape_of
from hwptq.ir.provenance import label_of
from hwptq.tir.builder import CYCLES
from hwptq.tir.vector_unit import THREADS

from .write_caches import WriteCachesInPlace

_ALLOCATIONS = ("relax.builtin.alloc_tensor", "relax.memory.alloc_tensor", "relax.memory.alloc_storage")
_FREES = ("relax.memory.kill_tensor", "relax.memory.kill_storage")


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: `kind` input | output | arena | weights, with its index or its byte offset."""

    kind: str
    at: int


@dataclass(frozen=True)
class Call:
    """One kernel call."""

    function: str
    args: tuple[Place, ...]
    cycles: int = 0  # that the kernel takes about, if threads can share all of it; else 0


@dataclass(frozen=True)
class Allocation:
    """From a call on (the first is 0) bytes of the arena belong to a new tensor."""

    call: int
    at: int
    nbytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """Everything a runtime-free program needs beside the kernels."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    copies: tuple[tuple[Place, Place, int], ...]  # (from, to output or cache, bytes) after the calls
    arena_bytes: int  # of caches, which come first, and activations
    weights: bytes
    functions: dict[str, Any]  # PrimFuncs by name
    threads: int = 1  # that can share a kernel
    allocations: tuple[Allocation, ...] = ()
    state: State | None = None  # of a step that has caches


def plan_memory(mod: tvm.IRModule, output_names: tuple[str, ...], alignment: int) -> MemoryPlan:
    """Plan `main` of a module of call_tir and data movement. Raises ValueError for what needs a runtime."""
    planned = tvm.ir.transform.Sequential(
        [
            WriteCachesInPlace(),
            relax.transform.LegalizeOps(),
            relax.transform.RewriteDataflowReshape(),  # what only changes the shape copies nothing
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
            relax.transform.StaticPlanBlockMemory(),
        ]
    )(mod)
    return _Planner(planned, output_names, alignment).plan()


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
    def __init__(self, mod: tvm.IRModule, output_names: tuple[str, ...], alignment: int):
        self.mod, self.alignment, self.output_names = mod, alignment, output_names
        self.func = mod["main"]
        self.caches = caches_of(self.func)
        held = self.caches.inputs if self.caches else {}
        self.fed = [p for i, p in enumerate(self.func.params) if i not in held]
        self.places: dict[Any, Any] = {p: Place("input", i) for i, p in enumerate(self.fed)}
        self.threads = int((mod.attrs or {}).get(THREADS, 1))
        self.storage: dict[Any, tuple[int, int]] = {}  # first byte, bytes
        self.arena = 0
        self.calls: list[Call] = []
        self.allocations: list[Allocation] = []
        self.weights = bytearray()
        self.known: dict[bytes, Place] = {}
        for i in held:
            past = self.func.params[i]
            self.places[past] = Place("arena", self._reserve(_nbytes(past)))
        self.state = self._state(list(held)) if self.caches else None

    def _state(self, held: list[int]) -> State:
        """What the arena begins with."""
        assert self.caches
        params, position = self.func.params, self.caches.position
        fed = None if position is None else self.fed.index(params[position])
        return State(self.arena, tuple(_tensor(params[i]) for i in held), fed, self.caches.context)

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
        moved, copies = self._outputs([results[i] for i, _ in given], outputs)
        copies += self._kept(results, moved)
        return MemoryPlan(
            tuple(map(_tensor, self.fed)),
            outputs,
            tuple(replace(c, args=tuple(moved.get(a, a) for a in c.args)) for c in self.calls),
            copies,
            self.arena,
            bytes(self.weights),
            {gv.name_hint: f for gv, f in self.mod.functions.items() if isinstance(f, tirx.PrimFunc)},
            self.threads,
            tuple(self.allocations),
            self.state,
        )

    def _kept(self, results: Any, moved: dict[Place, Place]) -> tuple[Any, ...]:
        """Copies of what caches will hold, where it is not written there; it gets memory in `moved`."""
        copies = []
        for cache in self.caches.pairs if self.caches else ():
            past, place = self.func.params[cache.input], results[cache.output]
            if place == self.places[past]:
                continue
            if place.kind == "result" and place not in moved:
                moved[place] = Place("arena", self._reserve(_nbytes(past)))
            copies.append((moved.get(place, place), self.places[past], _nbytes(past)))
        return tuple(copies)

    def _outputs(self, results: Any, outputs: Any) -> tuple[dict[Place, Place], tuple[Any, ...]]:
        """Results allocated for the caller are written in place; all others are copied."""
        moved: dict[Place, Place] = {}
        copies = []
        for i, (place, tensor) in enumerate(zip(results, outputs, strict=True)):
            target = Place("output", i)
            if place.kind == "result" and place not in moved:
                moved[place] = target
            else:
                copies.append((moved.get(place, place), target, tensor.nbytes))
        return moved, tuple(copies)

    def _bind(self, var: Any, value: Any) -> Call | None:
        if not isinstance(value, relax.Call):
            self.places[var] = self._place(value)
            return None
        if isinstance(value.op, tvm.ir.GlobalVar):
            args = tuple(self._place(a) for a in value.args)
            return Call(value.op.name_hint, args, shared_cycles(self.mod[value.op]))
        name = str(value.op.name)
        if name in _ALLOCATIONS:
            self._allocate(var, value, name)
        elif name == "relax.reshape":  # of a tensor in place
            self.places[var] = self._place(value.args[0])
        elif name not in _FREES:
            raise ValueError(f"node {label_of(var, value)}: {name} can't be computed without the TVM runtime")
        return None

    def _allocate(self, var: Any, value: Any, name: str) -> None:
        if name == "relax.memory.alloc_storage":
            nbytes = int(value.args[0].values[0])
            self.storage[var] = self._reserve(nbytes), nbytes
        elif name == "relax.memory.alloc_tensor":
            start, room = self.storage[value.args[0]]
            offset = int(getattr(value.args[1], "value", value.args[1]))
            at, nbytes = start + (offset or self._centre(var, room)), _nbytes(var)
            self.places[var] = Place("arena", at)
            self.allocations.append(Allocation(len(self.calls), at, nbytes))
        else:  # a tensor that leaves the function
            self.places[var] = Place("result", len(self.places))

    def _centre(self, var: Any, room: int) -> int:
        """Where a tensor begins in a storage of `room` bytes.

        In the middle, where threads share kernels: of tensors of any size that one after the other lie there,
        each of two cores writes the same half, so that memory does not go from one to the other.
        """
        if self.threads == 1:
            return 0
        spare = room - _nbytes(var)
        return spare // 2 // self.alignment * self.alignment

    def _reserve(self, nbytes: int) -> int:
        start = self.arena
        self.arena += -(-nbytes // self.alignment) * self.alignment
        return start

    def _place(self, expr: Any) -> Any:
        array = constant(expr)
        if array is not None:
            return self._weight(np.asarray(array, order="C"))
        if isinstance(expr, relax.Tuple):
            return tuple(self._place(f) for f in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self._place(expr.tuple_value)[expr.index]
        return self.places[expr]

    def _weight(self, array: np.ndarray) -> Place:
        """Equal constants are stored once."""
        data = array.tobytes()
        if data not in self.known:
            self.weights += bytes(-len(self.weights) % self.alignment)
            self.known[data] = Place("weights", len(self.weights))
            self.weights += data
        return self.known[data]


def _tensor(param: Any) -> Tensor:
    return Tensor(str(param.name), shape_of(param), str(param.ty.dtype))


def _nbytes(var: Any) -> int:
    return prod(shape_of(var)) * np.dtype(str(var.ty.dtype)).itemsize


def stays(plan: MemoryPlan) -> tuple[Stay, ...]:
    """When each tensor of the arena is there: from the call that writes it to the last that takes it."""
    now: dict[int, int] = {}  # index of the allocation that holds a place
    last = [a.call for a in plan.allocations]
    waiting = 0
    for number, call in enumerate(plan.calls):
        while waiting < len(plan.allocations) and plan.allocations[waiting].call <= number:
            now[plan.allocations[waiting].at] = waiting
            waiting += 1
        for place in call.args:
            if place.kind == "arena" and place.at in now:  # no cache
                last[now[place.at]] = number
    for place, _, _ in plan.copies:
        if place.kind == "arena" and place.at in now:
            last[now[place.at]] = len(plan.calls)
    return tuple(Stay(a.at, a.nbytes, a.call, end) for a, end in zip(plan.allocations, last, strict=True))
