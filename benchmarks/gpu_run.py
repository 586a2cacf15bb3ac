"""Run what benchmarks/gpu_build.py built, on a machine with one NVIDIA Hopper GPU, PyTorch and TVM's runtime.

    python benchmarks/gpu_run.py equality FOLDER      the kernels against the emulator, bit by bit
    python benchmarks/gpu_run.py speed FOLDER         the kernels against cuBLASLt, torch and cuDNN
    python benchmarks/gpu_run.py model FOLDER         folders of `hwptq compile`: golden outputs and latency
    python benchmarks/gpu_run.py accuracy FOLDER --data DATA       the same folders on all images of DATA

It reads the card's clocks, and changes none.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gpu_cases import E4M3, FLOAT32, Case, data, equality_cases, speed_cases
from gpu_device import Device

from hwptq.data.dataset import open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.formats import fp8
from hwptq.kernels.cuda.packing import filled, packed_weights
from hwptq.operators.conv2d import FloatConv2d
from hwptq.quant.float_values import clamp
from hwptq.quant.fma import fma
from hwptq.quant.fp8_accumulate import Accumulator, product


def operands(case: Case, kind: str) -> dict[str, np.ndarray]:
    """x, w, scale, bias, residual and its factor; scales are no powers of two."""
    p = case.tiling.problem
    seed = sum(map(ord, case.name))
    rng = np.random.default_rng(seed)
    w_shape = (p.groups_of_weights * p.outputs, p.taps, p.images[3])
    depth = p.depth**0.5
    return {
        "x": data(kind, p.images, seed),
        "w": data("normal", w_shape, seed + 1),
        "scale": (rng.uniform(0.3, 3, p.outputs) / depth).astype(np.float32),
        "bias": rng.standard_normal(p.outputs).astype(np.float32),
        "residual": data("normal", (p.rows, p.outputs), seed + 2),
        "factor": np.array([0.7], np.float32),
    }


def expected(case: Case, o: dict[str, np.ndarray]) -> np.ndarray:
    """The emulator's output, [rows, outputs]: codes, or float32."""
    p = case.tiling.problem
    model = (32, 13, p.promote)
    lo = 0.0 if case.relu else -np.inf
    if p.groups_of_weights > 1:
        w = o["w"].reshape(p.groups_of_weights, p.outputs, -1)
        acc = product(o["x"][:, 0], w, Accumulator(*model)).reshape(p.rows, p.outputs)
        return clamp(fma(acc, o["scale"], o["bias"]), lo, np.inf)
    bottom, right = (
        (out - 1) * s + d * (k - 1) + 1 - before - extent
        for out, s, d, k, before, extent in zip(
            p.out_shape, p.strides, p.dilation, p.kernel, p.padding, p.images[1:3], strict=True
        )
    )
    padding = (*p.padding, max(bottom, 0), max(right, 0))
    x = o["x"][:, : p.images[1] + min(bottom, 0), : p.images[2] + min(right, 0)]
    residual = [fp8.as_float8(o["residual"].reshape(p.images[0], *p.out_shape, p.outputs))]
    op = FloatConv2d(
        p.strides,
        padding,
        p.dilation,
        1,
        lo,
        np.inf,
        case.out,
        model,
        float(o["factor"][0]) if case.residual else 0.0,
    )
    w = fp8.as_float8(o["w"].reshape(p.outputs, *p.kernel, p.images[3]))
    arguments = [*(residual if case.residual else []), w, o["scale"], o["bias"]]
    y = op.reference(fp8.as_float8(x), *arguments)
    y = y.reshape(p.rows, p.outputs)
    return fp8.as_codes(y) if case.out == E4M3 else y


def kernel_arguments(device: Device, case: Case, o: dict[str, np.ndarray]) -> list[Any]:
    t, p = case.tiling, case.tiling.problem
    groups = o["w"].reshape(p.groups_of_weights, p.outputs, p.taps, p.images[3])
    w = np.concatenate([fp8.as_codes(packed_weights(fp8.as_float8(g), t)) for g in groups])
    residual = o["residual"] if case.residual else np.zeros((1, 1), np.uint8)
    return [
        device.put(o["x"], True), device.put(residual, True), device.put(o["factor"]), device.put(w, True),
        device.put(filled(o["scale"], t)), device.put(filled(o["bias"], t)),
    ]  # fmt: skip


def _expected(job: tuple[Case, str]) -> np.ndarray:
    return expected(job[0], operands(*job))


def equality(folder: Path) -> dict[str, Any]:
    """Every kernel on two distributions; counts the values that differ in their bits."""
    jobs = [(case, kind) for case in equality_cases() for kind in ("normal", "positive")]
    with ProcessPoolExecutor() as pool:
        references = list(pool.map(_expected, jobs))
    device = Device()
    module = device.tvm.runtime.load_module(str(folder / "equality.so"))
    rows = []
    for (case, kind), reference in zip(jobs, references, strict=True):
        y = device.empty((case.tiling.problem.rows, case.tiling.problem.outputs), case.out)
        arguments = kernel_arguments(device, case, operands(case, kind))
        module[case.name](*(device.take(a) for a in [*arguments, y]))
        device.torch.cuda.synchronize()
        found = y.view(device.torch.uint8).cpu().numpy() if case.out == E4M3 else y.cpu().numpy()
        bits = np.uint8 if case.out == E4M3 else np.uint32
        differ = int((found.view(bits) != reference.view(bits)).sum())
        plain = case.out == FLOAT32 and float(np.abs(found - reference).max())
        rows.append(
            {"case": case.name, "data": kind, "values": found.size, "mismatches": differ, "max": plain}
        )
        if differ:
            print(rows[-1])
    wrong = sum(r["mismatches"] for r in rows)
    print(f"equality: {len(rows)} runs, {sum(r['values'] for r in rows)} values, {wrong} mismatches")
    return {"rows": rows}


def graph_of(torch: Any, calls: list[Callable[[], Any]]) -> tuple[Any, int]:
    """A CUDA graph of the calls, one behind the other, and how many there are."""
    import tvm_ffi

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), tvm_ffi.use_torch_stream(stream):
        for call in calls:
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    times = max(1, 20 // len(calls))
    with tvm_ffi.use_torch_stream(torch.cuda.graph(graph, stream=stream)):
        for _ in range(times):
            for call in calls:
                call()
    return graph, times * len(calls)


def medians_us(
    torch: Any, contenders: dict[str, list[Callable[[], Any]]], rounds: int = 25
) -> dict[str, float]:
    """Microseconds per call of each contender, all in turn, round by round: clocks meet them alike."""
    graphs = {name: graph_of(torch, calls) for name, calls in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for turn in range(rounds + 2):
        for name, (graph, count) in graphs.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            if turn > 1:
                times[name].append(begin.elapsed_time(end) * 1000 / count)
    return {name: round(statistics.median(found), 2) for name, found in times.items()}


def speed(folder: Path) -> dict[str, Any]:
    """Each kernel beside the libraries."""
    device = Device()
    torch = device.torch
    module = device.tvm.runtime.load_module(str(folder / "speed.so"))
    torch.backends.cudnn.benchmark = True
    rows = []
    for group, case in speed_cases():
        try:
            tensors = speed_tensors(device, case)
            ours = [partial(module[case.name], *(device.take(a) for a in arguments)) for arguments in tensors]
            libraries = (gemm_libraries if group.startswith("gemm") else conv_library)(torch, tensors, case)
            found = medians_us(torch, {"us": ours, **libraries})
        except RuntimeError as error:
            print("failed", case.name, type(error).__name__, str(error)[:200])
            continue
        tile = case.tiling.tile
        shape = f"{tile.sharing} {64 * tile.strips}x{tile.columns}"
        rows.append({"group": group, "tile": shape, **found})
        print(rows[-1])
    return {"rows": rows}


def speed_tensors(device: Device, case: Case) -> list[list[Any]]:
    """Arguments of a kernel, in more sets than the cache holds; codes below 2 overflow nothing."""
    torch, p, t = device.torch, case.tiling.problem, case.tiling

    def codes(*shape: int) -> Any:
        bits = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")
        return (bits & 0xBF).view(torch.float8_e4m3fn)

    size = np.prod(p.images) + p.rows * p.outputs * p.out_bytes
    w, scale = codes(t.weight_rows, t.weight_depth), torch.full((t.weight_rows,), 0.01, device="cuda")
    none = torch.zeros((1, 1), dtype=torch.uint8, device="cuda").view(torch.float8_e4m3fn)
    return [
        [
            codes(*p.images), none, torch.zeros(1, device="cuda"), w, scale, torch.zeros_like(scale),
            device.empty((p.rows, p.outputs), case.out),
        ]
        for _ in range(int(max(1, min(8, 2e8 // size))))
    ]  # fmt: skip


Calls = dict[str, list[Callable[[], Any]]]


def gemm_libraries(torch: Any, tensors: list[list[Any]], case: Case) -> Calls:
    """cuBLASLt through torch._scaled_mm in the same mode and output type, and torch in bfloat16."""
    p = case.tiling.problem
    one, e4m3 = torch.ones(1, device="cuda"), case.out == E4M3
    dtype = torch.float8_e4m3fn if e4m3 else torch.bfloat16
    w = tensors[0][3][: p.outputs, : p.images[3]].contiguous().t()
    wide = torch.randn((p.images[3], p.outputs), device="cuda", dtype=torch.bfloat16)
    rows = [x.view(p.images[2], p.images[3]) for x, *_ in tensors]
    return {
        "cublaslt": [
            partial(
                torch._scaled_mm, a, w, scale_a=one, scale_b=one, scale_result=one if e4m3 else None,
                out_dtype=dtype, use_fast_accum=not p.promote,
            )
            for a in rows
        ],
        "torch_bf16": [partial(torch.mm, a.to(torch.bfloat16), wide) for a in rows[:2]],
    }  # fmt: skip


def conv_library(torch: Any, tensors: list[list[Any]], case: Case) -> Calls:
    """cuDNN's convolution in bfloat16, channels last, without bias or activation."""
    p = case.tiling.problem
    weight = torch.randn((p.outputs, p.images[3], *p.kernel), device="cuda", dtype=torch.bfloat16)
    weight = weight.to(memory_format=torch.channels_last)
    images = [x.to(torch.bfloat16).permute(0, 3, 1, 2) for x, *_ in tensors]
    conv2d = torch.nn.functional.conv2d
    return {"cudnn_bf16": [partial(conv2d, x, weight, stride=p.strides, padding=p.padding) for x in images]}


def model(folder: Path) -> dict[str, Any]:
    """Every output folder of hwptq below `folder`: its golden outputs on this GPU, and the time of a run."""
    rows = []
    for metadata in sorted(folder.glob("*/metadata.json")):
        done = subprocess.run(
            [sys.executable, str(metadata.parent / json.loads(metadata.read_text())["program"]), "--golden"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        line = (done.stdout.strip().splitlines() or [""])[-1]
        rows.append(json.loads(line) if done.returncode == 0 else {"error": done.stderr[-500:]})
        rows[-1]["folder"] = metadata.parent.name
        print(rows[-1])
    return {"rows": rows}


def accuracy(folder: Path, data_folder: Path) -> dict[str, Any]:
    """Top-1 of every output folder below `folder` on the evaluation data of `data_folder`, on this GPU."""
    data = next(p for p in (data_folder / "eval.npz", data_folder / "evaluation") if p.exists())
    rows = []
    for metadata in sorted(folder.glob("*/metadata.json")):
        described = json.loads(metadata.read_text())
        spec = importlib.util.spec_from_file_location("program", metadata.parent / described["program"])
        program = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(program)
        run, _ = program.load()
        inputs = {t["name"]: (tuple(t["shape"]), t["dtype"]) for t in described["inputs"]}
        samples = open_dataset(
            str(data),
            inputs,
            load_preprocess(data_folder / "preprocess.toml"),
        )
        hits = [int(run([s.inputs[n] for n in inputs])[0].argmax() == s.label) for s in samples]
        rows.append(
            {
                "folder": metadata.parent.name,
                "samples": len(hits),
                "top1": round(100 * sum(hits) / len(hits), 3),
            }
        )
        print(rows[-1])
    return {"rows": rows}


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    command.add_argument("what", choices=("equality", "speed", "model", "accuracy"))
    command.add_argument("folder", type=Path)
    command.add_argument("--data", type=Path, help="folder of eval.npz and preprocess.toml")
    command.add_argument("--json", type=Path, help="write the results there")
    arguments = command.parse_args()
    query = "--query-gpu=name,driver_version,clocks.sm,clocks.max.sm,clocks.mem"
    card = subprocess.run(
        ["nvidia-smi", "--format=csv,noheader", query],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    print(date.today(), card)
    results = {"date": str(date.today()), "card": card}
    if arguments.what == "accuracy":
        results |= accuracy(arguments.folder, arguments.data)
    else:
        results |= {"equality": equality, "speed": speed, "model": model}[arguments.what](arguments.folder)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
