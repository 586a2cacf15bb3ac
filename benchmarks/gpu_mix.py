"""One of the mixes of e4m3 and int8 that --max-drop chooses among, compiled and run on a machine with a GPU.

    python benchmarks/gpu_mix.py DATA --step 3 [--verified 12]

DATA holds model.onnx, preprocess.toml, and calib.npz and eval.npz or folders calibration and evaluation.
Step 0 of 16 is the cheapest mix, step 16 the dearest. Prints top-1 on all evaluation data, how many values of
the first samples differ from the reference, and the time of a run in microseconds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hwptq.backends.backend import backend_of
from hwptq.data.dataset import open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.metadata import write_metadata
from hwptq.pipeline.stages import insert, lower, prepare
from hwptq.pipeline.step import Job
from hwptq.search.choose import BitWidths, Chooser
from hwptq.search.drop_search import STEPS, budget_at
from hwptq.targets import load_target

TARGET = "nvidia-hopper-fp8"


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    command.add_argument("data", type=Path)
    command.add_argument("--step", type=int, required=True, help=f"0 … {STEPS}")
    command.add_argument("--verified", type=int, default=12, help="samples to compare with the reference")
    arguments = command.parse_args()
    target = load_target(TARGET)
    model = import_onnx(arguments.data / "model.onnx")
    preprocess = load_preprocess(arguments.data / "preprocess.toml")
    calibration, evaluation = (
        open_dataset(str(_first(arguments.data, names)), model.inputs, preprocess)
        for names in (("calib.npz", "calibration"), ("eval.npz", "evaluation"))
    )
    job = Job(target, calibration)
    prepared = prepare(model.module, job)
    chooser = Chooser(prepared, job)
    widths = chooser.choose(budget_at(chooser, arguments.step))
    graphs = lower(insert(widths.recorded(prepared), job), job)
    with tempfile.TemporaryDirectory() as folder:
        program = backend_of(target).build_program(graphs.kernels, model.outputs, "mix", Path(folder))
        write_metadata(Path(folder), "mix", target.name, program)
        run, seconds = _loaded(program.program)
        reference, names = Interpreter(graphs.integer), [t.name for t in program.inputs]
        hits = samples = differ = 0
        for sample in evaluation:
            arrays = [sample.inputs[name] for name in names]
            found = run(arrays)[0]
            hits, samples = hits + int(found.argmax() == sample.label), samples + 1
            if samples <= arguments.verified:
                expected = reference.run(sample.inputs)[0]
                differ += int((expected.view(np.uint32) != found.view(np.uint32)).sum())
        row = {"top1": round(100 * hits / samples, 3), "samples": samples, "mismatches": differ}
        print(
            json.dumps({"step": arguments.step, "e4m3": _share(widths), **row, "us": 1e6 * seconds(arrays)})
        )


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    return next(folder / name for name in names if (folder / name).exists())


def _share(widths: BitWidths) -> float:
    """The share of multiply-accumulates in e4m3."""
    macs = {name: layer.macs for name, layer in widths.variants.layers.items()}
    in_fp8 = sum(macs[name] for name, (_, weight) in widths.pairs.items() if weight.startswith("float8"))
    return round(in_fp8 / sum(macs.values()), 3)


def _loaded(program: Path) -> Any:
    """(run, seconds) of an output folder's program."""
    spec = importlib.util.spec_from_file_location("program", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


if __name__ == "__main__":
    main()
