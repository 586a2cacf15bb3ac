"""Reading calibration and evaluation data: what is accepted, and one clear error for everything else."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hwptq.data.dataset import Dataset, from_batches, open_dataset
from hwptq.data.preprocess import InputTransform, Preprocess
from hwptq.errors import InputError

IMAGE = {"input": ((1, 3, 4, 5), "float32")}
TWO = {"a": ((1, 2), "float32"), "b": ((1, 3), "int32")}


def images(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 4, 5)).astype(np.float32)


def values(dataset: Dataset, name: str = "input") -> np.ndarray:
    return np.concatenate([sample.inputs[name] for sample in dataset])


def error_of(read: Callable[[], Any]) -> str:
    """The one line of the InputError that `read` ends in."""
    with pytest.raises(InputError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


# Array files


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("key", ["input", "x"])
def test_npz(tmp_path: Path, write: Any, key: str) -> None:
    write(tmp_path / "d.npz", **{key: images()}, y=np.arange(6, dtype=np.uint8))
    dataset = open_dataset(tmp_path / "d.npz", IMAGE)
    assert len(dataset) == 6
    for _ in range(2):  # it can be read again
        np.testing.assert_array_equal(values(dataset), images())
    labels = [sample.label for sample in dataset]
    assert labels == list(range(6))
    assert all(type(label) is int for label in labels)


def test_npz_of_several_inputs_casts_each(tmp_path: Path) -> None:
    a, b = np.arange(8, dtype=np.int16).reshape(4, 2), np.arange(12, dtype=np.int64).reshape(4, 3)
    dataset = open_dataset(save(tmp_path / "d.npz", a=a, b=b), TWO)
    sample = next(iter(dataset))
    assert {name: (x.shape, x.dtype.name) for name, x in sample.inputs.items()} == TWO
    np.testing.assert_array_equal(values(dataset, "b"), b)
    assert sample.label is None


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", ">f4", "float64", "float16", "uint8", "bool"])
def test_npy_of_any_layout_and_number(tmp_path: Path, order: Any, dtype: str) -> None:
    stored = np.asarray(images() * 3 + 5, dtype=dtype, order=order)
    np.save(tmp_path / "d.npy", stored)
    np.testing.assert_array_equal(values(open_dataset(tmp_path / "d.npy", IMAGE)), stored.astype(np.float32))


def test_an_input_named_y_is_no_label(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", y=images())
    sample = next(iter(open_dataset(path, {"y": IMAGE["input"]})))
    assert sample.label is None


def test_labels_of_several_values_stay_arrays(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=images(), y=np.ones((6, 7), np.float32))
    label = next(iter(open_dataset(path, IMAGE))).label
    assert isinstance(label, np.ndarray)
    assert label.shape == (7,)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": images()}, "no array 'input' or 'x' for that graph input; it has image"),
        ({}, "it has none"),
        ({"x": images()[0]}, "has shape (4, 5), the graph expects (3, 4, 5): save arrays [samples, 3, 4, 5]"),
        ({"x": images().transpose(0, 2, 3, 1)}, 'give a preprocess file with layout = "NCHW", or transpose'),
        ({"x": images()[..., :4]}, "bring it to that size"),
        ({"x": images()[:0]}, "holds no samples"),
        ({"x": np.float32(1)}, "the first axis must count the samples"),
        ({"x": images().astype(object)}, "pickled Python objects aren't read"),
        ({"x": images(), "y": np.array([None] * 6)}, "array 'y': pickled"),
        ({"x": images().astype(str)}, "only numbers are read"),
        ({"x": images().astype(np.complex64)}, "only numbers are read"),
        ({"x": np.full((6, 3, 4, 5), np.nan)}, "sample 0: holds NaN or Inf"),
        ({"x": np.full((6, 3, 4, 5), 1e300)}, "holds NaN or Inf"),  # Inf as float32
        ({"x": images(), "y": np.arange(5)}, "differ in their number of samples: 'input' has 6, 'y' has 5"),
        ({"x": images(), "y": np.full(6, np.nan)}, "the label is not a finite number"),
    ],
)
def test_wrong_npz(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "d.npz", **arrays)
    text = error_of(lambda: open_dataset(path, IMAGE))
    assert message in text
    assert text.startswith(str(path))


def test_bad_values_are_found_in_every_sample(tmp_path: Path) -> None:
    data = images()
    data[4, 0, 0, 0] = np.inf
    dataset = open_dataset(save(tmp_path / "d.npz", x=data), IMAGE)
    assert "sample 4: holds NaN or Inf" in error_of(lambda: list(dataset))


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (np.ones((2, 3), np.float32), "is float32, the graph expects int32"),
        (np.full((2, 3), 2**40), "more than int32 can hold"),
    ],
)
def test_integers_stay_whole_and_in_range(tmp_path: Path, b: np.ndarray, message: str) -> None:
    path = save(tmp_path / "d.npz", a=np.ones((2, 2)), b=b)
    text = error_of(lambda: open_dataset(path, TWO))
    assert message in text
    assert "input 'b'" in text


def test_wrong_npz_of_several_inputs(tmp_path: Path) -> None:
    assert "no array 'b'" in error_of(lambda: open_dataset(save(tmp_path / "d.npz", a=images()), TWO))
    np.save(tmp_path / "d.npy", images())
    assert "the graph has the inputs a, b" in error_of(lambda: open_dataset(tmp_path / "d.npy", TWO))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.npz", "can't be read (No such file or directory)"),
        ("none.npy", "can't be read (No such file or directory)"),
        ("none", "no such file or folder: give .npz, .npy, a folder of images or package.module:function"),
        ("a\0b.npz", "can't be read"),
        ("a" * 5000, "no such file or folder"),
    ],
)
def test_missing_file(tmp_path: Path, name: str, message: str) -> None:
    assert message in error_of(lambda: open_dataset(tmp_path / name, IMAGE))


def test_unknown_suffix(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    assert "no such file" in error_of(lambda: open_dataset(path, IMAGE))
    path.write_text("1,2\n")
    assert "is no known kind of data: give .npz, .npy" in error_of(lambda: open_dataset(path, IMAGE))


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_not_an_array_file(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"d{suffix}"
    path.write_bytes(content)
    assert "cut short" in error_of(lambda: open_dataset(path, IMAGE))


def test_truncated_npy_is_found_where_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "d.npy"
    np.save(path, images())
    path.write_bytes(path.read_bytes()[:-8])
    assert "cut short at sample 5" in error_of(lambda: list(open_dataset(path, IMAGE)))


def test_header_that_claims_more_than_memory(tmp_path: Path) -> None:
    with (tmp_path / "d.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (1, 2**62)}
        )
    assert "damaged at sample 0" in error_of(lambda: open_dataset(tmp_path / "d.npy", IMAGE))


@pytest.mark.parametrize("kind", ["npz", "compressed.npz", "npy", "png", "jpg"])
def test_damaged_files_never_raise_anything_else(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"d.{kind}"
    if path.suffix in (".png", ".jpg"):
        Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).save(path)
    elif kind == "npy":
        np.save(path, images())
    else:
        (np.savez_compressed if "compressed" in kind else np.savez)(path, x=images(), y=np.arange(6))
    whole, rng = path.read_bytes(), random.Random(0)
    source = tmp_path if path.suffix in (".png", ".jpg") else path
    messages = []
    for _ in range(100):
        cut, flipped = whole[: rng.randrange(len(whole))], bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        for content in (cut, bytes(flipped)):
            path.write_bytes(content)
            try:
                list(open_dataset(source, IMAGE))
            except InputError as error:
                messages.append(str(error))
    assert len(messages) >= 90  # a flip may hit padding, or make another valid pixel
    assert not any("\n" in message for message in messages)


# Folders of images


def folder(path: Path, labels: str | None = "file,label\na.png,3\nb.png,4\n", size: tuple = (5, 4)) -> Path:
    for index, name in enumerate(["b.png", "a.png"]):
        Image.new("RGB", size, (index, 20, 30)).save(path / name)
    (path / "notes.txt").write_text("not an image")
    if labels is not None:
        (path / "labels.csv").write_text(labels)
    return path


def test_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    dataset = open_dataset(folder(tmp_path), IMAGE)
    assert len(dataset) == 2
    assert [sample.label for sample in dataset] == [3, 4]
    np.testing.assert_array_equal(values(dataset)[:, :, 0, 0], [[1, 20, 30], [0, 20, 30]])


def by_class(path: Path, images: dict[str, list[str]]) -> Path:
    for name, files in images.items():
        (path / name).mkdir()
        for file in files:
            Image.new("RGB", (5, 4), (len(name), 20, 30)).save(path / name / file)
    return path


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["cat", "dög", "a fish"], {"a fish": 0, "cat": 1, "dög": 2}),
        (["2", "10", "1"], {"1": 1, "2": 2, "10": 10}),
    ],
)
def test_a_folder_for_each_class(tmp_path: Path, names: list[str], labels: dict[str, int]) -> None:
    """The first of each class, then the second; hidden files and folders are nobody's."""
    path = by_class(
        tmp_path, {names[0]: ["b.png", "a.png", "c.png"], names[1]: ["a.png"], names[2]: ["a.png"]}
    )
    (path / ".cache").mkdir()
    (path / names[0] / "._a.png").write_text("of another system")
    dataset = open_dataset(path, IMAGE)
    assert len(dataset) == 5
    assert [sample.label for sample in dataset][:3] == [labels[name] for name in sorted(names)]
    assert [sample.label for sample in dataset][3:] == [labels[names[0]]] * 2
    assert [sample.label for sample in dataset.part(3, 4)] == [labels[names[0]]]
    before = dataset.identity
    (path / names[1]).rename(path / "0")
    assert open_dataset(path, IMAGE).identity != before


def test_labels_of_images_in_folders(tmp_path: Path) -> None:
    path = by_class(tmp_path, {"x": ["a.png"], "y": ["a.png"]})
    (path / "labels.csv").write_text("file,label\nx/a.png,7\ny/a.png,5\n")
    assert [sample.label for sample in open_dataset(path, IMAGE)] == [7, 5]


def test_a_folder_beside_those_of_classes(tmp_path: Path) -> None:
    """It would shift the numbers of the classes behind it."""
    path = by_class(tmp_path, {"cat": ["a.png"], "dog": ["a.png"]})
    (path / "annotations").mkdir()
    assert "annotations: holds no image, but the folders" in error_of(lambda: open_dataset(path, IMAGE))


def test_images_without_labels_grey_and_nhwc(tmp_path: Path) -> None:
    dataset = open_dataset(folder(tmp_path, labels=None), {"x": ((1, 4, 5, 1), "uint8")})
    sample = next(iter(dataset))
    assert sample.label is None
    assert sample.inputs["x"].shape == (1, 4, 5, 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "the first line must be file,label"),
        ("name,class\na.png,1\n", "the first line must be file,label, not name,class"),
        ("file,label\na.png,1\n", "1 of 2 images lack a label, such as b.png"),
        ("file,label\na.png,1\nb.png,2\nc.png,3\n", "names 'c.png', but there is no such image"),
        ("file,label\na.png,1\na.png,2\nb.png,3\n", "labels 'a.png' twice"),
        ("file,label\na.png,cat\nb.png,1\n", "'a.png,cat' is not a file name and a number"),
        ("file,label\na.png\n", "'a.png' is not a file name and a number"),
        ("file,label\na.png,nan\nb.png,1\n", "the label is not a finite number"),
    ],
)
def test_wrong_labels(tmp_path: Path, labels: str, message: str) -> None:
    assert message in error_of(lambda: open_dataset(folder(tmp_path, labels), IMAGE))


def test_labels_in_another_encoding(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "labels.csv").write_bytes("file,label\nä.png,1\n".encode("latin-1"))
    assert "labels.csv: can't be read" in error_of(lambda: open_dataset(tmp_path, IMAGE))


def test_wrong_folder(tmp_path: Path) -> None:
    assert "holds no images" in error_of(lambda: open_dataset(tmp_path, IMAGE))
    folder(tmp_path, size=(6, 4))
    assert "bring it to that size" in error_of(lambda: open_dataset(tmp_path, IMAGE))
    assert "images fill one input" in error_of(lambda: open_dataset(tmp_path, TWO))
    five = {"input": ((1, 5, 4, 6), "float32")}
    assert "images need an input of 1 or 3 channels" in error_of(lambda: open_dataset(tmp_path, five))
    (tmp_path / "a.png").write_text("not an image")
    assert "a.png: can't be read as an image" in error_of(lambda: open_dataset(tmp_path, IMAGE))


def test_images_of_16_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 5), 1000, np.uint16)).save(tmp_path / "a.png")
    assert "more than 8 bits" in error_of(lambda: open_dataset(tmp_path, IMAGE))


# Batches and functions


@pytest.mark.parametrize(
    "data",
    [
        images(),
        {"input": images()},
        [{"x": images()[:2]}, {"x": images()[2:]}],
        list(images()),  # each without a batch axis
        (batch for batch in [images()]),
        lambda: iter([images()[:1], images()[1:]]),
    ],
)
def test_from_batches(data: Any) -> None:
    np.testing.assert_array_equal(values(from_batches(data, IMAGE)), images())


def test_from_batches_counts_a_list_and_keeps_labels() -> None:
    dataset = from_batches([{"input": images(4), "y": [1, 0, 2, 3]}, {"input": images()[0], "y": 7}], IMAGE)
    assert len(dataset) == 5
    assert [sample.label for sample in dataset] == [1, 0, 2, 3, 7]
    assert from_batches(dataset, IMAGE) is dataset


@pytest.mark.parametrize("values", [np.float32([1, 2, 3]), np.float32(2)])
def test_samples_of_an_input_without_axes(values: np.ndarray) -> None:
    found = [sample.inputs["gain"] for sample in from_batches({"gain": values}, {"gain": ((), "float32")})]
    assert [array.shape for array in found] == [()] * values.size
    assert [float(array) for array in found] == np.atleast_1d(values).tolist()


def test_wrong_samples_of_an_input_without_axes() -> None:
    message = error_of(lambda: from_batches({"gain": np.zeros((2, 1))}, {"gain": ((), "float32")}))
    assert "input 'gain': has shape (2, 1), the graph expects [samples]" in message


def test_an_iterator_is_read_only_once() -> None:
    dataset = from_batches(iter([images()]), IMAGE)
    with pytest.raises(TypeError, match="isn't known"):
        len(dataset)
    assert dataset  # although it has no length
    list(dataset)
    assert "can be read only once" in error_of(lambda: list(dataset))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "it is of type int"),
        ([], "holds no samples"),
        ([7], "sample 0: is of type int: give {input name: array}"),
        ([{"z": images()}], "no array 'input' or 'x'"),
        ([{"x": [[1], [1, 2]]}], "not an array"),
        ([images()[0, 0]], "the graph expects [samples, 3, 4, 5]"),
        ([images(), images()[..., :2]], "sample 6: has shape (3, 4, 2)"),
        ([{"x": images(), "y": [1]}], "'input' has 6, 'y' has 1"),
        (lambda: None, "the function returned NoneType"),
    ],
)
def test_wrong_batches(data: Any, message: str) -> None:
    assert message in error_of(lambda: list(from_batches(data, IMAGE)))


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user_batches.py").write_text(
        textwrap.dedent("""
            import numpy as np

            value = 1

            def batches():
                for i in range(3):
                    yield {"input": np.full((2, 3, 4, 5), i, np.float32), "y": [i, i]}

            def broken():
                yield {"input": np.zeros((3, 4, 5))}
                raise KeyError("no more")
        """)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.usefixtures("user_module")
def test_function_of_the_user() -> None:
    dataset = open_dataset("user_batches:batches", IMAGE)
    for _ in range(2):
        assert [sample.label for sample in dataset] == [0, 0, 1, 1, 2, 2]


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module:f", "can't be imported (ModuleNotFoundError"),
        ("user_batches:nothing", "can't be imported (AttributeError"),
        ("user_batches:value", "is of type int, not a function"),
        ("user_batches:broken", "raised KeyError: 'no more'"),
    ],
)
def test_wrong_function_of_the_user(spec: str, message: str) -> None:
    assert message in error_of(lambda: list(open_dataset(spec, IMAGE)))


# take, preprocessing, memory


def test_take() -> None:
    dataset = from_batches(images(), IMAGE)
    part = dataset.take(4)
    assert (len(part), len(values(part))) == (4, 4)
    assert len(values(part.take(2))) == 2
    assert len(values(part.take(9))) == len(part.take(9)) == 4
    assert len(values(dataset)) == len(dataset) == 6
    assert "at least 1 sample" in error_of(lambda: dataset.take(0))


def test_take_of_unknown_length_reads_no_further() -> None:
    def batches() -> Any:
        yield images(2)
        raise AssertionError("read too far")

    part = from_batches(batches, IMAGE).take(2)
    assert len(values(part)) == 2


def test_preprocess_is_applied_to_each_sample() -> None:
    stored = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    preprocess = Preprocess({"input": InputTransform(layout="NCHW", mean=(1.0, 2.0, 3.0), std=(2.0,))})
    expected = ((stored.astype(np.float32) - [1, 2, 3]) / 2).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(values(from_batches(stored, IMAGE, preprocess)), expected)


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((64, 3, 512, 512), np.float32))  # 201 MB
    script = """
        import resource, sys
        from hwptq.data.dataset import open_dataset
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
        dataset = open_dataset(sys.argv[1], {"x": ((1, 3, 512, 512), "float32")})
        before = peak()
        assert sum(1 for _ in dataset) == 64
        print(peak() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "d.npz")]
    grown = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(grown.stdout) < 30 * 1024
