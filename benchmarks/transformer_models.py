"""The transformers that are timed, each with inputs of one size: files of the data folder, and their samples.

<name>-N reads N tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

Samples = tuple[dict[str, np.ndarray], ...]


@dataclass(frozen=True)
class Transformer:
    """A file of the data folder, the size of each symbolic axis, and (data folder, count) -> samples."""

    file: str
    sizes: dict[str, int]
    samples: Callable[[Path, int], Samples]

    def write(self, data: Path, path: Path) -> None:
        """The model with inputs and outputs of that size, whole, at `path`."""
        proto = onnx.load(str(data / self.file))
        for value in (*proto.graph.input, *proto.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in self.sizes:
                    dim.dim_value = self.sizes[dim.dim_param]
        onnx.save(proto, str(path))


def _sentences(length: int) -> Callable[[Path, int], Samples]:
    """Sentences one after another that fill so many tokens, without padding, as a server packs them."""

    def samples(data: Path, count: int) -> Samples:
        held = np.load(data / "sts-minilm-l6/calib.npz")
        words = held["input_ids"][held["attention_mask"] > 0].astype(np.int64)
        ids = np.resize(words, (count, 1, length))
        return tuple({"input_ids": row, "attention_mask": np.ones_like(row)} for row in ids)

    return samples


def _images(data: Path, count: int) -> Samples:
    images = np.load(data / "emoji-clip/data.npz")["calib_image"][:count]
    scaled = images.transpose(0, 3, 1, 2).astype(np.float32) / 63.75 - 2
    return tuple({"image": image[None]} for image in scaled)


def _texts(length: int) -> Callable[[Path, int], Samples]:
    def samples(data: Path, count: int) -> Samples:
        texts = np.load(data / "docs-lm/tokens.npz")["calibration"][:count, :length].astype(np.int64)
        return tuple({"input_ids": text[None]} for text in texts)

    return samples


TRANSFORMERS = {
    "minilm-64": Transformer("sts-minilm-l6/model.onnx", {"N": 1, "S": 64}, _sentences(64)),
    "minilm-128": Transformer("sts-minilm-l6/model.onnx", {"N": 1, "S": 128}, _sentences(128)),
    "image-tower": Transformer("emoji-clip/image.onnx", {"batch": 1}, _images),
    "prefill-128": Transformer("docs-lm/prefill.onnx", {"batch": 1, "length": 128}, _texts(128)),
}
