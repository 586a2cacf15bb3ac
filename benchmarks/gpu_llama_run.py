"""Time what gpu_llama.py built beside the same layers in torch in bfloat16, on a GPU.

python benchmarks/gpu_llama_run.py FOLDER

Microseconds are medians of 100 calls, with a synchronization before and behind each; torch runs in a CUDA
graph, as it is and as torch.compile makes it. Weights and tokens are random.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_device import Device

_ROUNDS = 100
_WIDTH, _INNER, _HEADS, _SHARED, _SIZE, _WORDS = 4096, 14336, 32, 8, 128, 64
_PLACE = 128  # of the token that a step reads


def model(torch: Any, layers: int, tokens: int, context: int) -> Callable[[Any], Any]:
    """input_ids [1,tokens] -> logits: at once, or one token at _PLACE behind caches of `context` rows."""
    nn, f = torch.nn, torch.nn.functional

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            linear = lambda n, m: nn.Linear(n, m, bias=False)  # noqa: E731
            self.qkv = linear(_WIDTH, (_HEADS + 2 * _SHARED) * _SIZE)
            self.o, self.down = linear(_HEADS * _SIZE, _WIDTH), linear(_INNER, _WIDTH)
            self.gate_up = linear(_WIDTH, 2 * _INNER)
            self.n, self.m = nn.RMSNorm(_WIDTH, 1e-5), nn.RMSNorm(_WIDTH, 1e-5)
            shape = (1, _SHARED, context, _SIZE)
            self.register_buffer("k", torch.zeros(shape))
            self.register_buffer("v", torch.zeros(shape))

        def forward(self, x: Any, cos: Any, sin: Any, mask: Any) -> Any:
            sizes = (_HEADS * _SIZE, _SHARED * _SIZE, _SHARED * _SIZE)
            q, k, v = (
                t.view(1, tokens, -1, _SIZE).transpose(1, 2) for t in self.qkv(self.n(x)).split(sizes, -1)
            )
            half = _SIZE // 2
            q, k = (t * cos + torch.cat((-t[..., half:], t[..., :half]), -1) * sin for t in (q, k))
            if tokens == 1:
                self.k[:, :, _PLACE : _PLACE + 1], self.v[:, :, _PLACE : _PLACE + 1] = k, v
                k, v = self.k[:, :, : _PLACE + 1], self.v[:, :, : _PLACE + 1]
            y = f.scaled_dot_product_attention(q, k, v, is_causal=tokens > 1, enable_gqa=True)
            x = x + self.o(y.transpose(1, 2).reshape(1, tokens, -1))
            gate, up = self.gate_up(self.m(x)).chunk(2, -1)
            return x + self.down(f.silu(gate) * up)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.layers = nn.Embedding(_WORDS, _WIDTH), nn.ModuleList(Layer() for _ in range(layers))
            self.n = nn.RMSNorm(_WIDTH, 1e-5)
            self.register_buffer("turns", torch.randn(2, tokens, _SIZE))

        def forward(self, ids: Any) -> Any:
            x = self.w(ids)
            for layer in self.layers:
                x = layer(x, self.turns[0], self.turns[1], None)
            return self.n(x) @ self.w.weight.T

    found = Model().cuda().eval().to(torch.bfloat16)
    return found  # type: ignore[no-any-return]


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


def arguments(device: Device, plan: dict[str, Any], step: bool) -> list[Any]:
    """Tensors for main: tokens, the place of a step, caches of zeros, random weights."""
    torch, made = device.torch, []
    first_weight = len(plan["params"]) - plan["weights"]
    for number, (shape, dtype) in enumerate(plan["params"]):
        kind = getattr(torch, dtype)
        if number == 0:
            tensor = torch.randint(0, _WORDS, shape, dtype=kind)
        elif number < plan["fed"]:
            tensor = torch.full(shape, _PLACE, dtype=kind)
        elif number < first_weight:
            tensor = torch.zeros(shape, dtype=kind)
        elif dtype.startswith("float"):
            tensor = (torch.randn(shape) * 0.01).to(kind)
        else:
            tensor = torch.randint(0, 100, shape).to(kind)
        made.append(device.take(tensor.cuda()))
    return made


def main() -> None:
    folder, device = Path(sys.argv[1]), Device()
    torch = device.torch
    from tvm.runtime.vm import VirtualMachine

    for library in sorted(folder.glob("*.so")):
        plan = json.loads(library.with_suffix(".json").read_text())
        step = library.stem.startswith("decode")
        machine = VirtualMachine(device.tvm.runtime.load_module(str(library)), device.tvm.cuda(0))
        given = arguments(device, plan, step)
        times = {"hwptq": microseconds(torch, lambda m=machine, g=given: m["main"](*g))}
        with torch.no_grad():
            tokens = 1 if step else plan["context"]
            other = model(torch, plan["layers"], tokens, plan["context"])
            ids = torch.randint(0, _WORDS, (1, tokens)).cuda()
            times["torch"] = microseconds(torch, graph(torch, other, [ids]))
            compiled = torch.compile(other, dynamic=False)
            times["torch.compile"] = microseconds(torch, graph(torch, compiled, [ids]))
        print(json.dumps({"case": library.stem, "layers": plan["layers"], "us": times}))


if __name__ == "__main__":
    main()
