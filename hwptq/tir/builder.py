"""A thin layer over TVM's IRBuilder: PrimFuncs over flat tensors, with scalar and vector loads.

Every tensor is seen as one contiguous row-major array, so a kernel computes its own offsets and any rank
looks alike. A vector of one lane is a scalar.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from .kernel import TensorType

#: The attribute of a repacked kernel: the name of the template that made it.
TEMPLATE = "hwptq.kernel"
#: The attribute of a kernel that computes one element at a time.
ELEMENT_BY_ELEMENT = "hwptq.scalar"
#: The attribute of a kernel that may write its result over operands: the numbers of these parameters. Each
#: value of such an operand is read once at most, and before the value of that place is written.
OVERLAYS = "hwptq.overlays"
#: The annotation of a parallel loop: the cycles that all of it takes about.
CYCLES = "hwptq.cycles"
_INT32_LIMIT = 2**31

Expr = Any  # a TIR expression or a Python number

#: TVM's pattern of functions that FuseOps leaves alone: its FuseTIR can't join one block of plain loops.
_OPAQUE = 8


def dtype_of(dtype: str, lanes: int) -> str:
    """("int8", 16) -> "int8x16"; one lane is the scalar dtype."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def constant(value: int | float, dtype: str, lanes: int = 1) -> Expr:
    """`value` in every lane."""
    scalar = tirx.const(value, dtype)
    return scalar if lanes == 1 else T.broadcast(scalar, lanes)


def exact_float32(value: float) -> Expr:
    """A float32 constant given by its bits.

    TVM turns a division by a literal into a product with its reciprocal, which rounds differently.
    """
    (bits,) = struct.unpack("<i", struct.pack("<f", value))
    return T.reinterpret("float32", constant(bits, "int32"))


def splat(value: Expr, lanes: int) -> Expr:
    """A scalar expression in every lane."""
    return value if lanes == 1 else T.broadcast(value, lanes)


def cast(value: Expr, dtype: str, lanes: int = 1) -> Expr:
    """`value`, a vector of `lanes`, converted to `dtype`."""
    return T.cast(value, dtype_of(dtype, lanes))


def shuffle(vectors: Sequence[Expr], indices: Sequence[int]) -> Expr:
    """The lanes `indices` of the concatenated `vectors`."""
    return tirx.Shuffle(list(vectors), list(indices))


def every_other(a: Expr, b: Expr, rest: int, unit: int) -> Expr:
    """Every other unit of `unit` bytes of a and b in turn, of two the one with index `rest`."""
    width = int(a.ty.dtype.lanes)
    starts = range(rest * unit, width, 2 * unit)
    return shuffle([a, b], [v + i for at in starts for v in (at, width + at) for i in range(unit)])


def clamp(value: Expr, lo: Expr, hi: Expr) -> Expr:
    """`value` limited to [lo, hi]."""
    return T.max(T.min(value, hi), lo)


@dataclass(frozen=True)
class Flat:
    """A tensor as a flat array of `size` elements."""

    buffer: Any
    dtype: str
    size: int
    first: Expr = 0  # element of the buffer at offset 0

    def behind(self, offset: Expr) -> Flat:
        """The same tensor from element `offset` on."""
        return replace(self, first=self.first + offset)

    def address(self, offset: Expr) -> Expr:
        """Of the element at `offset`."""
        return T.address_of(self.buffer[self.first + offset])

    def load(self, offset: Expr, lanes: int = 1) -> Expr:
        """`lanes` consecutive elements from `offset`."""
        return self.buffer[_index(self.first + offset, lanes)]

    def store(self, offset: Expr, value: Expr, lanes: int = 1, count: int | None = None) -> None:
        """Write `lanes` consecutive elements from `offset`, or only the first `count` of them."""
        if count is None or count == lanes:
            T.buffer_store(self.buffer, value, [_index(self.first + offset, lanes)])
            return
        name = f"llvm.masked.store.v{lanes}{_llvm_type(self.dtype)}.p0"
        mask = T.ramp(tirx.const(0, "int32"), 1, lanes) < constant(count, "int32", lanes)
        T.evaluate(
            T.call_llvm_intrin("void", name, value, T.address_of(self.buffer[self.first + offset]), mask)
        )


def _llvm_type(dtype: str) -> str:
    """("uint8") -> "i8"."""
    return dtype.removeprefix("u").replace("int", "i").replace("float", "f")


def _index(offset: Expr, lanes: int) -> Expr:
    return offset if lanes == 1 else T.ramp(offset, 1, lanes)


def local(size: int, dtype: str) -> Flat:
    """A register, or a few: accessed at constant offsets only.

    TVM puts a small buffer of scope "global" on the stack, from where LLVM promotes it to registers; the
    scope "local" becomes a workspace on the heap, whatever its size.
    """
    return Flat(T.alloc_buffer((size,), dtype, scope="global"), dtype, size)


def workspace(size: int, dtype: str) -> Flat:
    """Memory of a kernel's own, at any offset; the program takes it from the device's scratchpad.

    TVM would cut it down to what it sees stored, and it does not see how far a masked store reaches: so both
    ends are written first.
    """
    memory = Flat(T.alloc_buffer((size,), dtype, scope="global"), dtype, size)
    for end in (0, size - 1):
        memory.store(end, constant(0, dtype))
    return memory


def primfunc(
    tensors: Sequence[TensorType],
    attributes: Mapping[str, str],
    body: Callable[..., None],
) -> tvm.tirx.PrimFunc:
    """A PrimFunc with one parameter per tensor, the output last; `body` gets them as Flat and emits the code.

    Raises ValueError for a tensor of 2^31 elements or more: offsets are int32.
    """
    for t in tensors:
        if prod(t.shape) >= _INT32_LIMIT:
            raise ValueError(f"a tensor of shape {t.shape} is too large for 32-bit offsets")
    with IRBuilder() as builder, T.prim_func():
        T.func_name("kernel")
        T.func_attr({"tirx.noalias": True, "op_pattern": _OPAQUE, **attributes})
        names = [f"in{i}" for i in range(len(tensors) - 1)] + ["out"]
        stored = [t.stored for t in tensors]
        params = [T.arg(name, T.buffer(t.shape, t.dtype)) for name, t in zip(names, stored, strict=True)]
        with T.sblock("kernel"):  # one opaque block: analyses of Relax expect to find a block
            T.reads([])
            T.writes([])
            body(*(_flatten(p, t) for p, t in zip(params, stored, strict=True)))
    return builder.get().without_attr("global_symbol")  # the name is given where it joins a module


def _flatten(param: Any, tensor: TensorType) -> Flat:
    size = prod(tensor.shape)
    return Flat(T.decl_buffer((size,), tensor.dtype, data=param.data), tensor.dtype, size)


@dataclass(frozen=True)
class Parts:
    """How many parts a kernel is cut into, for threads to share, and the cycles it takes about as a whole."""

    count: int = 1
    cycles: int = 0


WHOLE = Parts()


@dataclass(frozen=True)
class Part:
    """Part `index` of `count` of a kernel."""

    index: Expr = 0
    count: int = 1

    def of(self, extent: int, turn: Expr = 0) -> tuple[Expr, Expr]:
        """(first, number) of its elements of range(extent): neighbours, as many as the other parts have.

        Where that does not go up, some parts have one more, others with each `turn` (0, 1, …): of 9 elements
        in 2 parts the first one has 4, 5, 4, …
        """
        size, rest = divmod(extent, self.count)
        if not rest:
            return self.index * size, size
        moved = T.floormod(turn, self.count)
        first, end = (T.floordiv(i * extent + moved, self.count) for i in (self.index, self.index + 1))
        return first, end - first


def in_parts(most: int, parts: Parts, body: Callable[[Part], None]) -> None:
    """The code of up to `parts` parts, at most `most`, which may run at the same time.

    Threads share a kernel only if nothing of it is outside of the parts.
    """
    count = min(most, parts.count)
    if count == 1:
        body(Part())
        return
    with T.parallel(count, annotations={CYCLES: parts.cycles}) as i:
        body(Part(i, count))


Range = Callable[[Expr, Expr], None]  # (first, count) -> code for so many elements of a range


def share(extent: int, parts: Parts, body: Range, beside: tuple[int, Range] | None = None) -> None:
    """Cut range(extent) into up to `parts` parts; see in_parts.

    `beside` is the extent of another range, with its code, which is cut alike and comes first.
    """

    def part(own: Part) -> None:
        for n, emit in (*([beside] if beside else []), (extent, body)):
            emit(*own.of(n))

    in_parts(extent, parts, part)


def share_spans(extent: int, lanes: int, parts: Parts, body: Callable[[Expr, int, int], None]) -> None:
    """Cover range(extent) by vectors as `spans` does without masks, in parts of some vectors each."""
    width = vector_width(extent, lanes)

    def vector(i: Expr) -> None:
        body(start_of(i, width, extent), width, width)

    share(-(-extent // width), parts, lambda first, count: loop(count, lambda i: vector(first + i)))


def start_of(index: Expr, size: int, extent: int) -> Expr:
    """First element of part `index`; the last part overlaps the one before it."""
    return index * size if extent % size == 0 else T.min(index * size, extent - size)


def unravel(index: Expr, extents: Sequence[int]) -> list[Expr]:
    """Row-major coordinates of a flat index: (7, (2, 5)) -> [1, 2]."""
    found: list[Expr] = []
    for extent in reversed(extents[1:]):
        found.insert(0, T.floormod(index, extent))
        index = T.floordiv(index, extent)
    return [index, *found]


def loop(extent: Expr, body: Callable[[Expr], None]) -> None:
    """A serial loop over range(extent); none at all when it has one iteration, nothing when it has none."""
    if isinstance(extent, int) and extent <= 1:
        if extent == 1:
            body(0)
        return
    with T.serial(extent) as i:
        body(i)


def nest(extents: Sequence[int], body: Callable[..., None]) -> None:
    """Nested serial loops, outermost first; `body` gets their variables."""

    def level(depth: int, variables: tuple[Expr, ...]) -> None:
        if depth == len(extents):
            body(*variables)
        else:
            loop(extents[depth], lambda i: level(depth + 1, (*variables, i)))

    level(0, ())


def vector_width(extent: int, lanes: int) -> int:
    """The widest power of two that fits into both: 17 elements on 16 lanes -> 16, 5 -> 4, 1 -> 1."""
    return 1 << (min(extent, lanes).bit_length() - 1)


def powers(count: int, most: int) -> list[int]:
    """Powers of two, each at most `most` (a power of two), that add up to `count`: (7, 4) -> [4, 2, 1]."""
    parts = [most] * (count // most)
    return parts + [1 << b for b in reversed(range(most.bit_length())) if (count % most) >> b & 1]


def spans(extent: int, lanes: int, body: Callable[[Expr, int, int], None], masked: bool = False) -> None:
    """Cover range(extent) by vectors: body(offset, width, count), which stores the first `count` lanes.

    The last vector overlaps the one before it, and fewer elements than lanes make a narrower one; or, where
    it is `masked`, it is a whole vector of which count lanes are stored. Elements of the overlap are computed
    twice, so `body` must not accumulate into memory.
    """
    width = lanes if masked else vector_width(extent, lanes)
    full, rest = divmod(extent, width)
    if masked or not rest:
        if full:
            loop(full, lambda i: body(i * width, width, width))
        if rest:
            body(full * width, width, rest)
    else:
        count = -(-extent // width)
        loop(count, lambda i: body(T.min(i * width, extent - width), width, width))
