"""A model for TVM's virtual machine on an NVIDIA GPU: model.so, and the Python program that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tvm

from hwptq.backends.data_files import data_file
from hwptq.backends.identifier import identifier
from hwptq.backends.program import Machine, Program, Tensor
from hwptq.errors import HwptqError
from hwptq.ir.dataflow import bindings, constant, shape_of
from hwptq.targets import Descriptor

from .cuda_compile import compile_cuda


def build_cuda_program(
    mod: tvm.IRModule, output_names: tuple[str, ...], name: str, target: Descriptor, folder: Path
) -> Program:
    """Build model.so and <name>.py in `folder`; memory is allocated by TVM's runtime."""
    program, library = folder / f"{identifier(name)}.py", folder / "model.so"
    try:
        compile_cuda(mod, target.tvm).export_library(str(library))
    except RuntimeError as error:
        lines = str(error).strip().splitlines() or ["no message"]
        raise HwptqError(f"{target.name}: nvcc failed: {lines[-1]}") from error
    func = mod["main"]
    inputs = tuple(Tensor(str(p.name), shape_of(p), str(p.ty.dtype)) for p in func.params)
    result = func.body.body.ty
    types = list(getattr(result, "fields", [result]))
    outputs = tuple(
        Tensor(output, tuple(int(d) for d in t.shape.values), str(t.dtype))
        for output, t in zip(output_names, types, strict=True)
    )
    program.write_text(_source(identifier(name), inputs), encoding="utf-8")
    return Program(
        program,
        inputs,
        outputs,
        Machine(device="gpu"),
        ("python3",),
        library,
        weight_bytes=_weight_bytes(mod),
    )


def _source(name: str, inputs: Sequence[Tensor]) -> str:
    """The program, which knows its inputs itself: it runs before the rest of the folder is written."""
    listed = repr([(t.name, t.shape, t.dtype) for t in inputs])
    assert __package__
    return data_file(__package__, "cuda_main.py.in").replace("@NAME@", name).replace("@INPUTS@", listed)


def _weight_bytes(mod: tvm.IRModule) -> int:
    """Bytes of the constants of main."""
    arrays = [
        constant(a)
        for _, call in bindings(mod["main"])
        for arg in getattr(call, "args", ())
        for a in getattr(arg, "fields", [arg])
    ]
    return sum(a.nbytes for a in arrays if a is not None)
