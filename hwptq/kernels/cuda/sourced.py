"""Kernels in CUDA C++: what threads of a warp or a block do together, which TIR has no words for.

The code is a function template in a file of the folder `source`; its parameter is a struct of constants,
which is written here. So one file serves all shapes, and the compiler knows them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from math import isfinite, prod
from typing import Any

import tvm
from tvm.backend.cuda.op import cuda_func_call
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import TEMPLATE
from hwptq.tir.kernel import TensorType
from hwptq.tir.loops import row_major

from .flat import PIPELINE

_TYPES = {
    "int8": "signed char", "int16": "short", "int32": "int", "uint8": "unsigned char",
    "uint16": "unsigned short", "float32": "float",
}  # fmt: skip
#: A value of a struct: a number, a struct, or an expression of the variable `number`.
Value = Any


@dataclass(frozen=True)
class Index:
    """A function of the struct: int number -> an element, as an expression in C."""

    expression: str


def struct(name: str, values: Mapping[str, Value], indent: str = "") -> str:
    """The definition of a struct of constants in C++; structs in it come first."""
    lines = [f"{indent}struct {name} {{"]
    inside = indent + "  "
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines.append(struct(key, value, inside))
        elif isinstance(value, Index):
            body = f"return {value.expression};"
            lines.append(f"{inside}static __device__ __forceinline__ int {key}(int number) {{ {body} }}")
        elif isinstance(value, float):
            number = f"{value.hex()}f" if isfinite(value) else f"{'-' if value < 0 else ''}INFINITY"
            lines.append(f"{inside}static constexpr float {key} = {number};")
        else:
            kind = "int" if -(2**31) <= value < 2**31 else "long long"
            number = str(int(value)) if value > -(2**31) else "-2147483647 - 1"
            lines.append(f"{inside}static constexpr {kind} {key} = {number};")
    return "\n".join([*lines, f"{indent}}};"])


def offset(shape: Sequence[int], strides: Sequence[int]) -> Index:
    """Number of an index in `shape`, row by row -> its offset by `strides`."""
    terms = [
        f"number / {size} % {extent} * {stride}"
        for extent, size, stride in zip(shape, row_major(shape), strides, strict=True)
        if stride and extent > 1
    ]
    return Index(" + ".join(terms) or "0")


@dataclass(frozen=True)
class Source:
    """A function template and the files that hold it, those that it needs first."""

    function: str
    files: tuple[str, ...]

    def text(self, name: str, constants: Mapping[str, Value], types: Sequence[str], results: int) -> str:
        """C++ that defines `name` as the function for `constants`; types: of what its pointers lead to."""
        found = [resources.files(__package__).joinpath("source", f).read_text("utf-8") for f in self.files]
        last = len(types) - results
        params = [f"{'const ' if i < last else ''}{t}* p{i}" for i, t in enumerate(types)]
        given = ", ".join(f"p{i}" for i in range(len(types)))
        call = f"{self.function}<{name}_constants>({given});"
        function = f"static __device__ __forceinline__ void {name}({', '.join(params)}) {{\n  {call}\n}}"
        return "\n".join([*found, struct(f"{name}_constants", constants), function, ""])


def sourced_kernel(
    source: Source, constants: Mapping[str, Value], inputs: Sequence[TensorType],
    results: Sequence[TensorType], blocks: int, threads: int, template: str,
) -> tvm.tirx.PrimFunc:  # fmt: skip
    """The PrimFunc (inputs…, results…) that calls the function of a source with all pointers in `blocks`
    blocks of `threads` threads."""
    tensors = [*inputs, *results]
    types = [_TYPES[t.dtype] for t in tensors]
    whole = f"{source}{struct('C', constants)}{types}"
    name = f"{source.function}_{hashlib.sha256(whole.encode()).hexdigest()[:12]}"
    text = source.text(name, constants, types, len(results))
    with IRBuilder() as builder, T.prim_func():
        T.func_name("kernel")
        fixed = {"tirx.noalias": True, "tirx.is_scheduled": True, PIPELINE: "s_tir", TEMPLATE: template}
        T.func_attr(fixed)
        params = [
            T.arg(f"p{i}", T.buffer((prod(t.shape),) if not t.shape else t.shape, t.dtype))
            for i, t in enumerate(tensors)
        ]
        with (
            T.thread_binding(blocks, thread="blockIdx.x"),
            T.thread_binding(threads, thread="threadIdx.x"),
        ):
            T.evaluate(cuda_func_call(name, *(p.data for p in params), source_code=text))
    return builder.get().without_attr("global_symbol")
