"""The arithmetic of esp-dl-p4-like beside ESP-PPQ's own simulation: differing outputs of a quantized network.

    python -m venv esp && esp/bin/pip install esp-ppq
    python benchmarks/esp_dl.py --peer esp/bin/python [--samples 15]

ESP-PPQ quantizes a network of random weights for the ESP32-P4 (esp32p4: scales that are powers of two, half
to even), simulates it, and writes it with QuantizeLinear and DequantizeLinear. That file is compiled, and the
outputs of the emitted code are compared with those of the simulation, value by value. It works on files of
its own. `--target riscv32-imc` shows what another rounding would give.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 3, 16, 16)
CHANNELS = 16


def network(seed: int = 0) -> onnx.ModelProto:
    """Convolutions, a depthwise one among them, and a residual sum: to [1,16,16,16]."""
    rng, nodes, weights = np.random.default_rng(seed), [], []

    def conv(x: str, ci: int, co: int, size: int, groups: int = 1) -> str:
        name = f"conv{len(nodes)}"
        fan = ci // groups * size * size
        for key, array in (
            ("w", rng.normal(0, (2 / fan) ** 0.5, (co, ci // groups, size, size))),
            ("b", rng.normal(0, 0.2, co)),
        ):
            weights.append(numpy_helper.from_array(array.astype(np.float32), f"{name}.{key}"))
        nodes.append(
            helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [name], name, kernel_shape=[size, size],
                             pads=[size // 2] * 4, group=groups)
        )  # fmt: skip
        return name

    def relu(x: str) -> str:
        nodes.append(helper.make_node("Relu", [x], [f"{x}.relu"], f"{x}.relu"))
        return f"{x}.relu"

    a = relu(conv("x", 3, CHANNELS, 3))
    b = relu(conv(a, CHANNELS, CHANNELS, 3, CHANNELS))
    c = conv(b, CHANNELS, CHANNELS, 1)
    nodes.append(helper.make_node("Add", [a, c], ["sum"], "sum"))
    y = conv(relu("sum"), CHANNELS, CHANNELS, 3)
    shapes = {"x": list(SHAPE), y: [1, CHANNELS, *SHAPE[2:]]}
    given, made = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())
    graph = helper.make_graph(nodes, "network", [given], [made], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def samples(count: int) -> np.ndarray:
    """Inputs, some of them beyond the range of calibration."""
    rng = np.random.default_rng(1)
    return (rng.normal(0, 1, (count, *SHAPE)) * rng.uniform(0.3, 1.6, (count, 1, 1, 1, 1))).astype(np.float32)


def simulate(folder: Path, count: int) -> None:
    """What the peer does: quantized.onnx, and inputs and outputs of its simulation in simulated.npz."""
    import torch
    from esp_ppq.api import espdl_quantize_onnx, export_ppq_graph
    from esp_ppq.core import TargetPlatform
    from esp_ppq.executor import TorchExecutor

    onnx.save(network(), str(folder / "float.onnx"))
    inputs = [torch.from_numpy(x) for x in samples(count)]
    graph = espdl_quantize_onnx(
        onnx_import_file=str(folder / "float.onnx"), espdl_export_file=str(folder / "float.espdl"),
        calib_dataloader=inputs[:8], calib_steps=8, input_shape=[list(SHAPE)], target="esp32p4",
        num_of_bits=8, device="cpu", error_report=False, skip_export=True, verbose=0,
    )  # fmt: skip
    executor = TorchExecutor(graph, device="cpu")
    outputs = [executor.forward(x)[0].detach().numpy() for x in inputs]
    np.savez(folder / "simulated.npz", x=np.stack([x.numpy()[0] for x in inputs]), y=np.concatenate(outputs))
    export_ppq_graph(graph, TargetPlatform.ONNXRUNTIME, str(folder / "quantized.onnx"))


def main() -> None:
    """The process fails where a value differs."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--peer", help="a Python interpreter with esp-ppq")
    command.add_argument("--samples", type=int, default=15)
    command.add_argument("--target", default="esp-dl-p4-like")
    command.add_argument("--simulate", type=Path, help="a folder: be the peer")
    args = command.parse_args()
    if args.simulate:
        simulate(args.simulate, args.samples)
        return
    import hwptq  # which the peer's interpreter lacks

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        options = ["--simulate", str(folder), "--samples", str(args.samples)]
        subprocess.run([args.peer, __file__, *options], check=True, stdout=subprocess.DEVNULL)
        found = np.load(folder / "simulated.npz")
        batches = [{"x": x[None]} for x in found["x"]]
        model = hwptq.compile(
            str(folder / "quantized.onnx"), args.target, evaluation_data=batches, output=folder / "out"
        )
        ours = np.concatenate([next(iter(model.run(batch).values())) for batch in batches])
        report = model.report
    differ, size = np.count_nonzero(ours != found["y"]), found["y"].size
    levels = len(np.unique(found["y"]))
    covered, exact = report["coverage"], report["bit_exact"]
    print(f"{differ} of {size} values differ, of {levels} levels; {exact['mismatches']} of the reference's")
    print(f"in integers: {covered['macs_quantized']} of {covered['macs_total']} multiply-accumulates")
    sys.exit(differ > 0 or covered["nodes_float"] != [])


if __name__ == "__main__":
    main()
