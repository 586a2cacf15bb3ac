"""Detectors with heads of YOLOX and YOLOv8, one output tensor, of random weights: what is lost of each part?

    python benchmarks/yolo_models.py [yolox] [yolov8] [yolox-depthwise] [--target x86-64-vnni]

Normalizations have the statistics of data, and scores are spread as those of trained detectors, so nothing is
near zero everywhere. Prints SQNR of boxes and scores of the emitted code, and fails below 30 and 20 dB.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from common import parser, row
from eager_onnx import EagerGraph

import hwptq
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.report.accuracy import Sqnr

SIZE, STRIDES, CLASSES = 160, (8, 16, 32), 20
BINS = 16  # of a side of a box, YOLOv8
SAMPLES = 16
LEAST = {"boxes": 30.0, "scores": 20.0}
#: Of the logits of scores: few anchors see anything.
_RARE = {"mean": -4.0, "deviation": 2.0}


@dataclass(frozen=True)
class Style:
    """A generation of detectors. head: levels -> one output; raw: images as bytes, not in 0 … 1."""

    head: Callable[[EagerGraph, list[str], bool], str]
    axis: int  # of boxes, then scores, in the output
    raw: bool = False
    depthwise: bool = False


def images(count: int, seed: int) -> np.ndarray:
    """Smooth grounds with bright and dark rectangles, float32 [count, 3, SIZE, SIZE] in 0 … 255."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 3, SIZE // 16, SIZE // 16))
    found = coarse.repeat(16, axis=2).repeat(16, axis=3)
    for _ in range(4):
        found = (found + np.roll(found, 5, 2) + np.roll(found, 5, 3) + np.roll(found, -7, 3)) / 4
    for image in found:
        for _ in range(rng.integers(2, 8)):
            top, left = rng.integers(0, SIZE - 16, 2)
            height, width = rng.integers(8, SIZE // 2, 2)
            image[:, top : top + height, left : left + width] = rng.uniform(0, 255, (3, 1, 1))
    return (found + rng.normal(0, 4, found.shape)).clip(0, 255).astype(np.float32)


def detector(style: Style, samples: np.ndarray) -> onnx.ModelProto:
    """A narrow detector of a style: backbone, two-way pyramid, heads of three levels."""
    g = EagerGraph(samples)
    x = g.convolution(g.convolution("images", 16, 3, 2), 24, 3, 2)
    levels = []
    for width in (32, 48, 64):
        x = _block(g, _wide(g, x, width, 2, style), width, style)
        levels.append(x)
    levels[-1] = _pooled(g, levels[-1], 64)
    return g.proto(style.head(g, _pyramid(g, levels, style), style.depthwise))


def _wide(g: EagerGraph, x: str, channels: int, stride: int, style: Style) -> str:
    """A 3 x 3 convolution; one by channels before one by pixels where the style is depthwise."""
    if not style.depthwise:
        return g.convolution(x, channels, 3, stride)
    return g.convolution(g.convolution(x, g.values[x].shape[1], 3, stride, depthwise=True), channels)


def _block(g: EagerGraph, x: str, channels: int, style: Style) -> str:
    """Part of the channels goes through a residual block (Wang et al. 2020, CSPNet)."""
    a, b = g.convolution(x, channels // 2), g.convolution(x, channels // 2)
    inner = _wide(g, g.convolution(a, channels // 2), channels // 2, 1, style)
    return g.convolution(g.concat([g.add(a, inner), b]), channels)


def _pooled(g: EagerGraph, x: str, channels: int) -> str:
    """Pooling over wider and wider windows, side by side."""
    parts = [g.convolution(x, channels // 2)]
    for _ in range(3):
        parts.append(g.maximum(parts[-1]))
    return g.convolution(g.concat(parts), channels)


def _pyramid(g: EagerGraph, levels: list[str], style: Style) -> list[str]:
    """From the coarse to the fine, and back (Liu et al. 2018)."""
    fine, middle, coarse = levels
    middle = _block(g, g.concat([g.double(g.convolution(coarse, 48)), middle]), 48, style)
    fine = _block(g, g.concat([g.double(g.convolution(middle, 32)), fine]), 32, style)
    again = _block(g, g.concat([_wide(g, fine, 32, 2, style), middle]), 48, style)
    last = _block(g, g.concat([_wide(g, again, 48, 2, style), coarse]), 64, style)
    return [fine, again, last]


def yolox_head(g: EagerGraph, levels: list[str], depthwise: bool) -> str:
    """[1, anchors, 5 + classes]: centre and logarithm of the size, objectness, classes (Ge et al. 2021)."""
    style, found = STYLES["yolox-depthwise" if depthwise else "yolox"], []
    for level in levels:
        stem = g.convolution(level, 32)
        scores, boxes = (_wide(g, _wide(g, stem, 32, 1, style), 32, 1, style) for _ in range(2))
        parts = [g.prediction(boxes, 4, 0.5, 1.0), g.sigmoid(g.prediction(boxes, 1, **_RARE))]
        parts.append(g.sigmoid(g.prediction(scores, CLASSES, **_RARE)))
        joined = g.concat(parts)
        found.append(g.reshape(joined, 5 + CLASSES, -1))
    return g.transpose(g.concat(found, 2), 0, 2, 1)


def yolov8_head(g: EagerGraph, levels: list[str], depthwise: bool) -> str:
    """[1, 4 + classes, anchors], boxes as centre and size in pixels of the means of their bins."""
    found = []
    for level in levels:
        boxes, scores = (g.convolution(g.convolution(level, 32, 3), 32, 3) for _ in range(2))
        parts = [g.prediction(boxes, 4 * BINS, 0.0, 2.0), g.prediction(scores, CLASSES, **_RARE)]
        found.append(g.reshape(g.concat(parts), 4 * BINS + CLASSES, -1))
    joined = g.concat(found, 2)
    bins, scores = g.part(joined, 0, 4 * BINS), g.part(joined, 4 * BINS, 4 * BINS + CLASSES)
    return g.concat([_decoded(g, bins), g.sigmoid(scores)])


def _decoded(g: EagerGraph, bins: str) -> str:
    """Boxes [1, 4, anchors] of logits [1, 4 * BINS, anchors] (Li et al. 2020, Generalized Focal Loss)."""
    x = g.transpose(g.reshape(bins, 4, BINS, -1), 0, 2, 1, 3)
    e = np.exp(g.values[x] - g.values[x].max(axis=1, keepdims=True))
    x = g.node("Softmax", [x], e / e.sum(axis=1, keepdims=True), axis=1)
    numbers = np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1)
    sides = np.einsum("nbsk,b->nsk", g.values[x], numbers.ravel())[:, None]
    sides_name = g.reshape(g.node("Conv", [x, g.weight(numbers)], sides, kernel_shape=[1, 1]), 4, -1)
    centres, strides = _anchors()
    reach = {name: g.part(sides_name, *ends) for name, ends in (("low", (0, 2)), ("high", (2, 4)))}
    where = g.weight(centres[None])
    low = g.node("Sub", [where, reach["low"]], centres[None] - g.values[reach["low"]])
    high = g.node("Add", [reach["high"], where], g.values[reach["high"]] + centres[None])
    both = g.add(low, high)
    middle = g.node("Div", [both, g.weight(np.array(2.0))], g.values[both] / 2)
    size = g.node("Sub", [high, low], g.values[high] - g.values[low])
    boxes = g.concat([middle, size])
    return g.node("Mul", [boxes, g.weight(strides[None])], g.values[boxes] * strides[None])


def _anchors() -> tuple[np.ndarray, np.ndarray]:
    """Centres [2, anchors] in strides and strides [1, anchors], level by level."""
    centres, strides = [], []
    for stride in STRIDES:
        cells = SIZE // stride
        y, x = np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij")
        centres.append(np.stack([x, y]).reshape(2, -1) + 0.5)
        strides.append(np.full((1, cells * cells), float(stride)))
    return np.concatenate(centres, axis=1), np.concatenate(strides, axis=1)


STYLES = {
    "yolox": Style(yolox_head, axis=2, raw=True),
    "yolov8": Style(yolov8_head, axis=1),
    "yolox-depthwise": Style(yolox_head, axis=2, raw=True, depthwise=True),
}


def parts_lost(style: Style, target: str, recipe: hwptq.Recipe) -> dict[str, float]:
    """SQNR of boxes and scores of the emitted code, in dB."""
    scale = 1.0 if style.raw else 1 / 255
    calibration, evaluation = ([x[None] * scale for x in images(SAMPLES, seed)] for seed in (1, 2))
    data = [[{"images": x.astype(np.float32)} for x in found] for found in (calibration, evaluation)]
    proto = detector(style, images(4, 0) * scale)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(proto, str(Path(folder, "detector.onnx")))
        model = hwptq.compile(
            Path(folder, "detector.onnx"), target, *data, output=Path(folder, "out"), recipe=recipe
        )
        exact = Interpreter(import_onnx(Path(folder, "detector.onnx")).module)
        found = {"boxes": Sqnr(), "scores": Sqnr()}
        for sample in data[1]:
            (wanted,), (got,) = exact.run(sample), model.run(sample).values()
            for part, x, y in zip(found, *(np.split(v, [4], style.axis) for v in (wanted, got)), strict=True):
                found[part].add(x, y)
    return {part: float(sqnr.db or np.inf) for part, sqnr in found.items()}


def main() -> None:
    """Measure each style."""
    command = parser(__doc__)
    command.add_argument("--target", default="x86-64-vnni")
    command.add_argument("--set", action="append", default=[], help="a step of the recipe, as in widen=off")
    command.add_argument("styles", nargs="*", default=list(STYLES), help=", ".join(STYLES))
    args = command.parse_args()
    recipe = hwptq.Recipe.named("default").adjusted(args.set)
    for name in args.styles:
        found = parts_lost(STYLES[name], args.target, recipe)
        figure = ", ".join(f"{part} {db:.1f} dB" for part, db in found.items())
        row(f"{name}, {args.target}", figure, all(db >= LEAST[part] for part, db in found.items()))


if __name__ == "__main__":
    main()
