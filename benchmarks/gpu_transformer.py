"""A sentence encoder on a GPU, all in integers: equal to the reference bit by bit; beside torch in bfloat16.

python benchmarks/gpu_transformer.py build FOLDER [--batch 32] [--tokens 128]    where nvcc is
python benchmarks/gpu_transformer.py run FOLDER         on the GPU, with TVM's runtime and PyTorch

The model of sts-minilm-l6; torch's has the same shapes and random weights. Microseconds are medians of 100
calls from Python, with a synchronization before and behind each.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_LAYERS, _WIDTH, _HEADS, _WORDS = 6, 384, 12, 6620
_ROUNDS = 100


def build(folder: Path, data: Path, batch: int, tokens: int) -> None:
    """encoder.so, and encoder.npz with inputs and the outputs of the reference."""
    import tvm

    from hwptq import passes
    from hwptq.backends.tvm_cuda.cuda_compile import compile_cuda
    from hwptq.data.dataset import from_batches
    from hwptq.evaluate.interpret import Interpreter
    from hwptq.frontends.onnx.importer import import_onnx
    from hwptq.ir.dataflow import main_functions
    from hwptq.ir.provenance import origins
    from hwptq.options import Options
    from hwptq.pipeline.stages import prepare
    from hwptq.pipeline.step import Job
    from hwptq.recipe import recipe
    from hwptq.targets import load_target

    def run(mod: Any, *steps: Any) -> Any:
        return tvm.ir.transform.Sequential(list(steps))(mod)

    target = load_target("nvidia-hopper-fp8")
    samples = _samples(np.load(data / "sts-minilm-l6" / "calib.npz"), batch, tokens)
    model = import_onnx(data / "sts-minilm-l6" / "model.onnx", axes={"N": batch, "S": tokens})
    job = Job(target, from_batches(samples, model.inputs), Options(recipe=recipe("fast", ["smooth=off"])))
    prepared = prepare(model.module, job)
    (function,) = (f for _, f in main_functions(prepared.float32))
    pairs = {origin.label: ("int8", "int8") for origin in origins(function).values()}
    qdq = run(prepared.float32, passes.InsertQDQ(target, prepared.stats, assignment=pairs))
    integer = run(qdq, passes.LowerToInteger(target))
    kernels = run(integer, passes.JoinKernels(target), passes.SelectKernels(target))
    compile_cuda(kernels, target.tvm).export_library(str(folder / "encoder.so"))
    reference = Interpreter(integer)
    expected = np.stack([reference.run(sample)[0] for sample in samples[:2]])
    given = {name: np.stack([sample[name] for sample in samples[:2]]) for name in samples[0]}
    np.savez_compressed(folder / "encoder.npz", expected=expected, **given)


def _samples(stored: Any, batch: int, tokens: int) -> list[dict[str, np.ndarray]]:
    """Batches of sentences, half of them with the next ones behind until no token is left to hide."""
    ids, mask = (stored[name].astype(np.int64) for name in ("input_ids", "attention_mask"))
    rows = np.zeros((len(ids), tokens), np.int64)
    for i, row in enumerate(rows):
        which = range(i, i + 5) if i % 2 else range(i, i + 1)
        words = np.concatenate([ids[k % len(ids)][mask[k % len(ids)] > 0] for k in which])[:tokens]
        row[: len(words)] = words
    whole = rows[: len(rows) // batch * batch].reshape(-1, batch, tokens)
    return [{"input_ids": b, "attention_mask": (b > 0).astype(np.int64)} for b in whole]


def encoder(torch: Any) -> Any:
    """The same shapes in PyTorch, bfloat16, random weights: (ids, mask) -> embeddings."""
    nn, f = torch.nn, torch.nn.functional

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(_WIDTH, _WIDTH) for _ in range(4))
            self.a, self.b = nn.Linear(_WIDTH, 4 * _WIDTH), nn.Linear(4 * _WIDTH, _WIDTH)
            self.n, self.m = nn.LayerNorm(_WIDTH, 1e-12), nn.LayerNorm(_WIDTH, 1e-12)

        def forward(self, x: Any, mask: Any) -> Any:
            heads = (*x.shape[:2], _HEADS, -1)
            q, k, v = (layer(x).view(heads).transpose(1, 2) for layer in (self.q, self.k, self.v))
            y = f.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(x.shape)
            x = self.n(x + self.o(y))
            return self.m(x + self.b(f.gelu(self.a(x))))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = (_WORDS, 512, 2)
            self.w, self.p, self.t = (nn.Embedding(size, _WIDTH) for size in sizes)
            self.n, self.layers = nn.LayerNorm(_WIDTH, 1e-12), nn.ModuleList(Layer() for _ in range(_LAYERS))

        def forward(self, ids: Any, mask: Any) -> Any:
            tokens = ids.shape[1]
            x = self.n(self.w(ids) + self.p.weight[:tokens] + self.t.weight[0])
            shown = (mask != 0)[:, None, None, :].expand(-1, 1, tokens, -1)
            for layer in self.layers:
                x = layer(x, shown)
            weights = mask.unsqueeze(-1).to(x.dtype)
            mean = (x * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            return f.normalize(mean.float(), dim=1)

    return Encoder().cuda().eval().to(torch.bfloat16)


def run(folder: Path) -> None:
    """Values that differ from the reference, and the times beside torch."""
    os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
    import torch
    import tvm
    import tvm.libinfo
    from tvm_ffi import libinfo

    for name in ("tvm_runtime_extra", "tvm_runtime_cuda"):
        libinfo.load_lib_ctypes("apache-tvm", name, "RTLD_GLOBAL", tvm.libinfo.package_lib_paths())
    from tvm.runtime.vm import VirtualMachine

    device = tvm.cuda(0)
    main = VirtualMachine(tvm.runtime.load_module(str(folder / "encoder.so")), device)["main"]
    stored, values, wrong = np.load(folder / "encoder.npz"), 0, 0
    names = "input_ids", "attention_mask", "expected"
    for ids, mask, expected in zip(*(stored[n] for n in names), strict=True):
        given = [tvm.runtime.tensor(a, device) for a in (ids, mask)]
        found = main(*given).numpy()
        values += found.size
        wrong += int((found.view(np.uint32) != expected.view(np.uint32)).sum())
    times = {"hwptq": microseconds(torch, lambda: main(*given))}
    with torch.no_grad():
        model, inputs = encoder(torch), [torch.from_numpy(a).cuda() for a in (ids, mask)]
        forms = {"torch, CUDA graph": model, "torch.compile, CUDA graph": torch.compile(model, dynamic=False)}
        for name, form in forms.items():
            times[name] = microseconds(torch, graph(torch, form, inputs))
    print(json.dumps({"values": values, "mismatches": wrong, "us": times}))


def graph(torch: Any, form: Any, inputs: list[Any]) -> Callable[[], Any]:
    """What replays a call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            form(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        form(*inputs)
    return captured.replay


def microseconds(torch: Any, call: Callable[[], Any]) -> float:
    """The median of a call, with what it started."""
    times = []
    for turn in range(_ROUNDS + 10):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if turn >= 10:
            times.append(time.perf_counter() - begin)
    return round(1e6 * statistics.median(times), 1)


def main() -> None:
    if sys.argv[1:2] == ["run"]:  # that machine may have no hwptq
        return run(Path(sys.argv[2]))
    from common import parser

    command = parser(__doc__)
    command.add_argument("what", choices=("build", "run"))
    command.add_argument("folder", type=Path)
    command.add_argument("--batch", type=int, default=32)
    command.add_argument("--tokens", type=int, default=128)
    arguments = command.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    return build(arguments.folder, arguments.data, arguments.batch, arguments.tokens)


if __name__ == "__main__":
    main()
