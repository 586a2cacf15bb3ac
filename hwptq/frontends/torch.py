"""PyTorch: programs of torch.export, read by TVM's own importer; torch is only needed by who has one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hwptq.errors import InputError, UnsupportedError

from .frontend import Frontend
from .model import Model
from .relax import import_relax


class TorchFrontend(Frontend):
    """A program of torch.export; a module is told how to become one."""

    accepts = "a torch.export.ExportedProgram"

    @classmethod
    def takes(cls, source: Any) -> bool:
        kinds = {(base.__module__.partition(".")[0], base.__name__) for base in type(source).__mro__}
        return bool({("torch", "ExportedProgram"), ("torch", "Module")} & kinds)

    def read(self, source: Any, axes: Mapping[str, int]) -> Model:
        if not hasattr(source, "graph_signature"):
            raise InputError(
                "a torch.nn.Module must be exported first: give torch.export.export(model.eval(), (example,))"
            )
        from tvm.relax.frontend.torch import from_exported_program  # imports torch

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = from_exported_program(source)
        except Exception as error:  # whatever its converters raise
            raise UnsupportedError(f"the exported program: {_last_line(error)}") from error
        return replace(import_relax(module, axes=axes), name="program")


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
