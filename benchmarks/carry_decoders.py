"""Steps of language models for a machine that has the processor but not hwptq: built here, run there.

    python benchmarks/carry_decoders.py --output FOLDER [--targets x86-64-vnni] [--models docs-lm,llama]
        [--filled 16,128,250] [--layers 2] [--kv-cache int8]

FOLDER then holds, of each model, a program for each target and the same graph with MatMulNBits (accuracy
level 4) for ONNX Runtime, both with int4 weights in groups of 32, a few steps with their logits, and a step
at each filled length; benchmarks/carry_run.py compares and times them. `docs-lm` is that of the data folder,
`llama` has random weights, the shapes of a model of 1 B halved, and two layers, so that all is about 60 MB.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from common import parser
from docs_lm import DocsLm
from llama_graph import Llama, decoding_step
from nbits import with_int4_weights

import hwptq

_BLOCK, _LEVEL, _STEPS = 32, 4, 4

command = parser(__doc__)
command.add_argument("--output", type=Path, required=True)
command.add_argument("--targets", default="x86-64-vnni")
command.add_argument("--models", default="docs-lm,llama")
command.add_argument(
    "--filled", default="16,128,250", help="how many tokens came before the step that is timed"
)
command.add_argument("--layers", type=int, default=2, help="of llama")
command.add_argument("--kv-cache", default="int8")


def graph_of(name: str, data: Path, layers: int, folder: Path) -> Path:
    """The file of a step of a model, perhaps made in `folder`."""
    if name == "docs-lm":
        return DocsLm.of(data).folder / "decode.onnx"
    file = folder / f"{name}.onnx"
    onnx.save(decoding_step(Llama(layers=layers)), file)
    return file


def steps(tokens: np.ndarray, first: int = 0) -> list[dict[str, np.ndarray]]:
    """Of tokens, with their positions."""
    return [
        {"input_ids": token.reshape(1, 1), "position": np.array([first + i])}
        for i, token in enumerate(tokens)
    ]


def build(name: str, graph: Path, targets: list[str], filled: list[int], kv_cache: str, output: Path) -> None:
    """All of a model; what it computes is that of the first target, which verifies itself."""
    tokens = np.random.default_rng(0).integers(0, 1000, _STEPS)
    for number, target in enumerate(targets):
        with TemporaryDirectory() as scratch:
            model = hwptq.compile(
                graph, target, evaluation_data=steps(tokens), output=Path(scratch) / "out",
                activations="dynamic", weight_granularity="group", group=_BLOCK, precision="w4a8",
                recipe="fast", kv_cache=kv_cache,
            )  # fmt: skip
            shutil.copy(model.program.program, output / f"{name}.{target}")
            if number == 0:
                given = steps(tokens)
                logits = [out["logits"] for out in model.run_stream(given)]
                timed = [step for at in filled for step in steps(tokens[:1], at)]
                np.savez_compressed(
                    output / f"{name}.npz",
                    inputs=_rows(model, given),
                    outputs=np.stack([np.frombuffer(x.tobytes(), np.uint8) for x in logits]),
                    timed=_rows(model, timed),
                    labels=np.array([f"{at} tokens before" for at in filled]),
                    **{f"feed.{key}": np.stack([step[key] for step in timed]) for key in timed[0]},
                )
    onnx.save(with_int4_weights(onnx.load(graph), _BLOCK, _LEVEL), output / f"{name}.nbits.onnx")


def _rows(model: hwptq.CompiledModel, given: list[dict[str, np.ndarray]]) -> np.ndarray:
    """What a program reads of each step."""
    parts = [
        [np.ascontiguousarray(step[t.name], t.dtype).tobytes() for t in model.program.inputs]
        for step in given
    ]
    return np.stack([np.frombuffer(b"".join(part), np.uint8) for part in parts])


def main() -> None:
    """Each model in turn."""
    args = command.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    filled = [int(n) for n in args.filled.split(",")]
    for name in args.models.split(","):
        with TemporaryDirectory() as scratch:
            graph = graph_of(name, args.data, args.layers, Path(scratch))
            build(name, graph, args.targets.split(","), filled, args.kv_cache, args.output)
        print(name, flush=True)


if __name__ == "__main__":
    main()
