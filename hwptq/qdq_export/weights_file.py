"""Weights of an ONNX model in a file of their own: protobuf holds no more than 2 GB."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Where tensors begin, so that the file can be mapped to memory.
_ALIGNMENT = 64
_LEAST = 2**16  # bytes; smaller ones stay in the model


class WeightsFile:
    """Writes the large tensors of a model into `file`, one behind the other, and says where they are.

    name: that of the file, which lies in the folder of the model.
    """

    def __init__(self, file: BinaryIO, name: str):
        self._file, self._name = file, name

    def tensor(self, array: np.ndarray, name: str) -> TensorProto:
        """A constant of the model."""
        if array.nbytes < _LEAST:
            return numpy_helper.from_array(array, name)
        self._file.write(b"\0" * (-self._file.tell() % _ALIGNMENT))
        offset, little = self._file.tell(), array.astype(array.dtype.newbyteorder("<"), copy=False)
        np.ascontiguousarray(little).tofile(self._file)
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        made = TensorProto(name=name, data_type=dtype, dims=array.shape)
        made.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self._name), ("offset", offset), ("length", array.nbytes)):
            made.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))
        return made
