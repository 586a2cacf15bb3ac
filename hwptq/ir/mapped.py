"""Modules whose weights are files mapped to memory, which need not stay resident once they have been read."""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any

import numpy as np
import tvm

#: Attribute of a function whose large constants may lie in mapped files.
_ATTRIBUTE = "hwptq.mapped"
#: Linux: give the pages back; what they hold is read again from its file, or from swap, when it is needed.
_PAGE_OUT = 21
_LEAST = 2**20  # bytes


def with_mapped(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with it noted that large constants of `main` lie in mapped files."""
    noted = {**mod.functions, mod.get_global_var("main"): mod["main"].with_attr(_ATTRIBUTE, True)}
    return tvm.IRModule(noted, attrs=mod.attrs)


def is_mapped(func: Any) -> bool:
    """Whether large constants of a function may lie in mapped files."""
    return bool(func.attrs and _ATTRIBUTE in func.attrs)


def page_out(*arrays: np.ndarray) -> None:
    """Give back the memory of large arrays that files are mapped to; nothing of them is lost.

    Where the system can't, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    advise = ctypes.CDLL(None).madvise
    for array in arrays:
        if array.nbytes >= _LEAST and (array.flags.c_contiguous or array.flags.f_contiguous):
            start = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
            size = array.ctypes.data + array.nbytes - start
            advise(ctypes.c_void_p(start), ctypes.c_size_t(size), _PAGE_OUT)
