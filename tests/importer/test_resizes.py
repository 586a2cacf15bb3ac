"""Resize by any scale, and against aliasing: the values of onnx.reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_models import expected, model, node, normal

from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_proto

SHAPE = [1, 2, 5, 7]


def resized(sizes: list[int] | None, **attributes: Any) -> tuple[np.ndarray, np.ndarray]:
    """(found, wanted)."""
    scales = {"s": np.float32([1, 1, 1.5, 0.63])} if sizes is None else {"s": np.array([1, 2, *sizes])}
    one = node("Resize", "x - s" if sizes is None else "x - - s", "y", "resize", **attributes)
    proto = model([one], {"x": SHAPE}, scales, opset=18)
    x = {"x": normal(1, *SHAPE)}
    (wanted,) = expected(proto, x)
    (found,) = Interpreter(import_proto(proto, "model").module).run(x)
    return found, wanted


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"])
@pytest.mark.parametrize(
    "how",
    [
        {"mode": "nearest"}, {"mode": "nearest", "nearest_mode": "floor"}, {"mode": "linear"},
        {"mode": "cubic"},
    ],
    ids=str,
)  # fmt: skip
def test_scales_that_give_no_whole_pixels(how: dict[str, Any], coordinates: str) -> None:
    how = {"coordinate_transformation_mode": coordinates, **how}
    found, wanted = resized(None, **how)
    if coordinates == "align_corners":  # by whole sizes, as ONNX Runtime and PyTorch have it
        _, wanted = resized([7, 4], **how)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("sizes", [None, [3, 4], [5, 3], [8, 9]], ids=str)
def test_against_aliasing(mode: str, sizes: list[int] | None) -> None:
    found, wanted = resized(sizes, mode=mode, antialias=1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_sizes_that_follow_from_each_other_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"'resize' \(Resize\): keep_aspect_ratio_policy"):
        resized([4, 4], mode="linear", keep_aspect_ratio_policy="not_larger")


def test_an_antialias_that_nobody_computes_is_refused() -> None:
    one = node("Resize", "x - - s", "y", "resize", mode="linear", antialias=1)
    proto = model([one], {"x": [1, 1, 2, 1100]}, {"s": np.array([1, 1, 2, 500])}, opset=18)
    with pytest.raises(UnsupportedError, match=r"'resize' \(Resize\): antialias is not supported"):
        import_proto(proto, "model")


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_a_whole_exponent_of_a_real_base(dtype: Any) -> None:
    proto = model([node("Pow", "x e", "y")], {"x": [1, 6]}, {"e": np.array(3, dtype)})
    x = normal(1, 1, 6)
    (found,) = Interpreter(import_proto(proto, "model").module).run({"x": x})
    np.testing.assert_allclose(found, x**3, atol=1e-5)
