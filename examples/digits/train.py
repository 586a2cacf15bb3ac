"""Train the demo model on scikit-learn's handwritten digits, and write everything the demo needs.

    pip install -e '.[train]'
    python examples/digits/train.py        # about a minute; overwrites the files beside this script

Writes digits.onnx (BatchNorm not folded), calibration.npz and evaluation.npz. The seeds are fixed. The
evaluation images are used neither for training nor for calibration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).parent
WHITE = 16.0  # pixels are 0 ... 16; preprocess.toml divides by the same number
SEED, EPOCHS, BATCH = 0, 60, 64
CALIBRATION_SAMPLES = 64


class ConvUnit(nn.Module):
    """conv (no bias), BatchNorm, ReLU6: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu6(self.bn(self.conv(x)))


class Stage(nn.Module):
    """Depthwise 3x3, pointwise 1x1, and a residual add where the shape stays the same."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = ConvUnit(inputs, inputs, 3, stride, groups=inputs)
        self.pointwise = ConvUnit(inputs, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.pointwise(self.depthwise(x))
        return x + y if self.residual else y


class DigitsNet(nn.Module):
    """(N, 1, 8, 8) -> logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvUnit(1, 24, 3)
        self.stages = nn.ModuleDict(
            {"stage1": Stage(24, 24), "stage2": Stage(24, 48, stride=2), "stage3": Stage(48, 48)}
        )
        self.classifier = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for stage in self.stages.values():
            x = stage(x)
        return self.classifier(x.mean(dim=(2, 3)))


class OnnxGraph:
    """An ONNX graph that grows node by node; every node and weight is named after its layer."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        output = "logits" if name == "classifier" else f"{name}/out"
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def weight(self, name: str, value: Any) -> str:
        self.weights.append(numpy_helper.from_array(value.detach().numpy(), name))
        return name

    def conv_unit(self, name: str, unit: ConvUnit, x: str) -> str:
        conv, bn = unit.conv, unit.bn
        x = self.node(
            "Conv",
            f"{name}/conv",
            [x, self.weight(f"{name}/conv/weight", conv.weight)],
            kernel_shape=conv.kernel_size,
            strides=conv.stride,
            pads=[*conv.padding, *conv.padding],
            group=conv.groups,
        )
        parameters = {"scale": bn.weight, "bias": bn.bias, "mean": bn.running_mean, "var": bn.running_var}
        names = [self.weight(f"{name}/bn/{key}", value) for key, value in parameters.items()]
        x = self.node("BatchNormalization", f"{name}/bn", [x, *names], epsilon=bn.eps)
        return self.node("Clip", f"{name}/relu6", [x, "relu6/low", "relu6/high"])

    def stage(self, name: str, stage: Any, x: str) -> str:
        y = self.conv_unit(f"{name}/depthwise", stage.depthwise, x)
        y = self.conv_unit(f"{name}/pointwise", stage.pointwise, y)
        return self.node("Add", f"{name}/add", [x, y]) if stage.residual else y


def to_onnx(net: DigitsNet) -> onnx.ModelProto:
    """The trained network as ONNX. torch's own exporter would fold BatchNorm; here nothing is folded."""
    graph = OnnxGraph()
    graph.weight("relu6/low", torch.tensor(0.0))
    graph.weight("relu6/high", torch.tensor(6.0))
    x = graph.conv_unit("stem", net.stem, "input")
    for name, stage in net.stages.items():
        x = graph.stage(name, stage, x)
    x = graph.node("Flatten", "flatten", [graph.node("GlobalAveragePool", "pool", [x])])
    weight = graph.weight("classifier/weight", net.classifier.weight)
    bias = graph.weight("classifier/bias", net.classifier.bias)
    graph.node("Gemm", "classifier", [x, weight, bias], transB=1)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "digits",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 8, 8])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
            graph.weights,
        ),
        producer_name="hwptq examples/digits/train.py",
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def as_input(images: np.ndarray) -> torch.Tensor:
    """uint8 [N, 8, 8, 1] as stored -> float32 (N, 1, 8, 8), as preprocess.toml says."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / WHITE)


def shifted(images: torch.Tensor) -> torch.Tensor:
    """Each batch moved by up to one pixel in each direction; the border is background."""
    dy, dx = torch.randint(0, 3, (2,)).tolist()
    return nn.functional.pad(images, (1, 1, 1, 1))[:, :, dy : dy + 8, dx : dx + 8]


def train(images: torch.Tensor, labels: torch.Tensor) -> DigitsNet:
    net = DigitsNet()
    steps = EPOCHS * -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            loss = nn.functional.cross_entropy(net(shifted(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}", flush=True)
    return net.eval()


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the same sums in the same order everywhere
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8)[..., np.newaxis], digits.target
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=450, random_state=SEED, stratify=labels
    )
    net = train(as_input(train_x), torch.from_numpy(train_y))
    model = to_onnx(net)

    with torch.no_grad():
        expected = net(as_input(test_x)).numpy()
    outputs: Any = ReferenceEvaluator(model).run(None, {"input": as_input(test_x).numpy()})
    logits = outputs[0]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    print(f"held-out accuracy: {accuracy(expected, test_y):.2%}, as ONNX {accuracy(logits, test_y):.2%}")

    onnx.save(model, HERE / "digits.onnx")
    few = slice(CALIBRATION_SAMPLES)  # of the training images, which are in random order
    np.savez_compressed(HERE / "calibration.npz", input=train_x[few], y=train_y[few].astype(np.uint8))
    np.savez_compressed(HERE / "evaluation.npz", input=test_x, y=test_y.astype(np.uint8))


if __name__ == "__main__":
    main()
