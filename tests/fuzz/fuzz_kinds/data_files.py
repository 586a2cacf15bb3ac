"""Calibration data: archives, arrays and folders of images that aren't as they should be."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from bases import Base, attention, convolutions
from case import Kind, Run, compile_command
from PIL import Image

from fuzz_kinds.model_files import damaged

_DTYPES = ("f8", "f2", "i1", "u1", "i8", ">f4", "c8", "U3", "M8[s]", "?", "S2", "g")
_SHAPES = (
    "(1099511627776, 3, 8, 8)", "(-1, 3, 8, 8)", "(4, 3, 8, 8.0)", "(True, 3, 8, 8)", "('a',)",
    "(0, 3, 8, 8)",
    "(9223372036854775808, 0)", "(4, 3, 8, 8)", "()", "[4, 3, 8, 8]", "4", "(" * 500 + ")" * 500,
)  # fmt: skip
_DESCRIPTIONS = ("'<f4'", "'|O'", "[('a', '<f4')]", "'<V99'", "'x'", "'<f4,<f4'", "3", "'>f4'")
_ALTERED: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda x: x, np.asfortranarray, lambda x: x[:0], lambda x: x[..., :5], lambda x: x[0], lambda x: x[None],
    lambda x: np.where(x > 1, np.float32("nan"), x), lambda x: np.where(x > 1, np.float32("inf"), x),
    lambda x: x * np.float32(1e38), lambda x: x * 0, lambda x: x.astype("f8") * 1e300, lambda x: x[:1],
    lambda x: x * np.float32(1e-42), lambda x: np.float32(3) + 0 * x,
)  # fmt: skip


def _bytes(array: np.ndarray, pickled: bool = False) -> bytes:
    """The .npy file of an array."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


def _array(chance: random.Random, good: np.ndarray) -> bytes:
    """An .npy file: another array, or one whose header is of our making."""
    with np.errstate(all="ignore"):
        how = chance.random()
        if how < 0.4:
            return _bytes(chance.choice(_ALTERED)(good))
        if how < 0.55:
            return _bytes(good.astype(chance.choice(_DTYPES)))
        if how < 0.6:
            return _bytes(np.array([good, None], dtype=object), pickled=True)
        if how < 0.7:
            return damaged(chance, _bytes(good))
    text = f"{{'descr': {chance.choice(_DESCRIPTIONS)}, 'fortran_order': False, "
    header = (text + f"'shape': {chance.choice(_SHAPES)}, }}\n").encode()
    version = chance.choice([b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\x09\x09"])
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + good.tobytes()


def _labels(chance: random.Random) -> np.ndarray:
    kinds = [
        np.arange(4) % 4, np.array([9, 9, 9, 9]), np.array([-1, 0, 1, 2]), np.array([np.nan, 0, 1, 2]),
        np.array(["a", "b", "c", "d"]), np.zeros((4, 5)), np.zeros(3), np.array(1), np.array([2**62] * 4),
        np.array([True] * 4), np.array([2**63 + 5] * 4, dtype="u8"), np.array([1 + 2j] * 4), np.zeros((4, 0)),
    ]  # fmt: skip
    return chance.choice(kinds)


def _archive(chance: random.Random, base: Base, path: Path) -> None:
    """An .npz with members of any kind, under right and wrong names."""
    names = chance.choice([list(base.inputs)] * 6 + [["X"], ["../x", "x"], [], ["x", "x"], ["x.npy"], ["x/"]])
    method = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    data = base.data()
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            good = data.get(name, data["x"])
            archive.writestr(f"{name}.npy", _array(chance, good) if chance.random() < 0.8 else _bytes(good))
        if chance.random() < 0.3:
            archive.writestr("y.npy", _bytes(_labels(chance)) if chance.random() < 0.8 else b"junk")
    if chance.random() < 0.2:
        path.write_bytes(damaged(chance, path.read_bytes()))


class ArrayFiles(Kind):
    """.npz and .npy."""

    name = "data-files"

    def prepare(self, chance: random.Random, folder: Path) -> Run:
        base = chance.choice([convolutions, convolutions, attention])()
        onnx.save(base.proto, folder / "model.onnx")
        path = folder / chance.choice(["data.npz", "data.npz", "data.npz", "data.npy", "data.bin"])
        if path.suffix == ".npy":
            path.write_bytes(_array(chance, base.data()["x"]))
        elif chance.random() < 0.05:
            path.symlink_to(chance.choice(["/dev/zero", path, "/proc/self/mem", "nothing", folder]))
        else:
            _archive(chance, base, path)
        options = chance.choice([(), (), ("--metric", "top1"), ("--evaluation-data", path)])
        whole = bool(options) or chance.random() < 0.2
        return compile_command(folder / "model.onnx", path, folder, *options, whole=whole)


_LABEL_FILES = (
    "file,label\n0.png,1\n1.png,2\n", "file,label\n0.png,x\n", "", "file\n0.png\n", "file,label\n9.png,1\n",
    "file,label\n../data/0.png,1\n", "file,label\n0.png\n", "\ufefffile,label\n0.png,1\n",
    "file,label\n\0,1\n",
    "file,label\n0.png,1\n0.png,2\n", '"file,label\n0.png', "file,label\n0.png,99999999999999999999\n",
    "file,label\n0.png,-1\n", "label,file\n1,0.png\n",
)  # fmt: skip


class ImageFolders(Kind):
    """Folders of images, and their labels."""

    name = "images"

    def prepare(self, chance: random.Random, folder: Path) -> Run:
        base, data = convolutions(), folder / "data"
        onnx.save(base.proto, folder / "model.onnx")
        data.mkdir()
        for i in range(chance.choice([0, 1, 3])):
            _image(chance, data / f"{i}.{chance.choice(['png', 'png', 'jpg', 'bmp', 'gif', 'webp'])}")
        if chance.random() < 0.6:
            (data / "labels.csv").write_text(chance.choice(_LABEL_FILES), encoding="utf-8")
        sizes = ["8", "8", "8", "[8, 8]", "7"]
        text = f'[x]\nresize = {chance.choice(sizes)}\ncrop = 8\nlayout = "NCHW"\n'
        (folder / "preprocess.toml").write_text(text)
        options = ("--preprocess", folder / "preprocess.toml")
        return compile_command(folder / "model.onnx", data, folder, *options, whole=chance.random() < 0.2)


def _image(chance: random.Random, path: Path) -> None:
    """An image of any mode and size, whole or not."""
    mode = chance.choice(["RGB", "RGB", "RGB", "L", "RGBA", "P", "1", "CMYK", "I;16", "F"])
    image = Image.new(mode, (chance.choice([1, 8, 12, 300]), chance.choice([1, 8, 10])))
    content = io.BytesIO()
    try:
        image.save(content, path.suffix[1:].replace("jpg", "jpeg"))
    except (OSError, ValueError, KeyError):  # a format that lacks the mode
        content = io.BytesIO(b"GIF89a junk")
    whole = chance.random() < 0.7
    path.write_bytes(content.getvalue() if whole else damaged(chance, content.getvalue()))
