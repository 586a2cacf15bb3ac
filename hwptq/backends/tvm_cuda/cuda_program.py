"""A model for TVM's virtual machine on an NVIDIA GPU: model.so, and the Python program that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tvm

from hwptq.backends.data_files import data_file
from hwptq.backends.identifier import identifier
from hwptq.backends.program import Machine, Program, State, Tensor
from hwptq.errors import HwptqError
from hwptq.ir.caches import Caches, caches_of, fed_inputs, given_outputs
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
    held = caches_of(func)
    params = [Tensor(str(p.name), shape_of(p), str(p.ty.dtype)) for p in func.params]
    result = func.body.body.ty
    types = given_outputs(func, list(getattr(result, "fields", [result])))
    outputs = tuple(
        Tensor(output, tuple(int(d) for d in t.shape.values), str(t.dtype))
        for output, t in zip(output_names, types, strict=True)
    )
    inputs = tuple(fed_inputs(func, params))
    program.write_text(_source(identifier(name), params, held), encoding="utf-8")
    return Program(
        program,
        inputs,
        outputs,
        Machine(device="gpu"),
        ("python3",),
        library,
        state=_state(params, held) if held else None,
        weight_bytes=_weight_bytes(mod),
    )


def _state(params: Sequence[Tensor], held: Caches) -> State:
    """What the program keeps on the GPU."""
    kept = tuple(params[i] for i in held.inputs)
    fed = [i for i in range(len(params)) if i not in held.inputs]
    position = None if held.position is None else fed.index(held.position)
    return State(sum(t.nbytes for t in kept), kept, position, held.context)


def _source(name: str, params: Sequence[Tensor], held: Caches | None) -> str:
    """The program, which knows its inputs itself: it runs before the rest of the folder is written."""
    assert __package__
    caches = held.inputs if held else {}
    listed = [(t.name, t.shape, t.dtype, caches[i].output if i in caches else None)
              for i, t in enumerate(params)]  # fmt: skip
    position = None if held is None or held.position is None else params[held.position].name
    filled = {"NAME": name, "INPUTS": repr(listed), "POSITION": repr(position)}
    text = data_file(__package__, "cuda_main.py.in")
    for word, value in filled.items():
        text = text.replace(f"@{word}@", value)
    return text


def _weight_bytes(mod: tvm.IRModule) -> int:
    """Bytes of the constants of main."""
    arrays = [
        constant(a)
        for _, call in bindings(mod["main"])
        for arg in getattr(call, "args", ())
        for a in getattr(arg, "fields", [arg])
    ]
    return sum(a.nbytes for a in arrays if a is not None)
