"""Programs of torch.export; skipped where torch is not installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hwptq
from hwptq.errors import InputError, UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.frontend import read_model

torch = pytest.importorskip(
    "torch", reason="torch is not installed; it is only needed by who exports from it"
)


def network() -> Any:
    """Convolutions with batch norms and clamps, a pool, a dense layer: [n, 1, 8, 8] -> [n, 10]."""
    nn = torch.nn
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
        nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    model = nn.Sequential(*layers)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def images(count: int) -> list[np.ndarray]:
    return [np.random.default_rng(i).standard_normal((1, 1, 8, 8)).astype(np.float32) for i in range(count)]


def exported(model: Any, batch: int = 1, symbolic: bool = False) -> Any:
    shapes = ({0: torch.export.Dim("n", min=1, max=64)},) if symbolic else None
    return torch.export.export(model, (torch.randn(batch, 1, 8, 8),), dynamic_shapes=shapes)


@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic batch"])
def test_an_exported_program_gives_what_torch_gives(symbolic: bool):
    model = network()
    found = read_model(exported(model, 4 if symbolic else 1, symbolic))
    [(name, (shape, dtype))] = found.inputs.items()
    assert (shape, dtype) == ((1, 1, 8, 8), "float32")
    for image in images(2):
        with torch.no_grad():
            exact = model(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(Interpreter(found.module).run({name: image})[0], exact, atol=1e-5)


def test_an_exported_program_compiles(runnable: Any, tmp_path: Any):
    made = hwptq.compile(
        exported(network()), runnable("x86-64-avx2"), images(16), output=tmp_path / "out", recipe="fast"
    )
    assert made.report["coverage"]["nodes_float"] == []
    assert made.report["bit_exact"]["mismatches"] == 0
    assert made.report["accuracy"]["emitted"] > 30


def test_a_fixed_batch_is_refused(tmp_path: Any):
    with pytest.raises(InputError, match="export it with a batch"):
        hwptq.compile(exported(network(), 4), "x86-64-avx2", images(4), output=tmp_path / "out")


def test_a_module_must_be_exported_first():
    with pytest.raises(InputError, match=r"must be exported first: give torch.export.export"):
        read_model(network())


def test_an_operator_that_the_importer_lacks_is_one_line():
    class Sorted(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.linalg.svd(x)[1]

    with pytest.raises(UnsupportedError, match="the exported program: ") as caught:
        read_model(torch.export.export(Sorted(), (torch.randn(4, 4),)))
    assert "\n" not in str(caught.value)
