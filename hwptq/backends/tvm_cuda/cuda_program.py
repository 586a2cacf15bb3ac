"""A model for TVM's virtual machine on an NVIDIA GPU: model.so, and the Python program that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import relax

from hwptq.backends.data_files import data_file
from hwptq.backends.identifier import identifier
from hwptq.backends.program import Machine, Program, State, Tensor
from hwptq.backends.write_caches import WriteCachesInPlace
from hwptq.errors import HwptqError
from hwptq.ir.caches import Caches, caches_of, fed_inputs, given_outputs, results, with_caches
from hwptq.ir.dataflow import bindings, constant, op_name, rewrite, shape_of
from hwptq.kernels.cuda.write_cache import write_where
from hwptq.targets import Descriptor

from .cuda_compile import compile_cuda

_IN_PLACE = "call_tir_inplace"


def build_cuda_program(
    mod: tvm.IRModule, output_names: tuple[str, ...], name: str, target: Descriptor, folder: Path
) -> Program:
    """Build model.so and <name>.py in `folder`; memory is allocated by TVM's runtime.

    main of model.so takes the inputs, and behind them the caches, which lie at one place from call to call;
    it gives the outputs, and behind them the caches that it has not written where they lie.
    """
    program, library = folder / f"{identifier(name)}.py", folder / "model.so"
    held = caches_of(mod["main"])
    found = arranged(mod, held) if held else Arranged(mod, 0, ())
    func = found.mod["main"]
    count = len(func.params) - found.caches
    try:
        compile_cuda(found.mod, target.tvm, count).export_library(str(library))
    except RuntimeError as error:
        lines = str(error).strip().splitlines() or ["no message"]
        raise HwptqError(f"{target.name}: nvcc failed: {lines[-1]}") from error
    params = [Tensor(str(p.name), shape_of(p), str(p.ty.dtype)) for p in func.params]
    result = func.body.body.ty
    types = list(getattr(result, "fields", [result]))[: len(output_names)]
    outputs = tuple(
        Tensor(output, tuple(int(d) for d in t.shape.values), str(t.dtype))
        for output, t in zip(output_names, types, strict=True)
    )
    position = None if held is None else _position(mod["main"], held)
    program.write_text(_source(identifier(name), params, found, position), encoding="utf-8")
    return Program(
        program,
        tuple(params[:count]),
        outputs,
        Machine(device="gpu"),
        ("python3",),
        library,
        state=_state(params[count:], held, position) if held else None,
        weight_bytes=_weight_bytes(mod),
    )


@dataclass(frozen=True)
class Arranged:
    """A module whose main has its caches behind its other inputs, and gives those of them that it has not
    written where they lie behind its other outputs. given: the numbers of these among the caches."""

    mod: tvm.IRModule
    caches: int
    given: tuple[int, ...]


def arranged(mod: tvm.IRModule, held: Caches) -> Arranged:
    """A module of kernels as its program calls it."""
    mod = tvm.ir.transform.Sequential([WriteCachesInPlace(write_where)])(mod)
    func = mod["main"]
    fed, outputs, values = fed_inputs(func, func.params), results(func), dict(bindings(func))
    kept = list(held.inputs.values())
    given = tuple(
        i for i, cache in enumerate(kept) if op_name(values.get(outputs[cache.output])) != _IN_PLACE
    )
    wanted = [*given_outputs(func, outputs), *(outputs[kept[i].output] for i in given)]
    found = rewrite(
        tvm.IRModule({**mod.functions, mod.get_global_var("main"): with_caches(func, None)}, attrs=mod.attrs),
        lambda r, var, value: r.keep(value),
        result=lambda r: relax.Tuple([r.get(v) for v in wanted]) if len(wanted) > 1 else r.get(wanted[0]),
        params=lambda name, _: [*fed, *(func.params[cache.input] for cache in kept)],
    )
    return Arranged(found, len(kept), given)


def _position(func: Any, held: Caches) -> int | None:
    """The number of the position among the inputs that are no caches."""
    return None if held.position is None else fed_inputs(func, range(len(func.params))).index(held.position)


def _state(caches: Sequence[Tensor], held: Caches, position: int | None) -> State:
    """What the program keeps on the GPU."""
    return State(sum(t.nbytes for t in caches), tuple(caches), position, held.context)


def _source(name: str, params: Sequence[Tensor], arranged: Arranged, position: int | None) -> str:
    """The program, which knows its inputs itself: it runs before the rest of the folder is written."""
    assert __package__
    listed = [(t.name, t.shape, t.dtype) for t in params]
    count = len(params) - arranged.caches
    filled = {
        "NAME": name, "INPUTS": repr(listed[:count]), "CACHES": repr(listed[count:]),
        "GIVEN": repr(arranged.given), "POSITION": repr(position),
    }  # fmt: skip
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
