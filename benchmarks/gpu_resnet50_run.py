"""Time ResNet-50 in e4m3 beside torch in bfloat16, on a machine with an NVIDIA Hopper GPU.

    python benchmarks/gpu_resnet50_run.py FOLDER [--compile] [--json FILE]

FOLDER is what benchmarks/gpu_build.py wrote. torch runs torchvision's network with its normalizations folded,
channels last, in a CUDA graph: eager, and with --compile after torch.compile too. All contenders of a batch
are timed in turn, from Python, call to result.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from gpu_device import load_runtime

BATCHES = (1, 128)
Run = Callable[[], Any]


def hwptq(tvm: Any, folder: Path, batch: int) -> Callable[[np.ndarray], tuple[Run, Any]]:
    """images [batch,3,224,224] -> (a call on them, its output)."""
    from tvm.runtime.vm import VirtualMachine

    device = tvm.cuda(0)
    machine = VirtualMachine(tvm.runtime.load_module(str(folder / f"resnet50_{batch}.so")), device)

    def prepare(images: np.ndarray) -> tuple[Run, Any]:
        x, main = tvm.runtime.tensor(images, device), machine["main"]
        found = main(x)
        return (lambda: main(x)), (found if hasattr(found, "numpy") else found[0]).numpy()

    return prepare


def torch_network(torch: Any, compiled: bool) -> Any:
    """torchvision's ResNet-50 for inference in bfloat16, channels last."""
    import torchvision
    from torch.fx.experimental.optimization import fuse

    network = fuse(torchvision.models.resnet50().eval()).cuda().to(torch.bfloat16)
    network = network.to(memory_format=torch.channels_last)
    return torch.compile(network, mode="max-autotune-no-cudagraphs") if compiled else network


def captured(torch: Any, network: Any, images: np.ndarray) -> Run:
    """The network in a CUDA graph."""
    x = torch.from_numpy(images).cuda().to(torch.bfloat16).to(memory_format=torch.channels_last)
    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(3):
            network(x)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph, stream=stream):
        network(x)
    return graph.replay


def medians_us(torch: Any, contenders: dict[str, Run], rounds: int) -> dict[str, float]:
    """Microseconds of a call, the device idle before and after; all in turn, round by round."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 5):
        for name, run in contenders.items():
            torch.cuda.synchronize()
            begin = time.perf_counter()
            run()
            torch.cuda.synchronize()
            if turn >= 5:
                times[name].append(1e6 * (time.perf_counter() - begin))
    return {name: round(statistics.median(found), 1) for name, found in times.items()}


def kernel_times(torch: Any, run: Run, repeats: int = 5) -> list[tuple[str, float, int]]:
    """(kernel, microseconds of a call, launches of a call), the longest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(repeats):
            run()
        torch.cuda.synchronize()
    rows = [(e.key, e.self_device_time_total / repeats, e.count // repeats) for e in found.key_averages()]
    return sorted(((n, round(t, 1), c) for n, t, c in rows if t), key=lambda row: -row[1])


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    command.add_argument("folder", type=Path)
    command.add_argument("--compile", action="store_true", help="torch.compile as another contender")
    command.add_argument("--json", type=Path, help="write the results there")
    arguments = command.parse_args()
    import torch

    tvm = load_runtime()
    torch.backends.cudnn.benchmark = True
    query = [
        "nvidia-smi",
        "--format=csv,noheader",
        "--query-gpu=name,driver_version,clocks.max.sm,clocks.mem",
    ]
    card = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    results: dict[str, Any] = {"date": str(date.today()), "card": card}
    print(results)
    golden = np.load(arguments.folder / "resnet50.npz")
    first = None
    for batch in BATCHES:
        if not (arguments.folder / f"resnet50_{batch}.so").is_file():
            continue
        images = np.repeat(golden["image"], batch, axis=0)
        ours, output = hwptq(tvm, arguments.folder, batch)(images)
        expected = golden["output"] if first is None else first
        first = output[:1] if first is None else first
        row: dict[str, Any] = {"values": int(output.size), "differ": int((output != expected).sum())}
        row["largest difference"] = float(np.abs(output - expected).max())
        contenders = {"hwptq": ours, "torch": captured(torch, torch_network(torch, False), images)}
        if arguments.compile:
            contenders["torch.compile"] = captured(torch, torch_network(torch, True), images)
        row |= medians_us(torch, contenders, 200 if batch == 1 else 50)
        row["kernels"] = kernel_times(torch, ours)
        results[str(batch)] = row
        print(batch, {name: value for name, value in row.items() if name != "kernels"})
        for kernel in row["kernels"][:24]:
            print("   ", *kernel)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
