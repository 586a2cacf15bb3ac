"""PrimFuncs -> an object file of plain C functions over raw pointers, without the ABI of TVM's runtime.

    int32_t kernel(void *in0, void *in1, …, void *out);      0, or -1 when out of workspace

TVM has no such calling convention of its own, so this list of lowering passes ends in one of ours where
TVM's would end in MakePackedAPI.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir import PointerType, PrimType
from tvm_ffi import structural_walk

from .hooks import named_workspaces
from .levels import generate_at_some_level

_CPU_DEVICE = 1


def lower(functions: Mapping[str, Any], target: Any, alignment: int) -> tvm.IRModule:
    """Lower PrimFuncs by symbol name; tensors are `alignment` bytes aligned."""
    named = {n: f.with_attr({"global_symbol": n, "target": target}) for n, f in functions.items()}
    return tvm.ir.transform.Sequential([*_common_passes(), _RawPointers(alignment), *_host_passes()])(
        tvm.IRModule(named)
    )


def generate_object(lowered: tvm.IRModule, target: Any, path: Path, prefix: str = "") -> None:
    """Generate code for lowered functions into an object file; `prefix`: of what it asks a runtime for."""
    code = named_workspaces(lowered, prefix)
    tvm.get_global_func("target.build.llvm")(code, target).write_to_file(str(path), "o")


def write_object(
    lowered: tvm.IRModule, target: Any, path: Path, prefix: str = "", slow: bool = False
) -> None:  # fmt: skip
    """As generate_object, at a lower level of optimization where code generation does not end, or is `slow`:
    known not to.
    """
    names = [variable.name_hint for variable in lowered.functions]
    generate_at_some_level(lambda device: generate_object(lowered, device, path, prefix), target, names, slow)


def workspaces(lowered: tvm.IRModule, alignment: int) -> dict[str, int]:
    """The bytes of scratch memory that each function asks for, where it does."""

    def total(func: Any) -> int:
        sizes: list[int] = []

        def visit(node: Any) -> None:
            if getattr(node.op, "name", "").endswith("TVMBackendAllocWorkspace"):
                sizes.append(-(-int(node.args[2]) // alignment) * alignment)

        structural_walk(func.body, ((tvm.ir.Call, visit),))
        return sum(sizes)

    found = {gv.name_hint: total(func) for gv, func in lowered.functions.items()}
    return {name: size for name, size in found.items() if size}


def _common_passes() -> list[Any]:
    """What TVM's default pipeline does for a CPU, up to the calling convention.

    Without HoistIfThenElse: LLVM moves the same conditions, to the same machine code.
    """
    return [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        s_tir.transform.LoopPartition(),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.StorageRewrite(),
        tirx.transform.UnrollLoop(),
        s_tir.transform.RenormalizeSplitPattern(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        s_tir.transform.RewriteUnsafeSelect(),
        tirx.transform.CommonSubexprElim(),
        tirx.transform.VerifyMemory(),
    ]


def _host_passes() -> list[Any]:
    return [tirx.transform.LowerTVMBuiltin(), tirx.transform.LowerIntrin()]


@tvm.transform.module_pass(opt_level=0, name="hwptq.RawPointers")
class _RawPointers:
    """Give every PrimFunc raw pointer parameters and an int32 result."""

    def __init__(self, alignment: int):
        self.alignment = alignment

    def transform_module(self, mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        return tvm.IRModule({gv: self._convert(f) for gv, f in mod.functions.items()})

    def _convert(self, func: Any) -> Any:
        pointers, declarations = [], []
        for p in func.params:
            if not tirx.buffer.is_buffer_var(p):
                raise ValueError(f"parameter {p.name} is no tensor")
            element = p.ty.dtype if isinstance(p.ty.dtype, PrimType) else PrimType(str(p.ty.dtype))
            pointers.append(tirx.Var(f"{p.name}_p", PointerType(element, "global")))
            declarations.append(tirx.DeclBuffer(p, data=pointers[-1]))
        body = tirx.SeqStmt([*declarations, func.body])
        for pointer in reversed(pointers):  # on the pointer: code generation turns it into an assumption
            body = tirx.AttrStmt(pointer, "storage_alignment", tirx.IntImm("int32", self.alignment), body)
        for key, value in (("device_type", _CPU_DEVICE), ("device_id", 0)):  # for local arrays
            body = tirx.AttrStmt("default", key, tirx.IntImm("int32", value), body)
        # outside the attributes, or the freeing of workspaces would land behind it and vanish
        body = tirx.SeqStmt([body, tirx.stmt.Return(tirx.const(0, "int32"))])
        raw = tirx.PrimFunc(pointers, body, PrimType("int32"), func.attrs)
        return raw.with_attr({"tirx.noalias": True, "calling_conv": tirx.IntImm("int32", 0)})
