"""llama.cpp as the one to beat; it runs in a Python of its own, with llama-cpp-python built from its source.

    python -m venv PEER && PEER/bin/pip install gguf onnx
    PEER/bin/pip install --no-binary llama-cpp-python llama-cpp-python
    alias peer="PEER/bin/python benchmarks/llama_cpp_peer.py"
    peer write DATA/docs-lm FOLDER                # docs-lm.F32.gguf, .Q4_0.gguf, …
    peer write random:16 FOLDER                   # the shapes of 1 B, 16 layers
    peer perplexity FOLDER/docs-lm.Q4_0.gguf DATA/docs-lm [--sequences 64]
    peer time FOLDER/docs-lm.Q4_0.gguf --tokens 1 --before 128

`time` writes, for each line on standard input, the nanoseconds that `--tokens` tokens take behind `--before`
others, the mean of `--repeat` times; one thread by the processor's time, several by the clock.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import onnx
from onnx import numpy_helper

#: File types of llama.cpp by their names.
_TYPES = {"Q8_0": 7, "Q4_0": 2, "Q4_K": 15, "Q2_K": 10}


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model of the Llama kind."""

    width: int
    inner: int
    heads: int
    shared: int
    size: int
    layers: int
    words: int
    context: int


DOCS_LM = Shapes(256, 704, 8, 4, 32, 8, 4096, 256)


def one_billion(layers: int) -> Shapes:
    """Those of a Llama of 1 B, with fewer words and as many layers as are asked for."""
    return Shapes(2048, 8192, 32, 8, 64, layers, 32000, 512)


def docs_lm(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The weights of decode.onnx by the names of GGUF, outputs first."""
    graph = onnx.load(str(folder / "decode.onnx")).graph
    held = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    yield "token_embd.weight", held["m.e.weight"]
    yield "output_norm.weight", held["m.n.w"]
    weights = [n.input[1] for n in graph.node if n.op_type == "MatMul" and n.input[1] in held]
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    for layer in range(DOCS_LM.layers):
        for kind, name in (("attn_norm", "n1"), ("ffn_norm", "n2")):
            yield f"blk.{layer}.{kind}.weight", held[f"m.l.{layer}.{name}.w"]
        for kind, name in zip(names, weights[layer * len(names) :], strict=False):
            weight = held[name].T
            turned = {"attn_q": DOCS_LM.heads, "attn_k": DOCS_LM.shared}.get(kind)
            yield f"blk.{layer}.{kind}.weight", in_pairs(weight, turned) if turned else weight


def in_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows whose rotary halves lie apart, as the neighbours that llama.cpp turns."""
    rows = weight.reshape(heads, 2, -1, weight.shape[1])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def noise(form: Shapes) -> Iterator[tuple[str, np.ndarray]]:
    """Random weights of a form, the same in each layer."""
    rng = np.random.default_rng(0)

    def dense(outputs: int, inputs: int) -> np.ndarray:
        return rng.standard_normal((outputs, inputs), np.float32) * np.float32(inputs**-0.5)

    own, few = form.heads * form.size, form.shared * form.size
    layer = {
        "attn_q": dense(own, form.width), "attn_k": dense(few, form.width), "attn_v": dense(few, form.width),
        "attn_output": dense(form.width, own), "ffn_gate": dense(form.inner, form.width),
        "ffn_up": dense(form.inner, form.width), "ffn_down": dense(form.width, form.inner),
        "attn_norm": np.ones(form.width, np.float32), "ffn_norm": np.ones(form.width, np.float32),
    }  # fmt: skip
    yield "token_embd.weight", dense(form.words, form.width)
    yield "output_norm.weight", np.ones(form.width, np.float32)
    for number in range(form.layers):
        yield from ((f"blk.{number}.{kind}.weight", weight) for kind, weight in layer.items())


def write(source: str, folder: Path) -> None:
    """The float model as GGUF, and each quantized form of it by llama.cpp's own tool."""
    folder.mkdir(parents=True, exist_ok=True)
    random = source.startswith("random:")
    form = one_billion(int(source.partition(":")[2])) if random else DOCS_LM
    name = f"llama-{form.layers}" if random else "docs-lm"
    file = folder / f"{name}.F32.gguf"
    to = gguf.GGUFWriter(str(file), "llama")
    to.add_context_length(form.context)
    to.add_embedding_length(form.width)
    to.add_block_count(form.layers)
    to.add_feed_forward_length(form.inner)
    to.add_head_count(form.heads)
    to.add_head_count_kv(form.shared)
    to.add_layer_norm_rms_eps(1e-5)
    to.add_rope_freq_base(10000.0)
    to.add_rope_dimension_count(form.size)
    to.add_vocab_size(form.words)
    to.add_tokenizer_model("no_vocab")
    to.add_file_type(gguf.LlamaFileType.ALL_F32)
    for key, weight in noise(form) if random else docs_lm(Path(source)):
        to.add_tensor(key, np.ascontiguousarray(weight, np.float32))
    to.write_header_to_file()
    to.write_kv_data_to_file()
    to.write_tensors_to_file()
    to.close()
    for kind, number in _TYPES.items():
        made = folder / f"{name}.{kind}.gguf"
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.nthread = number, 2
        if llama_cpp.llama_model_quantize(str(file).encode(), str(made).encode(), options):
            raise SystemExit(f"llama.cpp did not make {made.name}")
        print(made.name, made.stat().st_size, "bytes", flush=True)


class Model:
    """A GGUF file, ready to read tokens."""

    def __init__(self, file: Path, context: int, threads: int):
        llama_cpp.llama_backend_init()
        self._silence = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._silence, ctypes.c_void_p(0))
        self.model = llama_cpp.llama_model_load_from_file(
            str(file).encode(), llama_cpp.llama_model_default_params()
        )
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = context
        options.n_threads = options.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        self.words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self._batch = llama_cpp.llama_batch_init(context, 0, 1)

    def forget(self, first: int = 0) -> None:
        """All tokens from a position on."""
        llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self.context), 0, first, -1)

    def read(self, tokens: np.ndarray, first: int, every: bool = False) -> None:
        """Tokens from a position on; the logits of the last, or of `every` one, are computed."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = int(token), first + i, 1
            batch.seq_id[i][0], batch.logits[i] = 0, every or i == len(tokens) - 1
        if llama_cpp.llama_decode(self.context, batch):
            raise SystemExit("llama.cpp did not read the tokens")

    def logits(self, count: int) -> np.ndarray:
        """[count, words] of the tokens read last."""
        found = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(found, shape=(count * self.words,)).reshape(count, self.words)


def perplexity(file: Path, folder: Path, sequences: int) -> float:
    """Every token but the first of each text predicted, of so many evaluation texts."""
    texts = np.load(folder / "tokens.npz")["evaluation"][:sequences].astype(np.int64)
    model, losses = Model(file, texts.shape[1], 2), []
    for text in texts:
        model.forget()
        model.read(text[:-1], 0, every=True)
        logits = model.logits(len(text) - 1).astype(np.float64)
        top = logits.max(axis=1, keepdims=True)
        total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        losses.append(np.mean(total - logits[np.arange(len(text) - 1), text[1:]]))
    return float(np.exp(np.mean(losses)))


def serve(file: Path, tokens: int, before: int, threads: int, repeat: int) -> None:
    """Times on standard output, one for each line of standard input."""
    model = Model(file, before + tokens + 1, threads)
    text = np.random.default_rng(0).integers(0, min(model.words, 1000), before + tokens)
    if before:
        model.read(text[:before], 0)
    clock = time.process_time_ns if threads == 1 else time.perf_counter_ns

    def once() -> None:
        model.forget(before)
        model.read(text[before:], before, every=tokens > 1)  # as a graph that gives all logits
        llama_cpp.llama_synchronize(model.context)

    for _ in sys.stdin:
        once()
        start = clock()
        for _ in range(repeat):
            once()
        print((clock() - start) // repeat, flush=True)


def main() -> None:
    """As the head of this file says."""
    command = argparse.ArgumentParser()
    command.add_argument("what", choices=("write", "perplexity", "time"))
    command.add_argument("model")
    command.add_argument("folder", nargs="?", type=Path)
    command.add_argument("--sequences", type=int, default=64)
    command.add_argument("--tokens", type=int, default=1)
    command.add_argument("--before", type=int, default=0)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--repeat", type=int, default=1)
    asked = command.parse_args()
    if asked.what == "write":
        write(asked.model, asked.folder)
    elif asked.what == "perplexity":
        print(f"{asked.model}: {perplexity(Path(asked.model), asked.folder, asked.sequences):.3f}")
    else:
        serve(Path(asked.model), asked.tokens, asked.before, asked.threads, asked.repeat)


if __name__ == "__main__":
    main()
