"""The preprocess file: how stored data becomes the values of a graph input.

One TOML table per graph input, every key optional, applied in this order:

    [input]
    channels = "BGR"                  # the stored data is RGB: reverse it for a model that wants BGR
    resize = 256                      # shorter side, or [height, width]; bilinear
    crop = 224                        # centre; or [height, width]
    pad = { top = 1, left = 1, bottom = 2, right = 2, mode = "edge" }    # or mode = "constant", value = 0
    mean = [123.675, 116.28, 103.53]  # value = (raw - mean) / std in float32, in the units of the stored
    std = [58.395, 57.12, 57.375]     # data; one number, or one per channel in the order of the graph
    layout = "NCHW"                   # of the graph input. Stored data is [height, width, channel].

Without `layout` the stored data is taken to have the graph's own layout, channels last.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hwptq.errors import InputError
from hwptq.no_device import check_no_device

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_PIXELS = 65535  # a side of an image
MAX_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Padding:
    """Pixels added on each side: copies of the border ("edge") or `value` ("constant")."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    mode: str = "edge"
    value: float = 0.0

    def __call__(self, image: np.ndarray) -> np.ndarray:
        widths = [(self.top, self.bottom), (self.left, self.right), (0, 0)]
        if self.mode == "edge":
            return np.pad(image, widths, mode="edge")
        return np.pad(image.astype(np.float32), widths, constant_values=self.value)


@dataclass(frozen=True)
class InputTransform:
    """What is done to one sample of one graph input, from the stored [height, width, channel] on."""

    layout: str | None = None
    channels: str = "RGB"
    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    pad: Padding | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def spatial(self) -> bool:
        """Whether it needs an image: [height, width, channel]."""
        return bool(self.layout or self.resize or self.crop or self.pad or self.channels == "BGR")

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Transform one sample (no batch axis); ValueError where the sample doesn't fit the transform."""
        if self.spatial and (raw.ndim != 3 or not raw.size):
            raise ValueError(f"an image [height, width, channel] is needed, this has shape {raw.shape}")
        value = raw[..., ::-1] if self.channels == "BGR" else raw
        if self.resize is not None:
            value = _resize(value, self.resize)
        if self.crop is not None:
            value = _crop(value, self.crop)
        if self.pad is not None:
            value = self.pad(value)
        value = self._normalize(value)
        return value.transpose(2, 0, 1) if self.layout == "NCHW" else value

    def _normalize(self, value: np.ndarray) -> np.ndarray:
        if self.mean is None and self.std is None:
            return value
        channels = value.shape[-1] if value.ndim else 1
        for key, given in (("mean", self.mean), ("std", self.std)):
            if given is not None and len(given) not in (1, channels):
                problem = f"{key} has {len(given)} values"
                raise ValueError(f"{problem}, the stored data {value.shape} has {channels} on its last axis")
        mean = np.asarray(self.mean if self.mean is not None else 0, np.float32)
        std = np.asarray(self.std if self.std is not None else 1, np.float32)
        return (value.astype(np.float32) - mean) / std


@dataclass(frozen=True)
class Preprocess:
    """The transforms of a preprocess file by graph input."""

    inputs: Mapping[str, InputTransform]
    source: str = "preprocess"

    def bind(self, names: list[str]) -> dict[str, InputTransform]:
        """The transform of each graph input; a table `x` serves the only input of a graph."""
        alias = {"x": names[0]} if len(names) == 1 and "x" not in names else {}
        bound = {alias.get(key, key): transform for key, transform in self.inputs.items()}
        unknown = [key for key in bound if key not in names]
        if unknown or len(bound) < len(self.inputs):
            tables = ", ".join(f"[{key}]" for key in self.inputs)
            raise InputError(
                f"{self.source}: the tables are {tables}, but the graph's inputs are {', '.join(names)}: "
                "give one table per graph input"
            )
        return {name: bound.get(name, InputTransform()) for name in names}


def sample_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a stored sample for an input of the graph: a batch of 1 is left out, another first axis,
    as of steps or of a state, is a part of the sample. (1, 3, 8, 8) -> (3, 8, 8); (2, 1, 64) -> (2, 1, 64).
    """
    return tuple(shape[1:]) if tuple(shape[:1]) == (1,) else tuple(shape)


def fit(
    stored: np.ndarray, transform: InputTransform, shape: tuple[int, ...], dtype: str, where: str
) -> np.ndarray:
    """One stored sample as a value of the graph: `shape` and `dtype`, finite; else InputError.

    uint8 [32, 32, 3] with layout NCHW for ((1, 3, 32, 32), "float32") -> float32 [1, 3, 32, 32].
    """
    if stored.dtype.kind not in "biuf":
        raise InputError(f"{where}: holds {stored.dtype} data: only numbers are read")
    try:
        value = transform(stored)
    except ValueError as error:
        raise InputError(f"{where}: {error}: correct the data or the preprocess file") from error
    wanted = sample_shape(shape)
    if value.shape != wanted:
        problem = _shape_problem(stored.shape, value.shape, wanted, transform)
        if shape and len(wanted) == len(shape):
            problem += "; if its first axis is the batch, export it with a batch of 1 or a dynamic one"
        raise InputError(f"{where}: {problem}")
    return _cast(value, np.dtype(dtype), where).reshape(shape)


def read_image(file: Path, mode: str) -> np.ndarray:
    """uint8 [height, width, channel] of an image file; mode is "RGB" or "L" (one channel)."""
    try:
        with Image.open(file) as image:
            if image.mode[0] in "IF":
                raise ValueError("more than 8 bits a channel: store such data as .npz")
            pixels = np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: can't be read as an image: {error}") from error
    return pixels.reshape(*pixels.shape[:2], -1)


def load_preprocess(path: str | Path) -> Preprocess:
    """Read a preprocess file; InputError names everything that is wrong in it."""
    try:
        tables = tomllib.loads(check_no_device(Path(path)).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't read the preprocess file: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error
    check = _Checker()
    inputs = {name: check.transform(name, table) for name, table in tables.items()}
    if not inputs:
        check.problems.append("no table: write one per graph input, such as [input]")
    if check.problems:
        raise InputError(f"{path}: " + "; ".join(check.problems))
    return Preprocess(inputs, str(path))


@dataclass
class _Checker:
    """Turns TOML tables into transforms and gathers every problem on the way."""

    problems: list[str] = field(default_factory=list)

    def transform(self, name: str, table: Any) -> InputTransform:
        readers: dict[str, Callable[[str, Any], Any]] = {
            "layout": self.one_of("NCHW", "NHWC"),
            "channels": self.one_of("RGB", "BGR"),
            "resize": self.size_or_side,
            "crop": self.size,
            "pad": self.padding,
            "mean": self.numbers,
            "std": self.divisors,
        }
        return InputTransform(**self.table(name, table, readers))

    def table(self, where: str, table: Any, readers: dict[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
        if not isinstance(table, dict):
            self.wrong(where, "a table", table)
            return {}
        for key in sorted(table.keys() - readers.keys()):
            near = difflib.get_close_matches(key, readers, 1)
            hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(readers)
            self.problems.append(f"{where}.{key}: unknown key ({hint})")
        return {key: read(f"{where}.{key}", table[key]) for key, read in readers.items() if key in table}

    def wrong(self, where: str, wanted: str, got: Any) -> None:
        self.problems.append(f"{where}: must be {wanted}, not {got!r}")

    def one_of(self, *choices: str) -> Callable[[str, Any], Any]:
        def read(where: str, value: Any) -> Any:
            if value not in choices:
                self.wrong(where, " or ".join(f'"{choice}"' for choice in choices), value)
            return value

        return read

    def size_or_side(self, where: str, value: Any) -> Any:
        return value if _is_size(value) else self.size(where, value)

    def size(self, where: str, value: Any) -> Any:
        if _is_size(value):
            return value, value
        if isinstance(value, list) and len(value) == 2 and all(map(_is_size, value)):
            return tuple(value)
        self.wrong(where, f"a whole number, 1 to {MAX_PIXELS}, or [height, width]", value)
        return None

    def padding(self, where: str, value: Any) -> Padding:
        sides = dict.fromkeys(("top", "left", "bottom", "right"), self.width)
        readers = {**sides, "mode": self.one_of("edge", "constant"), "value": self.number}
        return Padding(**self.table(where, value, readers))

    def width(self, where: str, value: Any) -> Any:
        if value is False or not (_is_size(value) or (isinstance(value, int) and value == 0)):
            self.wrong(where, f"a whole number of pixels, 0 to {MAX_PIXELS}", value)
        return value

    def number(self, where: str, value: Any) -> Any:
        if not _is_number(value):
            self.wrong(where, "a finite number", value)
        return value

    def numbers(self, where: str, value: Any) -> Any:
        if _is_number(value):
            return (float(value),)
        if isinstance(value, list) and value and all(map(_is_number, value)):
            return tuple(map(float, value))
        self.wrong(where, "a finite number or a list of them", value)
        return None

    def divisors(self, where: str, value: Any) -> Any:
        numbers = self.numbers(where, value)
        if numbers and any(np.float32(number) == 0 for number in numbers):
            self.problems.append(f"{where}: must not hold 0, the data is divided by it")
        return numbers


def _is_number(value: Any) -> bool:
    """Finite also as float32."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_FLOAT32


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_PIXELS


def _resize(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Bilinear, as Pillow does it: uint8 stays uint8, all else becomes float32.

    480 x 640 with size 256 -> 256 x 341; with size (224, 224) -> 224 x 224.
    """
    height, width = image.shape[:2]
    if isinstance(size, int):
        short = min(height, width)
        size = (height * size // short, width * size // short)
    planes = image if image.dtype == np.uint8 else image.astype(np.float32)
    scaled = [
        Image.fromarray(np.ascontiguousarray(planes[..., c])).resize(size[::-1], Image.Resampling.BILINEAR)
        for c in range(image.shape[2])
    ]
    return np.stack([np.asarray(plane) for plane in scaled], axis=-1)


def _crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The centre: 256 x 341 with size (224, 224) -> rows 16..239, columns 58..281."""
    (height, width), (rows, columns) = image.shape[:2], size
    if rows > height or columns > width:
        raise ValueError(f"crop {rows} x {columns} is larger than the image, {height} x {width}")
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]


def _shape_problem(
    stored: tuple[int, ...], got: tuple[int, ...], wanted: tuple[int, ...], transform: InputTransform
) -> str:
    after = "" if transform == InputTransform() else f" and {got} after preprocessing"
    problem = f"has shape {stored}{after}, the graph expects {wanted}"
    if transform.layout is None and len(stored) == 3 and (stored[2], *stored[:2]) == wanted:
        return f'{problem}: give a preprocess file with layout = "NCHW", or transpose the data'
    if transform.layout == "NCHW" and stored == wanted:
        return f'{problem}: layout = "NCHW" takes data stored as [height, width, channel]: transpose the data'
    if len(wanted) == 3 and len(stored) == 3:
        return f"{problem}: bring it to that size, for instance by resize and crop in a preprocess file"
    return f"{problem}: save arrays {batch_of(wanted)}"


def batch_of(shape: tuple[int, ...]) -> str:
    """(3, 32, 32) -> "[samples, 3, 32, 32]"."""
    return f"[{', '.join(['samples', *map(str, shape)])}]"


def _cast(value: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    """Any number becomes a float; integers stay whole and in range; always a copy in C order."""
    if dtype.kind in "iub":
        if value.dtype.kind == "f":
            raise InputError(
                f"{where}: is {value.dtype}, the graph expects {dtype}: give whole numbers without mean/std"
            )
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if value.size and (int(value.min()) < low or int(value.max()) > high):
            raise InputError(f"{where}: holds {value.min()} to {value.max()}, more than {dtype} can hold")
        return value.astype(dtype, order="C")
    with np.errstate(over="ignore"):
        cast = value.astype(dtype, order="C")
    if not np.isfinite(cast).all():
        raise InputError(f"{where}: holds NaN or Inf: remove or repair this sample")
    return cast
