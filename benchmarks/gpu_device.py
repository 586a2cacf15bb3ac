"""A GPU, as torch holds its tensors and TVM has them. Nothing of hwptq here: it needs TVM's compiler."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
#: By its name in TVM; a code that is no number, and what stands where nobody wrote.
E4M3, NAN, UNWRITTEN = "float8_e4m3fn", 0x7F, 77


def load_runtime() -> Any:
    """TVM's runtime with CUDA."""
    import tvm
    import tvm.libinfo
    from tvm_ffi import libinfo

    for name in ("tvm_runtime_extra", "tvm_runtime_cuda"):
        libinfo.load_lib_ctypes("apache-tvm", name, "RTLD_GLOBAL", tvm.libinfo.package_lib_paths())
    return tvm


class Device:
    """The first GPU."""

    def __init__(self) -> None:
        import torch

        self.torch, self.tvm = torch, load_runtime()

    def put(self, array: np.ndarray, float8: bool = False) -> Any:
        tensor = self.torch.from_numpy(np.ascontiguousarray(array)).cuda()
        return tensor.view(self.torch.float8_e4m3fn) if float8 else tensor

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """A tensor in which a value that nobody wrote is seen."""
        if dtype == E4M3:
            codes = self.torch.full(shape, NAN, dtype=self.torch.uint8, device="cuda")
            return codes.view(self.torch.float8_e4m3fn)
        unwritten = UNWRITTEN if dtype == "int8" else float("nan")
        return self.torch.full(shape, unwritten, dtype=getattr(self.torch, dtype), device="cuda")

    def take(self, tensor: Any) -> Any:
        from tvm_ffi import from_dlpack

        return from_dlpack(tensor)
