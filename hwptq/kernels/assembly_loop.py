"""The inner loop of a register tile in the assembly language of the device.

A compiler that is given one load for each register seldom uses instructions that fill several, nor lets a
pointer step along with them, and it spills where a tile leaves no register to spare. So the loop over groups
of k is written out here, with the instructions of the descriptor; all around it stays TIR. It enters the
program as a function in LLVM's language, which is inlined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from hwptq.targets.schema import Assembly
from hwptq.tir.builder import Expr, Flat

#: The attribute of a statement: definitions, in LLVM's language, of functions that it calls.
IMPORT = "pragma_import_llvm"
_UNROLLED = 8  # groups of k in one pass of the loop
_LABEL = "1"


@dataclass(frozen=True)
class AssemblyLoop:
    """acc[line][vector] = start[vector] + activation[line] * weight[vector], summed over `groups` of k.

    An accumulator has `cells` int32 values. In memory the operands of weights follow one another, `bytes`
    each, and so do the activations of a group for all lines; those of the next group begin `stride` bytes
    behind them.
    """

    code: Assembly
    accumulate: str  # the instruction
    cells: int
    bytes: int
    lines: int
    vectors: int
    groups: int
    stride: int

    @property
    def name(self) -> str:
        """A symbol for it, the same for equal loops only."""
        return f"hwptq_loop_{self.lines}x{self.vectors}x{self.groups}_{self.stride}"

    @property
    def accumulators(self) -> int:
        """How many there are, in the registers from 0 on."""
        return self.lines * self.vectors

    @property
    def fits(self) -> bool:
        """Whether there are registers for the accumulators and both kinds of operands."""
        return self.accumulators + min(self.lines, self.vectors) < self.code.registers

    @property
    def weights_stay(self) -> bool:
        """Whether the weights of a group stay in registers while its activations pass, or the reverse."""
        return self.vectors <= self.lines

    def chunks(self, count: int, *, stay: bool) -> list[tuple[int, int]]:
        """(first, number) of the operands that are loaded together, of `count` that stay or pass."""
        spare = self.code.registers - self.accumulators - min(self.lines, self.vectors)
        most = self.code.loaded if stay else min(self.code.loaded, spare)
        parts = -(-count // most)
        sizes = [count // parts + (i < count % parts) for i in range(parts)]
        return [(sum(sizes[:i]), size) for i, size in enumerate(sizes)]

    def call(self, acc: Sequence[Sequence[Flat]], start: Expr, weights: Expr, activations: Expr) -> None:
        """Code that runs the loop; start, weights and activations are addresses."""
        cells = [T.address_of(cell.buffer[0]) for line in acc for cell in line]
        T.evaluate(T.call_extern("void", self.name, *cells, start, weights, activations))

    def definition(self) -> str:
        """The function of `call` in LLVM's language."""
        count, cell = self.accumulators, f"<{self.cells} x i32>"
        used = [self._number(self.code.register, i) for i in range(self.code.registers)]
        results = ", ".join([cell] * count + ["ptr", "ptr", "i64"])
        constraints = [f"=&{{{register}}}" for register in used[:count]] + ["=&r"] * 3
        starts = range(len(self._starts))
        constraints += [str(count + i) for i in range(3)] + ["r"] * (1 + len(starts)) + ["*m"]
        constraints += [f"~{{{register}}}" for register in used[count:]] + ["~{cc}"]
        skip = self.stride - self.chunks(self.lines, stay=not self.weights_stay)[-1][0] * self.bytes
        # the last operand only says what is read, so that no store to it moves behind the loop
        written = f"ptr elementtype([{self.cells * self.vectors} x i32]) %s"
        pieces = ", ".join(f"ptr %s{i}" for i in starts)
        arguments = f"ptr %w, ptr %x, i64 {self._passes}, i64 {skip}, {pieces}, {written}"
        pointers = "".join(f"ptr %a{i}, " for i in range(count))
        lines = [
            f"define void @{self.name}({pointers}ptr %s, ptr %w, ptr %x) alwaysinline {{",
            *(f"  %s{i} = getelementptr {cell}, ptr %s, i64 {at}" for i, (at, _) in enumerate(self._starts)),
            f'  %r = call {{ {results} }} asm "{self._text()}", "{",".join(constraints)}"({arguments})'
            " nounwind willreturn memory(argmem: read)",
            *(f"  %o{i} = extractvalue {{ {results} }} %r, {i}" for i in range(count)),
            *(f"  store {cell} %o{i}, ptr %a{i}" for i in range(count)),
            "  ret void",
            "}",
        ]
        return "\n".join(lines)

    @property
    def _passes(self) -> int:
        """Of the loop; 0 = everything is written out."""
        passes = self.groups // _UNROLLED
        return passes if passes > 1 else 0

    # operands of the text: the accumulators, then
    @property
    def _weights(self) -> str:
        return f"${self.accumulators}"

    @property
    def _activations(self) -> str:
        return f"${self.accumulators + 1}"

    @property
    def _counter(self) -> str:
        return f"${self.accumulators + 2}"

    @property
    def _skip(self) -> str:
        return f"${self.accumulators + 6}"  # behind the three that are tied to results

    def _start(self, number: int) -> str:
        return f"${self.accumulators + 7 + number}"

    @property
    def _starts(self) -> list[tuple[int, int]]:
        """(first, number) of the accumulators of a line that are loaded together."""
        return self.chunks(self.vectors, stay=True)

    def _text(self) -> str:
        text = [
            self._fill(line * self.vectors + at, size, self.code.load, self._start(i))
            for line in range(self.lines)
            for i, (at, size) in enumerate(self._starts)
        ]
        if self._passes:
            text += [f"{_LABEL}:", *self._groups(_UNROLLED)]
            named = (("{counter}", self._counter), ("{label}", f"{_LABEL}b"))
            text += [_replaced(line, *named) for line in self.code.next]
        text += self._groups(self.groups - self._passes * _UNROLLED)
        return "\\0A".join(text)

    def _groups(self, count: int) -> list[str]:
        return self._group() * count

    def _group(self) -> list[str]:
        """One group of k."""
        staying = self.accumulators  # the first registers of both kinds of operands
        passing = staying + min(self.lines, self.vectors)
        if self.weights_stay:
            text = [self._load_weights(staying + at, n) for at, n in self.chunks(self.vectors, stay=True)]
            for first, size in self.chunks(self.lines, stay=False):
                text.append(self._load_activations(passing, first, size))
                pairs = [(i, j) for i in range(size) for j in range(self.vectors)]
                text += [self._product(first + i, j, passing + i, staying + j) for i, j in pairs]
            return text
        text = [self._load_activations(staying + at, at, n) for at, n in self.chunks(self.lines, stay=True)]
        for first, size in self.chunks(self.vectors, stay=False):
            text.append(self._load_weights(passing, size))
            pairs = [(i, j) for j in range(size) for i in range(self.lines)]
            text += [self._product(i, first + j, staying + i, passing + j) for i, j in pairs]
        return text

    def _load_weights(self, register: int, count: int) -> str:
        return self._step(register, count, self._weights, self._immediate(count))

    def _load_activations(self, register: int, first: int, count: int) -> str:
        """Those of `count` lines from `first`; the last ones of a group go on to the next group."""
        step = self._skip if first + count == self.lines else self._immediate(count)
        return self._step(register, count, self._activations, step)

    def _product(self, line: int, vector: int, activation: int, weight: int) -> str:
        numbers = line * self.vectors + vector, activation, weight
        named = zip(("{accumulator}", "{activation}", "{weight}"), map(str, numbers), strict=True)
        return _replaced(self.accumulate, *named)

    def _immediate(self, registers: int) -> str:
        return _replaced(self.code.immediate, ("{value}", str(registers * self.bytes)))

    def _step(self, first: int, count: int, pointer: str, step: str) -> str:
        """The pointer moves on by `step`."""
        return _replaced(self._fill(first, count, self.code.load_and_step, pointer), ("{step}", step))

    def _fill(self, first: int, count: int, load: str, pointer: str) -> str:
        registers = ", ".join(self._number(self.code.operand, first + i) for i in range(count))
        return _replaced(load, ("{registers}", registers), ("{pointer}", pointer))

    def _number(self, register: str, number: int) -> str:
        return _replaced(register, ("{number}", str(number)))


def _replaced(text: str, *named: tuple[str, str]) -> str:
    for name, value in named:
        text = text.replace(name, value)
    return text
