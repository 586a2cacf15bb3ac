"""A graph of a language model in ONNX Runtime, or in OpenVINO with int4 weights, in a Python of its own.

    PEER/bin/python benchmarks/decoder_peer.py onnxruntime|openvino MODEL.onnx SAMPLE.npz THREADS REPEAT

For each line on standard input: the nanoseconds of an inference, the mean of REPEAT. Inputs that the sample
lacks are caches, `past.X` with the output `present.X`; in OpenVINO they are state.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

import numpy as np


def onnxruntime(model: str, sample: dict[str, np.ndarray], threads: int) -> Callable[[], object]:
    """Inputs and outputs lie in memory of the session, so that no cache is copied."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for value in session.get_inputs():
        array = sample.get(value.name)
        array = np.zeros(value.shape, np.float32) if array is None else array
        binding.bind_ortvalue_input(value.name, runtime.OrtValue.ortvalue_from_numpy(array))
    for value in session.get_outputs():
        binding.bind_output(value.name)
    return lambda: session.run_with_iobinding(binding)


def openvino(model: str, sample: dict[str, np.ndarray], threads: int) -> Callable[[], object]:
    """Weights in int4 by NNCF's own choice of scales, all layers."""
    import nncf
    import openvino as runtime
    from openvino._offline_transformations import apply_make_stateful_transformation

    core = runtime.Core()
    graph = core.read_model(model)
    graph.reshape({n: list(a.shape) for n, a in sample.items()})
    pasts = [i.any_name for i in graph.inputs if i.any_name.startswith("past.")]
    if pasts:
        apply_make_stateful_transformation(graph, {p: p.replace("past", "present", 1) for p in pasts})
    graph = nncf.compress_weights(
        graph, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=32, ratio=1.0, all_layers=True
    )
    config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(graph, "CPU", config).create_infer_request()
    for name, array in sample.items():
        request.set_tensor(name, runtime.Tensor(np.ascontiguousarray(array)))
    return request.infer


def main() -> None:
    """As the head of this file says."""
    who, model, data, threads, repeat = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    output, sys.stdout = sys.stdout, sys.stderr  # libraries print as they like
    infer = {"onnxruntime": onnxruntime, "openvino": openvino}[who](model, dict(np.load(data)), int(threads))
    infer()
    clock = time.process_time_ns if int(threads) == 1 else time.perf_counter_ns
    for _ in sys.stdin:
        infer()
        start = clock()
        for _ in range(int(repeat)):
            infer()
        print((clock() - start) // int(repeat), file=output, flush=True)


if __name__ == "__main__":
    main()
