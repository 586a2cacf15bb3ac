"""Usual architectures from public configurations, narrow, of random weights: do they compile as they come?

python benchmarks/architectures.py export FOLDER          needs torch and transformers: a venv of its own
python benchmarks/architectures.py compile FOLDER [--target x86-64-vnni] [--recipe fast] [--only bert]

`export` writes NAME.onnx by torch.onnx (TorchScript, opset 17, or torch.export where that has no operator)
with names and dynamic axes as people give them, and NAME.npz with samples. `compile` runs the command on each
and prints a table: exit code, SQNR, mismatches, the share of nodes and of multiply-accumulates in integers,
and the first line of an error.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES = 16
WORDS, LENGTH, CACHED = 512, 32, 32
_WIDTH = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


@dataclass(frozen=True)
class Export:
    """A model to export: what computes it, an example of its inputs by name, the names of its outputs."""

    module: Any
    inputs: dict[str, np.ndarray]
    outputs: tuple[str, ...]
    axes: dict[str, dict[int, str]] = field(default_factory=dict)
    #: Makes a sample like the example.
    sample: Callable[[np.random.Generator, str, np.ndarray], np.ndarray] | None = None


def tokens(words: int = WORDS, length: int = LENGTH) -> np.ndarray:
    """Token ids [1, length]."""
    return np.random.default_rng(0).integers(0, words, (1, length))


def image(size: int) -> np.ndarray:
    """A normalized image [1, 3, size, size]."""
    return np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)


def bert(t: Any) -> Export:
    config = t.BertConfig(**_WIDTH, vocab_size=WORDS, max_position_embeddings=64)
    named = {"input_ids": tokens(), "attention_mask": np.ones((1, LENGTH), np.int64)}
    axes = {name: {0: "batch", 1: "sequence"} for name in named}
    return Export(
        wrapped(t.BertModel(config), list(named)), named, ("last_hidden_state", "pooler_output"), axes
    )


def gpt2(t: Any) -> Export:
    config = t.GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=WORDS, n_positions=64, use_cache=False)
    module = wrapped(t.GPT2LMHeadModel(config), ["input_ids"])
    return Export(module, {"input_ids": tokens()}, ("logits",), {"input_ids": {0: "batch", 1: "sequence"}})


def llama(t: Any) -> Export:
    module = wrapped(t.LlamaForCausalLM(_llama_config(t)), ["input_ids"], use_cache=False)
    return Export(module, {"input_ids": tokens()}, ("logits",), {"input_ids": {0: "batch", 1: "sequence"}})


def gpt2_with_cache(t: Any) -> Export:
    config = t.GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=WORDS, n_positions=64)
    return _with_cache(t, t.GPT2LMHeadModel(config), heads=4)


def llama_with_cache(t: Any) -> Export:
    return _with_cache(t, t.LlamaForCausalLM(_llama_config(t)), heads=2)


def _llama_config(t: Any) -> Any:
    return t.LlamaConfig(**_WIDTH, vocab_size=WORDS, num_key_value_heads=2, max_position_embeddings=64)


def _with_cache(t: Any, model: Any, heads: int) -> Export:
    """One more token, with keys and values [1, heads, cached, 16] of those before it."""
    import torch

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, *past: Any) -> Any:
            cache = t.DynamicCache()
            for layer in range(len(past) // 2):
                cache.update(past[2 * layer], past[2 * layer + 1], layer)
            out = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
            return out.logits

    names = [f"past_key_values.{i}.{kind}" for i in range(2) for kind in ("key", "value")]
    rng = np.random.default_rng(1)
    past = {n: rng.standard_normal((1, heads, CACHED, 16)).astype(np.float32) for n in names}
    return Export(Step(), {"input_ids": tokens(length=1), **past}, ("logits",))


def whisper_encoder(t: Any) -> Export:
    named = {"input_features": np.random.default_rng(0).standard_normal((1, 80, 64)).astype(np.float32)}
    module = t.WhisperModel(_whisper_config(t)).get_encoder()
    return Export(wrapped(module, list(named)), named, ("last_hidden_state",))


def whisper_decoder(t: Any) -> Export:
    states = np.random.default_rng(0).standard_normal((1, 32, 64)).astype(np.float32)
    named = {"input_ids": tokens(length=8), "encoder_hidden_states": states}
    module = wrapped(t.WhisperModel(_whisper_config(t)).get_decoder(), list(named), use_cache=False)
    return Export(module, named, ("last_hidden_state",))


def _whisper_config(t: Any) -> Any:
    layers = {
        f"{side}_{what}": n
        for side in ("encoder", "decoder")
        for what, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 128))
    }
    places = {"max_source_positions": 32, "max_target_positions": 32}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return t.WhisperConfig(vocab_size=WORDS, d_model=64, **places, **ids, **layers)


def clip(t: Any) -> Export:
    text = {**_WIDTH, "vocab_size": WORDS, "max_position_embeddings": LENGTH, "eos_token_id": 2}
    vision = {**_WIDTH, "image_size": 32, "patch_size": 8}
    config = t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    named = {
        "input_ids": tokens(),
        "pixel_values": image(32),
        "attention_mask": np.ones((1, LENGTH), np.int64),
    }
    return Export(wrapped(t.CLIPModel(config), list(named)), named, ("logits_per_image", "logits_per_text"))


def deit(t: Any) -> Export:
    module = t.DeiTForImageClassificationWithTeacher(
        t.DeiTConfig(**_WIDTH, image_size=32, patch_size=8, num_labels=10)
    )
    return _vision(module, 32)


def swin(t: Any) -> Export:
    config = t.SwinConfig(
        image_size=32,
        patch_size=2,
        embed_dim=32,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
        num_labels=10,
    )
    return _vision(t.SwinForImageClassification(config), 32)


def mobilevit(t: Any) -> Export:
    config = t.MobileViTConfig(
        image_size=64,
        hidden_sizes=[32, 48, 64],
        neck_hidden_sizes=[8, 16, 24, 32, 48, 64, 128],
        num_labels=10,
    )
    return _vision(t.MobileViTForImageClassification(config), 64)


def convnext(t: Any) -> Export:
    config = t.ConvNextConfig(
        hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 2, 1], image_size=64, num_labels=10
    )
    return _vision(t.ConvNextForImageClassification(config), 64)


def _vision(module: Any, size: int) -> Export:
    named = {"pixel_values": image(size)}
    return Export(wrapped(module, list(named)), named, ("logits",), {"pixel_values": {0: "batch"}})


ARCHITECTURES = {
    f.__name__: f
    for f in (
        bert,
        gpt2,
        gpt2_with_cache,
        llama,
        llama_with_cache,
        whisper_encoder,
        whisper_decoder,
        clip,
        deit,
        swin,
        mobilevit,
        convnext,
    )
}


def wrapped(model: Any, names: list[str], **fixed: Any) -> Any:
    """A module of positional inputs that gives a tuple of tensors."""
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *args: Any) -> Any:
            out = self.model(**dict(zip(names, args, strict=True)), **fixed, return_dict=True)
            return tuple(v for v in out.values() if torch.is_tensor(v))

    return Wrapped()


def export(folder: Path, only: str) -> None:
    """Write NAME.onnx and NAME.npz of every architecture."""
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    for name, make in ARCHITECTURES.items():
        if only and only != name:
            continue
        torch.manual_seed(0)
        found = make(transformers)
        spread(found.module)
        try:
            _written(found, folder / f"{name}.onnx")
        except Exception as error:  # an exporter of another version: the next architecture may do
            print(f"{name}: not exported: {str(error).strip().splitlines()[0]}", flush=True)
            continue
        rng = np.random.default_rng(7)
        data = {
            key: np.concatenate([like(rng, x) for _ in range(SAMPLES)]) for key, x in found.inputs.items()
        }
        np.savez(folder / f"{name}.npz", **data)
        print(name, flush=True)


def _written(found: Export, path: Path) -> None:
    """By TorchScript, or what that has no operator for by torch.export."""
    import torch

    arguments = tuple(map(torch.from_numpy, found.inputs.values()))
    named = {"input_names": list(found.inputs), "output_names": list(found.outputs)}
    try:
        torch.onnx.export(
            found.module.eval(),
            arguments,
            str(path),
            opset_version=17,
            dynamic_axes=found.axes,
            dynamo=False,
            **named,
        )
    except torch.onnx.errors.UnsupportedOperatorError:
        torch.onnx.export(
            found.module.eval(),
            arguments,
            str(path),
            opset_version=18,
            dynamo=True,
            external_data=False,
            **named,
        )


def spread(module: Any) -> None:
    """Weights of a variance that keeps that of what they multiply, as training leaves them about."""
    import torch

    for parameter in module.parameters():
        if parameter.dim() > 1:
            fan_in = parameter[0].numel()
            torch.nn.init.normal_(parameter, std=fan_in**-0.5)


def like(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Another sample: other tokens, other floats; a mask stays."""
    if x.dtype.kind == "f":
        return rng.standard_normal(x.shape).astype(x.dtype)
    return x if np.all(x == 1) and x.shape[1] > 1 else rng.integers(0, WORDS, x.shape)


def compile_all(folder: Path, target: str, recipe: str, only: str) -> None:
    """Run the command on each file and print a row of a Markdown table for it."""
    print(
        "| architecture | exit | SQNR, dB | mismatches | nodes in integers | MACs in integers | |\n"
        + "|---" * 7
        + "|"
    )
    for path in sorted(folder.glob(f"{only or '*'}.onnx")):
        with tempfile.TemporaryDirectory() as out:
            axes = ("--axis", f"sequence={LENGTH}") if "sequence" in _axes(path) else ()
            command = [
                sys.executable,
                "-m",
                "hwptq",
                "compile",
                str(path),
                "--target",
                target,
                "--recipe",
                recipe,
                "--calibration-data",
                str(path.with_suffix(".npz")),
                "--samples",
                "4",
                *axes,
                "--output",
                f"{out}/out",
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            print(row(path.stem, done, Path(out) / "out" / "report.json"), flush=True)


def row(name: str, done: Any, report: Path) -> str:
    """One line of the table."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("hwptq: ")]
    if not report.is_file():
        return f"| {name} | {done.returncode} | | | | | {lines[-1][7:120] if lines else ''} |"
    found = json.loads(report.read_text(encoding="utf-8"))
    cover, exact, accuracy = found["coverage"], found["bit_exact"], found["accuracy"]
    nodes = cover["nodes_quantized"] + len(cover["nodes_float"])
    share = (
        f"{100 * cover['nodes_quantized'] / nodes:.0f} %",
        f"{100 * cover['macs_quantized'] / cover['macs_total']:.1f} %",
    )
    sqnr = accuracy.get("emitted", accuracy.get("reference"))  # samples have no labels
    differ = exact["mismatches"] if exact["samples"] else "not run"
    return f"| {name} | {done.returncode} | {sqnr} | {differ} | {share[0]} | {share[1]} | |"


def _axes(path: Path) -> set[str]:
    import onnx

    inputs = onnx.load(str(path), load_external_data=False).graph.input
    return {d.dim_param for i in inputs for d in i.type.tensor_type.shape.dim}


def main() -> None:
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("what", choices=("export", "compile"))
    command.add_argument("folder", type=Path)
    command.add_argument("--target", default="x86-64-vnni")
    command.add_argument("--recipe", default="fast")
    command.add_argument("--only", default="", help="one architecture")
    arguments = command.parse_args()
    if arguments.what == "export":
        export(arguments.folder, arguments.only)
    else:
        compile_all(arguments.folder, arguments.target, arguments.recipe, arguments.only)


if __name__ == "__main__":
    main()
