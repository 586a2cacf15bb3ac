"""OpenVINO as the one to beat; it runs in a Python of its own, since NNCF asks for other versions.

    python -m venv PEER && PEER/bin/pip install openvino nncf
    python benchmarks/speed.py ... --openvino-python PEER/bin/python

This file is the program that the other Python runs: it quantizes and compiles a model, and for each line on
standard input it writes the mean nanoseconds of one inference to standard output.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time

import nncf
import numpy as np
import openvino


def compiled(
    model: str, samples: list[dict[str, np.ndarray]], precision: str, threads: int, transformer: bool = False
) -> openvino.CompiledModel:
    """The model in `precision`: int8 by NNCF's default method, bf16 or f32 as OpenVINO runs float models."""
    core = openvino.Core()
    graph = core.read_model(model)
    graph.reshape({name: list(value.shape) for name, value in samples[0].items()})
    if precision == "int8":
        kind = nncf.ModelType.TRANSFORMER if transformer else None
        graph = nncf.quantize(graph, nncf.Dataset(samples), subset_size=len(samples), model_type=kind)
    config = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    return core.compile_model(graph, "CPU", config)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("samples", help=".npz of arrays, the first axis counting the samples")
    parser.add_argument("precision", choices=("int8", "bf16", "f32"))
    parser.add_argument("threads", type=int)
    parser.add_argument("repeat", type=int)
    parser.add_argument("--transformer", action="store_true", help="what NNCF should take it for")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    stored = np.load(options.samples)
    count = len(next(iter(stored.values())))
    samples = [{name: stored[name][i] for name in stored.files} for i in range(count)]
    output, sys.stdout = sys.stdout, sys.stderr  # libraries print as they like
    model = compiled(options.model, samples, options.precision, options.threads, options.transformer)
    request = model.create_infer_request()
    for name, value in samples[0].items():
        request.set_tensor(name, openvino.Tensor(np.ascontiguousarray(value)))
    request.infer()
    clock = time.process_time_ns if options.threads == 1 else time.perf_counter_ns
    for _ in sys.stdin:
        request.infer()
        start = clock()
        for _ in range(options.repeat):
            request.infer()
        print((clock() - start) // options.repeat, file=output, flush=True)


if __name__ == "__main__":
    main()
