"""A layer of a Llama on a GPU: a token behind 128 others with int4 weights by group, and a text read at once.

python benchmarks/gpu_llama.py FOLDER [--layers 1] [--context 2048] [--only decode_w4a8]    where nvcc is
python benchmarks/gpu_llama_run.py FOLDER                  on the GPU, with TVM's runtime and PyTorch

The shapes are those of Llama 3 8B but for its words; large weights are parameters here, so that they need
not be carried, and are random there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from llama_graph import Llama, decoding_step, reading

_LARGE = 2**16  # bytes
_TARGET = "nvidia-hopper-fp8"
_CASES = {"decode_w4a8": "w4a8", "decode_w8a8": "w8a8", "read_w8a8": "w8a8"}


def form(layers: int, context: int) -> Llama:
    """Llama 3 8B of so many layers and few words."""
    return Llama(4096, 14336, 32, 8, 128, layers, 64, context)


def build(folder: Path, name: str, layers: int, context: int) -> None:
    """name.so, and name.json: of each parameter the shape and dtype, and what it is."""
    from hwptq.backends.tvm_cuda.cuda_compile import compile_cuda
    from hwptq.backends.tvm_cuda.cuda_program import arranged
    from hwptq.frontends.onnx.importer import import_onnx
    from hwptq.ir.caches import caches_of
    from hwptq.options import Options
    from hwptq.passes import CarryCaches
    from hwptq.pipeline.stages import dynamic, integers, kernels
    from hwptq.pipeline.step import Job
    from hwptq.targets import load_target

    target, by_step = load_target(_TARGET), name.startswith("decode")
    grouped = {"weight_granularity": "group", "group": 32} if _CASES[name] == "w4a8" else {}
    options = Options(activations="dynamic", precision=_CASES[name], **grouped)
    sizes = form(layers, context)
    with TemporaryDirectory() as scratch:
        onnx.save(decoding_step(sizes) if by_step else reading(sizes), f"{scratch}/llama.onnx")
        model = import_onnx(Path(scratch) / "llama.onnx")
    module = CarryCaches()(model.module) if by_step else model.module
    job = Job(target, None, options)
    mod, caches = kernels(integers(dynamic(module, job), job), job), 0
    held = caches_of(mod["main"])
    if held:
        found = arranged(mod, held)
        mod, caches = found.mod, found.caches
    fed = len(mod["main"].params) - caches
    mod, weights = _with_parameters(mod)
    params = [(tuple(map(int, p.ty.shape.values)), str(p.ty.dtype)) for p in mod["main"].params]
    compile_cuda(mod, target.tvm, fed).export_library(str(folder / f"{name}.so"))
    plan = {"params": params, "fed": fed, "weights": weights, "layers": layers, "context": context}
    (folder / f"{name}.json").write_text(json.dumps(plan))


def _with_parameters(mod: Any) -> tuple[Any, int]:
    """The module with large constants as parameters behind the others, and how many these are."""
    from tvm import relax

    from hwptq.ir.dataflow import bindings, constant, rewrite

    taken: dict[Any, Any] = {}

    def replaced(arg: Any) -> Any:
        if isinstance(arg, relax.Tuple):
            return relax.Tuple([replaced(f) for f in arg.fields])
        return taken.get(arg, arg)

    for _, value in bindings(mod["main"]):
        for arg in getattr(value, "args", ()):
            for a in getattr(arg, "fields", [arg]):
                array = constant(a)
                if array is not None and array.nbytes >= _LARGE and a not in taken:
                    kind = relax.TensorType(array.shape, str(array.dtype))
                    taken[a] = relax.Var(f"weight_{len(taken)}", kind)

    def visit(r: Any, var: Any, value: Any) -> Any:
        kept = r.keep(value)
        if not isinstance(kept, relax.Call):
            return kept
        return relax.Call(kept.op, [replaced(a) for a in kept.args], kept.attrs, kept.ty_args)

    made = rewrite(mod, visit, params=lambda _, func: [*func.params, *taken.values()])
    return made, len(taken)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    command.add_argument("folder", type=Path)
    command.add_argument("--layers", type=int, default=1)
    command.add_argument("--context", type=int, default=2048)
    command.add_argument("--only", choices=tuple(_CASES))
    arguments = command.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in [arguments.only] if arguments.only else _CASES:
        build(arguments.folder, name, arguments.layers, arguments.context)


if __name__ == "__main__":
    main()
