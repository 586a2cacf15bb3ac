"""Files that are no models, and models that are not well formed: what is wrong, by the names of the file."""

from __future__ import annotations

import gzip
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import model, node, normal, save

from hwptq.errors import HwptqError, InputError, UnsupportedError
from hwptq.frontends.onnx.importer import import_onnx

W = {"w": normal(0, 4, 3, 3, 3)}
X = {"x": ["N", 3, 6, 6]}


def refused(path: Path) -> str:
    with pytest.raises(HwptqError) as caught:
        import_onnx(path)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def pt(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"")


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "model.pt": (pt, r"PyTorch's \.pt.*export the model as ONNX \(torch\.onnx\.export\)"),
    "model.onnx.gz": (lambda p: p.write_bytes(gzip.compress(b"onnx")), "gzip; unpack it first"),
    "model.tflite": (lambda p: p.write_bytes(b"\x1c\0\0\0TFL3"), "TensorFlow Lite; export the model as ONNX"),
    "model.ort": (lambda p: p.write_bytes(b"\x1c\0\0\0ORTM"), r"give the \.onnx file"),
    "model.npy": (lambda p: np.save(p, np.ones(3)), "holds an array"),
    "model.h5": (lambda p: p.write_bytes(b"\x89HDF\r\n"), "Keras"),
    "model": (lambda p: p.mkdir(), "is a folder"),
    "empty.onnx": (lambda p: p.touch(), "the file is empty"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files(tmp_path: Path, name: str):
    write, words = OTHERS[name]
    write(tmp_path / name)
    assert re.search(words, refused(tmp_path / name))


def broken(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    found = model([node("Conv", "x w", "y", "conv")], X, W)
    change(found)
    return found


def element_type(number: int) -> Callable[[onnx.ModelProto], object]:
    return lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", number)


BROKEN = {
    "constant of another size": (
        broken(lambda m: m.graph.initializer[0].dims.__setitem__(0, 1)),
        r"constant 'w' of shape \[1, 3, 3, 3\]: cannot reshape array of size 108",
    ),
    "no element type": (broken(element_type(0)), "input 'x': element type 0 is not known"),
    "unknown element type": (broken(element_type(99)), "input 'x': element type 99 is not known"),
    "texts": (broken(element_type(TensorProto.STRING)), "input 'x' holds string"),
    "missing weight": (model([node("Conv", "x w", "y", "conv")], X), r"'conv' \(Conv\) reads 'w', which no"),
    "out of order": (
        model([node("Relu", "c", "y", "late"), node("Conv", "x w", "c", "conv")], X, W),
        r"'late' \(Relu\) reads 'c', which a later node gives",
    ),
    "missing input": (model([node("BatchNormalization", "x w", "y", "bn")], X, W), "bn.*input size 2"),
    "absent operand": (
        model([node("Concat", "x -", "y", "join", axis=1)], X), r"'join' \(Concat\): operand 1 has no name"
    ),
    "unknown operator": (model([node("Foo", "x", "y", "foo")], X), "Foo.*foo"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_models(tmp_path: Path, kind: str):
    proto, words = BROKEN[kind]
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=words):
        import_onnx(path)


@pytest.mark.parametrize("text", ["conv", "Conv", "x"])
def test_texts_that_are_none(tmp_path: Path, text: str):
    """Of a name, an operator, and of what is read."""
    whole = broken(lambda m: None).SerializeToString()
    spoilt = text[:-1].encode() + b"\xd2"
    path = tmp_path / "model.onnx"
    path.write_bytes(whole.replace(text.encode(), spoilt, 1))
    with pytest.raises(InputError, match=r"b'.*\\xd2.*' is no text in UTF-8"):
        import_onnx(path)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"strides": [1, 1, 1]}, r"node 'conv' \(Conv\): The input strides length is expected to be 2"),
        ({"group": 2}, r"node 'conv' \(Conv\): The channel size .* size is 3 while"),
    ],
)
def test_nodes_that_cannot_be(tmp_path: Path, attributes: dict[str, object], words: str):
    path = save(model([node("Conv", "x w", "y", "conv", **attributes)], X, W), tmp_path)
    with pytest.raises(UnsupportedError, match=words):
        import_onnx(path)
