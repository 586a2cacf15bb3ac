"""Models of ONNX Runtime and OpenVINO beside the programs of carry_build.py, for carry_run.py to time.

    PEER/bin/python benchmarks/carry_peers.py --data DATA --output FOLDER [--models resnet20]

In a Python that has onnxruntime, openvino and nncf beside what hwptq needs. FOLDER gets <model>.int8.onnx
(QDQ, per channel) and <model>.int8.xml with its .bin (NNCF); on the other machine each is timed where its
runtime is found.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import nncf
import openvino
from models import NAMES, Case, load_case
from onnx_runtime import quantize


def write_openvino(case: Case, path: Path) -> None:
    """What NNCF's default method makes of the case, at `path` (.xml) and beside it."""
    samples = list(case.samples)
    graph = openvino.Core().read_model(str(case.model))
    graph.reshape({name: list(value.shape) for name, value in samples[0].items()})
    quantized = nncf.quantize(graph, nncf.Dataset(samples), subset_size=len(samples))
    openvino.save_model(quantized, str(path), compress_to_fp16=False)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    command.add_argument("--data", type=Path, required=True)
    command.add_argument("--models", default=",".join(NAMES))
    command.add_argument("--output", type=Path, required=True)
    arguments = command.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.models.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            case = load_case(name, arguments.data, Path(scratch))
            shutil.copy(quantize(case, Path(scratch)), arguments.output / f"{name}.int8.onnx")
            write_openvino(case, arguments.output / f"{name}.int8.xml")
        print(name, flush=True)


if __name__ == "__main__":
    main()
