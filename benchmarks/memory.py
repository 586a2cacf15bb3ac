"""Peak memory of calibrating on images of 224 x 224: 512 of them against 64.

python benchmarks/memory.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import parser, row
from onnx import TensorProto, helper, numpy_helper, save

BOUND = 1.1
PREPROCESS = '[input]\nlayout = "NCHW"\nmean = [124, 116, 104]\nstd = [58, 57, 57]\n'
command = parser(__doc__)
command.add_argument(
    "--only", type=int, help="calibrate on N images in this process and print its peak in kB"
)
command.add_argument("--folder", type=Path, help="where the model and the images lie, for --only")


def main() -> None:
    """Each number of images in a process of its own."""
    args = command.parse_args()
    if args.only:
        print(_calibrate(args.folder, args.only))
        return
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder))
        few, many = (_peak(folder, count) for count in (64, 512))
    figure = f"{few} MB for 64 images, {many} MB for 512: {many / few:.3f} times (bound {BOUND})"
    row("peak RSS of calibrating", figure, many <= BOUND * few)


def _peak(folder: str, count: int) -> int:
    process = [sys.executable, __file__, "--only", str(count), "--folder", folder]
    return int(subprocess.run(process, check=True, capture_output=True, text=True).stdout) // 1000


def _calibrate(folder: Path, count: int) -> int:
    import hwptq
    from hwptq.data.dataset import open_dataset
    from hwptq.data.preprocess import load_preprocess
    from hwptq.frontends.onnx.importer import import_onnx
    from hwptq.pipeline.stages import fuse

    model = import_onnx(folder / "model.onnx")
    data = open_dataset(folder / f"{count}.npz", model.inputs, load_preprocess(folder / "preprocess.toml"))
    hwptq.calibrate(fuse(model.module), (sample.inputs for sample in data))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _write(folder: Path) -> None:
    """A small convolutional model, and noise for it: memory does not depend on what the pixels show."""
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.normal(size=(16, 3, 3, 3)),
        "w1": rng.normal(size=(32, 16, 3, 3)),
        "w2": rng.normal(size=(32, 10)),
    }
    stride = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["input", "w0"], ["a"], **stride),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["c"], **stride),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("MatMul", ["e", "w2"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    x = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "images", [x], [y], tensors)
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        folder / "model.onnx",
    )
    (folder / "preprocess.toml").write_text(PREPROCESS, encoding="utf-8")
    for count in (64, 512):
        np.savez_compressed(folder / f"{count}.npz", x=rng.integers(0, 256, (count, 224, 224, 3), np.uint8))


if __name__ == "__main__":
    main()
