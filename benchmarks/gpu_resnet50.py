"""ResNet-50 in e4m3 for the GPU benchmarks: modules for TVM's virtual machine at several batch sizes.

Its constants are quantized once, from one image; the result of the emulator on that image goes with them.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from models import RESNET50, load_case
from onnx import numpy_helper

from hwptq.backends.tvm_cuda.cuda_compile import compile_cuda
from hwptq.data.dataset import from_batches
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.options import Options
from hwptq.pipeline.stages import fuse, insert, lower, prepare
from hwptq.pipeline.step import Job
from hwptq.recipe import RECIPES
from hwptq.targets import load_target

BATCHES = (1, 128)
FEATURES = 2048


def build_resnet50(folder: Path) -> None:
    """resnet50_<batch>.so for every batch, and resnet50.npz: an image and the emulator's output for it."""
    target, options = load_target("nvidia-hopper-fp8"), Options(recipe=RECIPES["fast"])
    with tempfile.TemporaryDirectory() as scratch:
        case = load_case(RESNET50, Path(), Path(scratch))
        _free_batch(case.model)
        model = import_onnx(case.model)
        data = from_batches(case.samples[:1], model.inputs, None)
        job = Job(target, data, options)
        prepared = prepare(model.module, job)
        for batch in BATCHES:
            if batch > 1:
                prepared = replace(prepared, float32=fuse(import_onnx(case.model, {"N": batch}).module))
            graphs = lower(insert(prepared, job), job)
            compile_cuda(graphs.kernels, target.tvm).export_library(str(folder / f"resnet50_{batch}.so"))
            if batch == 1:
                found = Interpreter(graphs.integer).run(case.samples[0])[0]
                np.savez(folder / "resnet50.npz", image=next(iter(case.samples[0].values())), output=found)


def _free_batch(path: Path) -> None:
    """Let the first axis of the input be N, in the file at `path`."""
    proto = onnx.load(str(path))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    for tensor in proto.graph.initializer:
        shape = numpy_helper.to_array(tensor)
        if shape.dtype == np.int64 and shape.tolist() == [1, FEATURES]:  # where features become a matrix
            tensor.CopyFrom(numpy_helper.from_array(np.array([0, FEATURES]), tensor.name))
    onnx.save(proto, str(path))
