"""The preprocess file: each key's arithmetic, and every mistake in a file named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hwptq.data.dataset import from_batches
from hwptq.data.preprocess import InputTransform, Padding, Preprocess, load_preprocess
from hwptq.errors import InputError


def load(tmp_path: Path, text: str) -> Preprocess:
    path = tmp_path / "p.toml"
    path.write_text(text)
    return load_preprocess(path)


def error_of(tmp_path: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_key(tmp_path: Path) -> None:
    preprocess = load(
        tmp_path,
        """
        [image]
        channels = "BGR"
        resize = 256
        crop = [224, 200]
        pad = { top = 1, right = 2, mode = "constant", value = 7 }
        mean = [1, 2.5, 3]
        std = 2
        layout = "NCHW"
        [mask]
        """,
    )
    assert preprocess.inputs == {
        "image": InputTransform(
            layout="NCHW",
            channels="BGR",
            resize=256,
            crop=(224, 200),
            pad=Padding(top=1, right=2, mode="constant", value=7),
            mean=(1.0, 2.5, 3.0),
            std=(2.0,),
        ),
        "mask": InputTransform(),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no table: write one per graph input, such as [input]"),
        ("[input", "not a TOML file"),
        ("mean = 1", "mean: must be a table, not 1"),
        ("[input]\nmaen = 1", "input.maen: unknown key (did you mean mean?)"),
        ("[input]\nzzz = 1", "input.zzz: unknown key (known are layout, channels"),
        ('[input]\nlayout = "NCWH"', 'input.layout: must be "NCHW" or "NHWC", not \'NCWH\''),
        ("[input]\nlayout = [1]", "input.layout: must be"),
        ('[input]\nchannels = "rgb"', 'input.channels: must be "RGB" or "BGR"'),
        (
            "[input]\nresize = 0",
            "input.resize: must be a whole number, 1 to 65535, or [height, width], not 0",
        ),
        ("[input]\nresize = 1000000000", "input.resize: must be"),
        ("[input]\ncrop = 2.5", "input.crop: must be"),
        ("[input]\ncrop = [1, 2, 3]", "input.crop: must be"),
        ("[input]\ncrop = true", "input.crop: must be"),
        ("[input]\npad = 1", "input.pad: must be a table"),
        ("[input]\npad = { top = -1 }", "input.pad.top: must be a whole number of pixels, 0 to 65535"),
        ("[input]\npad = { top = 0.0 }", "input.pad.top: must be"),
        ("[input]\npad = { top = false }", "input.pad.top: must be"),
        ('[input]\npad = { mode = "wrap" }', 'input.pad.mode: must be "edge" or "constant"'),
        ("[input]\npad = { value = inf }", "input.pad.value: must be a finite number"),
        ("[input]\nmean = nan", "input.mean: must be a finite number or a list of them"),
        ("[input]\nmean = []", "input.mean: must be"),
        ('[input]\nmean = ["1"]', "input.mean: must be"),
        (f"[input]\nmean = {'9' * 400}", "input.mean: must be"),
        ("[input]\nstd = [1, 0]", "input.std: must not hold 0"),
        ("[input]\nstd = 1e-60", "input.std: must not hold 0"),  # 0 in float32
    ],
)
def test_malformed_file(tmp_path: Path, text: str, message: str) -> None:
    error = error_of(tmp_path, text)
    assert message in error
    assert error.startswith(str(tmp_path / "p.toml"))


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    error = error_of(tmp_path, '[a]\nlayout = "X"\nstd = 0\n[b]\ncrop = -1\nresiz = 2\n')
    assert all(key in error for key in ("a.layout", "a.std", "b.crop", "b.resiz"))


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't read the preprocess file: No such file"):
        load_preprocess(tmp_path / "none.toml")
    with pytest.raises(InputError, match="Is a directory"):
        load_preprocess(tmp_path)
    (tmp_path / "p.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not a TOML file"):
        load_preprocess(tmp_path / "p.toml")


def test_bind() -> None:
    transform = InputTransform(mean=(1.0,))
    assert Preprocess({"x": transform}).bind(["image"]) == {"image": transform}
    assert Preprocess({"a": transform}).bind(["a", "b"]) == {"a": transform, "b": InputTransform()}
    for tables in (["c"], ["x"], ["a", "b", "c"]):
        with pytest.raises(InputError, match="but the graph's inputs are a, b"):
            Preprocess(dict.fromkeys(tables, transform)).bind(["a", "b"])
    with pytest.raises(InputError, match="one table per graph input"):
        Preprocess({"x": transform, "image": transform}).bind(["image"])


PIXELS = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (InputTransform(), PIXELS),
        (InputTransform(layout="NHWC"), PIXELS),
        (InputTransform(layout="NCHW"), PIXELS.transpose(2, 0, 1)),
        (InputTransform(channels="BGR"), PIXELS[..., ::-1]),
        (InputTransform(crop=(3, 2)), PIXELS[1:4, 1:3]),
        (InputTransform(crop=(4, 4)), PIXELS[:4]),
        (InputTransform(mean=(2.0,), std=(4.0,)), (PIXELS.astype(np.float32) - 2) / 4),
        (InputTransform(mean=(1.0, 2.0, 3.0)), PIXELS.astype(np.float32) - [1, 2, 3]),
        # mean and std are in the order of the graph, after the swap
        (
            InputTransform(channels="BGR", mean=(1.0, 2.0, 3.0)),
            PIXELS[..., ::-1].astype(np.float32) - [1, 2, 3],
        ),
        (InputTransform(pad=Padding(1, 2, 0, 1)), np.pad(PIXELS, ((1, 0), (2, 1), (0, 0)), mode="edge")),
        (
            InputTransform(pad=Padding(bottom=2, mode="constant", value=0.5)),
            np.pad(PIXELS.astype(np.float32), ((0, 2), (0, 0), (0, 0)), constant_values=0.5),
        ),
    ],
)
def test_transform(transform: InputTransform, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(transform(PIXELS), expected)


@pytest.mark.parametrize(
    ("stored", "size", "shape"),
    [
        ((480, 640), 256, (256, 341)),
        ((640, 480), 256, (341, 256)),
        ((5, 4), (8, 3), (8, 3)),
        ((4, 4), 4, (4, 4)),
    ],
)
def test_resize(stored: tuple[int, int], size: Any, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*stored, 3), dtype=np.uint8)
    resized = InputTransform(resize=size)(pixels)
    expected = Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.asarray(expected))


def test_resize_of_floats_and_of_any_number_of_channels() -> None:
    ramp = np.linspace(0, 1, 8, dtype=np.float64).reshape(1, 8, 1) * np.ones((8, 1, 5))
    resized = InputTransform(resize=4)(ramp)
    assert (resized.shape, resized.dtype) == ((4, 4, 5), np.float32)
    assert np.all(np.diff(resized, axis=1) > 0)


@pytest.mark.parametrize(
    ("stored", "transform", "message"),
    [
        (PIXELS[0], InputTransform(crop=(2, 2)), "an image [height, width, channel] is needed"),
        (PIXELS[:0], InputTransform(resize=4), "an image [height, width, channel] is needed"),
        (PIXELS, InputTransform(crop=(6, 2)), "crop 6 x 2 is larger than the image, 5 x 4"),
        (PIXELS, InputTransform(mean=(1.0, 2.0)), "mean has 2 values, the stored data (5, 4, 3) has 3"),
        (np.float32(1), InputTransform(std=(1.0, 2.0)), "std has 2 values, the stored data () has 1"),
        (
            PIXELS.transpose(2, 0, 1),
            InputTransform(layout="NCHW"),
            "takes data stored as [height, width, chann",
        ),
    ],
)
def test_data_that_does_not_fit_the_transform(
    stored: np.ndarray, transform: InputTransform, message: str
) -> None:
    batch = np.asarray(stored)[np.newaxis]
    shape = (1, 3, 5, 4) if transform.layout == "NCHW" else batch.shape
    with pytest.raises(InputError) as caught:
        list(from_batches(batch, {"x": (shape, "float32")}, Preprocess({"x": transform})))
    assert message in str(caught.value)
