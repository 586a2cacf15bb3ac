"""Tokens of a language model: hwptq beside ONNX Runtime, OpenVINO and llama.cpp, all with int4 weights.

    python benchmarks/decoder_speed.py --data DATA [--models docs-lm,llama:4] [--before 128] [--rounds 9]
        [--tokens 1 | --tokens 128] [--threads 2] [--peers PEER/bin/python] [--gguf FOLDER]

One token behind `--before` others, or so many tokens at once (docs-lm alone). `llama:N` has N layers of the
shapes of a Llama of 1 B and random weights. All contenders are measured in turn; one thread by the
processor's time, several by the clock. PEER is a Python with onnxruntime, openvino, nncf, gguf and
llama-cpp-python; FOLDER holds what llama_cpp_peer.py wrote. ONNX Runtime has MatMulNBits (accuracy level 4),
OpenVINO the symmetric int4 of NNCF and its caches as state; both in groups of 32, heads included.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from common import parser
from docs_lm import DocsLm
from llama_graph import Llama, decoding_step
from nbits import with_int4_weights
from programs import TimedProgram

import hwptq

_GROUP, _LEVEL = 32, 4
_HERE = Path(__file__).parent
_SECONDS_PER_ROUND = 0.1
#: With llama.cpp's names for its weights.
_KINDS = ("Q4_0", "Q4_K")

command = parser(__doc__)
command.add_argument("--models", default="docs-lm")
command.add_argument("--target", default="x86-64-vnni")
command.add_argument("--tokens", type=int, default=1)
command.add_argument("--before", type=int, default=128)
command.add_argument("--threads", type=int, default=1)
command.add_argument("--rounds", type=int, default=9)
command.add_argument("--peers", type=Path)
command.add_argument("--gguf", type=Path)


@dataclass(frozen=True)
class Asked:
    """A graph of `tokens` tokens, what it reads, and how it is compiled."""

    name: str
    graph: Path
    sample: dict[str, np.ndarray]
    words: dict[str, Any]


def asked(name: str, args: Any, folder: Path) -> Asked:
    """A model of the command line."""
    step = {"input_ids": np.array([[7]]), "position": np.array([args.before])}
    if name == "docs-lm":
        lm = DocsLm.of(args.data)
        if args.tokens == 1:
            return Asked(name, lm.folder / "decode.onnx", step, {})
        sample = {"input_ids": lm.tokens("evaluation")[:1, : args.tokens]}
        return Asked(name, lm.folder / "prefill.onnx", sample, {"axes": {"length": args.tokens}})
    form = Llama(2048, 8192, 32, 8, 64, int(name.partition(":")[2]), 32000, 512)
    file = folder / "decode.onnx"
    onnx.save(decoding_step(form), file, save_as_external_data=True, location="weights.bin")
    return Asked(name.replace(":", "-"), file, step, {})


class Served:
    """A program that gives the nanoseconds of an inference for each line that it reads."""

    def __init__(self, words: list[str]):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env={}
        )

    def seconds(self, sample: dict[str, np.ndarray]) -> float:
        """Mean time of one inference, of the sample that the program has."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline()) * 1e-9

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def peers(case: Asked, args: Any, folder: Path, repeat: int) -> dict[str, Served]:
    """The others."""
    if args.peers is None:
        return {}
    samples = folder / "sample.npz"
    np.savez(samples, **case.sample)
    nbits = folder / "nbits.onnx"
    model = with_int4_weights(onnx.load(str(case.graph)), _GROUP, _LEVEL)
    onnx.save(model, str(nbits), save_as_external_data=True, location="nbits.bin")
    asks = [str(samples), str(args.threads), str(repeat)]
    own = [str(args.peers), str(_HERE / "decoder_peer.py")]
    found = {
        "onnxruntime MatMulNBits": Served([*own, "onnxruntime", str(nbits), *asks]),
        "openvino int4": Served([*own, "openvino", str(case.graph), *asks]),
    }
    before = args.before if args.tokens == 1 else 0
    counts = {"tokens": args.tokens, "before": before, "threads": args.threads, "repeat": repeat}
    words = [word for key, value in counts.items() for word in (f"--{key}", str(value))]
    for kind in _KINDS if args.gguf else ():
        file = args.gguf / f"{case.name}.{kind}.gguf"
        reader = [str(args.peers), str(_HERE / "llama_cpp_peer.py"), "time", str(file), *words]
        found[f"llama.cpp {kind}"] = Served(reader)
    return found


def measure(name: str, args: Any, folder: Path) -> None:
    """The lines of a model."""
    case = asked(name, args, folder)
    model = hwptq.compile(
        case.graph, args.target, evaluation_data=[case.sample], output=folder / "out", activations="dynamic",
        weight_granularity="group", group=_GROUP, precision="w4a8", recipe="fast", threads=args.threads,
        **case.words,
    )  # fmt: skip
    repeat = max(1, round(_SECONDS_PER_ROUND / TimedProgram.once(model.program, case.sample)))
    timed = TimedProgram(model.program, repeat, args.threads, by_clock=args.threads > 1)
    found = {"hwptq": timed, **peers(case, args, folder, repeat)}
    times: dict[str, list[float]] = {who: [] for who in found}
    for _ in range(args.rounds):
        for who, contender in found.items():
            times[who].append(contender.seconds(case.sample))
    for who, values in times.items():
        low, middle, high = np.percentile(values, (10, 50, 90)) * 1e3
        ratio = np.median(np.array(values) / np.array(times["hwptq"]))
        print(
            f"{case.name:10} {who:24} {middle:9.3f} ms ({low:.3f} … {high:.3f}), {ratio:.2f} x hwptq's",
            flush=True,
        )
    for contender in found.values():
        contender.close()


def main() -> None:
    """Each model in turn."""
    args = command.parse_args()
    for name in args.models.split(","):
        with TemporaryDirectory(prefix="hwptq-") as scratch:
            measure(name, args, Path(scratch))


if __name__ == "__main__":
    main()
