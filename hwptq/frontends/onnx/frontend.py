"""ONNX: the path of a file, or a model in memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from ..frontend import Frontend
from ..model import Model
from .importer import import_onnx, import_proto
from .weights.external_weights import refuse_apart


class OnnxFrontend(Frontend):
    """An ONNX model."""

    accepts = "the path of an ONNX file, an onnx.ModelProto"

    @classmethod
    def takes(cls, source: Any) -> bool:
        return isinstance(source, str | Path | onnx.ModelProto)

    def read(self, source: Any, axes: Mapping[str, int]) -> Model:
        return self.read_fixed(source, axes, {})

    def read_fixed(self, source: Any, axes: Mapping[str, int], fixed: Mapping[str, float]) -> Model:
        if isinstance(source, str | Path):
            return import_onnx(source, axes, fixed)
        refuse_apart(source)
        copy = onnx.ModelProto()
        copy.CopyFrom(source)  # the importer changes what it reads
        name = re.sub(r"[^\w.-]+", "_", source.graph.name).strip("._-")
        return import_proto(copy, name or "model", axes, fixed=fixed)
