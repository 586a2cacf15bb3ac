"""Weights that stay in their files: a model of gigabytes is read without them, and maps them where they are
used.

ONNX's own functions copy a model, and protobuf holds no more than 2 GB; what is left of a model without its
large weights is small.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import TensorProto, external_data_helper, numpy_helper

from hwptq.cache.digest import file_digest
from hwptq.errors import InputError

#: Bytes of external data from which a model's weights stay in their files, and the least of such a weight.
APART = 2**29
LARGE = 2**20
#: Key of a tensor's external data that holds the dtype in the file, where the tensor is read as another.
_STORED = "stored"
_READABLE = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.INT8: np.dtype(np.int8),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.INT32: np.dtype(np.int32),
    TensorProto.INT64: np.dtype(np.int64),
}


def load_model(path: Path, apart: int = APART, least: int = LARGE) -> onnx.ModelProto:
    """The model in a file; of one with `apart` bytes of external weights or more, those of `least` bytes stay
    in theirs.

    Raises ValueError, OSError or what ONNX raises for files that are missing, too short or elsewhere.
    """
    proto = onnx.load(str(path), load_external_data=False)
    for tensor in tensors_of(proto):
        if is_apart(tensor) and _is_left(tensor):  # else it would pass for one that was looked at here
            raise ValueError(
                f"tensor {tensor.name!r}: its data are at an absolute path, not beside the model"
            )
    weights = [t for t in proto.graph.initializer if is_apart(t)]
    if sum(_nbytes(t) for t in weights) >= apart:
        for tensor in weights:
            if _nbytes(tensor) >= least:
                _leave(tensor, path.parent)
    for tensor in tensors_of(proto):
        if is_apart(tensor) and not _is_left(tensor):
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
    return proto


def tensors_of(message: Message) -> Iterator[TensorProto]:
    """Every tensor of a model, wherever it stands: in branches, in functions, in what is sparse."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for each in [value] if isinstance(value, Message) else value:
            if isinstance(each, TensorProto):
                yield each
            elif isinstance(each, Message):
                yield from tensors_of(each)


def refuse_apart(proto: onnx.ModelProto) -> None:
    """Raise InputError for a model in memory with values in other files: it may name any, and nobody has
    looked where they lie."""
    for tensor in tensors_of(proto):
        if is_apart(tensor):
            raise InputError(
                f"the model: the values of tensor {tensor.name!r} lie in another file; give the path of the "
                "model, not what was read of it"
            )


def is_apart(tensor: TensorProto) -> bool:
    """Whether the values of a tensor lie in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def weights_apart(proto: onnx.ModelProto) -> bool:
    """Whether some constants of a model lie in other files."""
    return any(is_apart(t) for t in proto.graph.initializer)


def array_of(tensor: TensorProto) -> np.ndarray:
    """The values of a constant; where they lie in another file, memory that the file is mapped to (it may be
    written to, and the file stays as it is). Raises ValueError where they don't fit the shape."""
    if not is_apart(tensor):
        return numpy_helper.to_array(tensor)
    if not _is_left(tensor):
        raise ValueError(
            "its values lie in another file; give the path of the model, not what was read of it"
        )
    keys = {e.key: e.value for e in tensor.external_data}
    stored = np.dtype(keys.get(_STORED, _READABLE[tensor.data_type]))
    array: np.ndarray = np.memmap(
        keys["location"], stored, "c", int(keys.get("offset", 0)), shape=tuple(tensor.dims)
    )
    return array.astype(_READABLE[tensor.data_type]) if _STORED in keys else array


def widen(tensor: TensorProto) -> None:
    """Let a constant of another float dtype be read as float32."""
    if is_apart(tensor):
        tensor.external_data.add(key=_STORED, value=_READABLE[tensor.data_type].name)
        tensor.data_type = TensorProto.FLOAT
        return
    with np.errstate(over="ignore"):
        array = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def as_inputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which constants that lie elsewhere are inputs: what ONNX can check without reading them."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    fed = {value.name for value in made.graph.input}
    for tensor in [t for t in made.graph.initializer if is_apart(t)]:
        if tensor.name not in fed:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            made.graph.input.append(value)
        made.graph.initializer.remove(tensor)
    return made


def digests(proto: onnx.ModelProto) -> Iterator[str]:
    """Of the files that weights lie in. Raises NoDigest where one can't be read."""
    locations = {_location(t) for t in proto.graph.initializer if is_apart(t)}
    return (file_digest(Path(location)) for location in sorted(locations))


def _leave(tensor: TensorProto, folder: Path) -> None:
    """Let a weight stay where it is; its location becomes a path of its own. Raises ValueError."""
    info = external_data_helper.ExternalDataInfo(tensor)
    _refuse_elsewhere(str(folder), info.location, tensor.name)
    path, offset, size = folder / info.location, info.offset or 0, _nbytes(tensor)
    if offset + size > path.stat().st_size or info.length not in (None, size):
        raise ValueError(f"the data of tensor {tensor.name!r} are not the {size} bytes of its shape")
    del tensor.external_data[:]
    for key, value in (("location", str(path.absolute())), ("offset", str(offset))):
        tensor.external_data.add(key=key, value=value)


def _refuse_elsewhere(folder: str, location: str, name: str) -> None:
    """Raise what ONNX raises for data that are not a file below the folder of the model."""
    if hasattr(external_data_helper, "_open_external_data_fd"):  # since onnx 1.22
        os.close(external_data_helper._open_external_data_fd(folder, location, name, True))
    else:
        external_data_helper.c_checker._resolve_external_data_location(folder, location, name)


def _is_left(tensor: TensorProto) -> bool:
    """Whether it was left where it lies: only then a location is an absolute path."""
    return Path(_location(tensor)).is_absolute()


def _location(tensor: TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _nbytes(tensor: TensorProto) -> int:
    """Bytes of a tensor of a dtype that can be mapped; 0 of another."""
    dtype = _READABLE.get(tensor.data_type)
    return math.prod(tensor.dims) * dtype.itemsize if dtype else 0
