"""What TVM's code asks a runtime for, under names of the model's own: a program may hold several models.

Scratch memory is taken and given back by direct calls, which any linker and any object format knows. Threads
are launched through a pointer that TVM's code generator makes, which only a tool can rename.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_map

from hwptq.backends.toolchain import binary_tool, call_tool
from hwptq.targets import Descriptor

_LAUNCH = "__TVMBackendParallelLaunch"
_TAKE, _GIVE_BACK = "TVMBackendAllocWorkspace", "TVMBackendFreeWorkspace"


def take_name(prefix: str) -> str:
    """void *f(uint64_t bytes): NULL where there is not as much."""
    return f"{prefix}_workspace_take"


def give_back_name(prefix: str) -> str:
    """int32_t f(void *): what was taken last; 0."""
    return f"{prefix}_workspace_give_back"


def launch_name(prefix: str) -> str:
    """A pointer to int f(Task, void *, int)."""
    return f"{prefix}_hook_launch"


def named_workspaces(lowered: tvm.IRModule, prefix: str) -> tvm.IRModule:
    """Lowered functions whose scratch memory comes from the model's own functions."""

    def renamed(node: Any) -> Any:
        name = getattr(node.op, "name", "")
        if name.endswith(_TAKE):
            return tirx.call_extern("handle", take_name(prefix), node.args[2])
        if name.endswith(_GIVE_BACK):
            return tirx.call_extern("int32", give_back_name(prefix), node.args[2])
        return node

    out = lowered.clone()
    for gv, func in lowered.functions.items():
        out[gv] = func.with_body(structural_map(func.body, ((tvm.ir.Call, renamed),)))
    return out


def rename_launch(target: Descriptor, prefix: str, folder: Path) -> None:
    """Give the pointer that kernels.o launches threads by the model's own name."""
    renamed = f"--redefine-sym={_LAUNCH}={launch_name(prefix)}"
    call_tool([binary_tool(target.toolchain.compiler, "objcopy"), renamed, "kernels.o"], folder)
