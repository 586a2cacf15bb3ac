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

from .builder import Expr, Flat

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
    def chunks(self) -> list[int]:
        """The lines whose activations are loaded by one instruction, as many as there are registers for."""
        most = min(self.code.loaded, self.code.registers - self.accumulators - self.vectors)
        parts = -(-self.lines // most)
        return [self.lines // parts + (i < self.lines % parts) for i in range(parts)]

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
        constraints += [str(count + i) for i in range(3)] + ["r", "r", "*m"]
        constraints += [f"~{{{register}}}" for register in used[count:]] + ["~{cc}"]
        skip = self.stride - (self.lines - self.chunks[-1]) * self.bytes
        # the last operand only says what is read, so that no store to it moves behind the loop
        written = f"ptr elementtype([{self.cells * self.vectors} x i32]) %s"
        arguments = f"ptr %w, ptr %x, i64 {self._passes}, ptr %s, i64 {skip}, {written}"
        pointers = "".join(f"ptr %a{i}, " for i in range(count))
        lines = [
            f"define void @{self.name}({pointers}ptr %s, ptr %w, ptr %x) alwaysinline {{",
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
    def _start(self) -> str:
        return f"${self.accumulators + 6}"  # behind the three that are tied to results

    @property
    def _skip(self) -> str:
        return f"${self.accumulators + 7}"

    def _text(self) -> str:
        text = [
            self._fill(line * self.vectors + at, size, self.code.load, self._start)
            for line in range(self.lines)
            for at, size in self._parts(self.vectors)
        ]
        if self._passes:
            text += [f"{_LABEL}:", *self._groups(_UNROLLED)]
            named = (("{counter}", self._counter), ("{label}", f"{_LABEL}b"))
            text += [_replaced(line, *named) for line in self.code.next]
        text += self._groups(self.groups - self._passes * _UNROLLED)
        return "\\0A".join(text)

    def _parts(self, count: int) -> list[tuple[int, int]]:
        """(first register, registers) of each load."""
        return [(at, min(self.code.loaded, count - at)) for at in range(0, count, self.code.loaded)]

    def _groups(self, count: int) -> list[str]:
        return self._group() * count

    def _group(self) -> list[str]:
        """One group of k."""
        weights, activations = self.accumulators, self.accumulators + self.vectors
        text = [
            self._step(weights + at, size, self._weights, self._immediate(size))
            for at, size in self._parts(self.vectors)
        ]
        line = 0
        for number, size in enumerate(self.chunks):
            last = number == len(self.chunks) - 1
            by = self._skip if last else self._immediate(size)
            text.append(self._step(activations, size, self._activations, by))
            for i in range(size):
                for j in range(self.vectors):
                    numbers = ((line + i) * self.vectors + j, activations + i, weights + j)
                    named = zip(("{accumulator}", "{activation}", "{weight}"), map(str, numbers), strict=True)
                    text.append(_replaced(self.accumulate, *named))
            line += size
        return text

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
