"""Compiling kernels for an NVIDIA GPU on a machine that may have none: nvcc, and a stand-in driver."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.s_tir import dlight
from tvm.tirx import compilation_pipeline

from hwptq.backends.toolchain import call_environment
from hwptq.errors import HwptqError
from hwptq.ir.movement import SAME_ORDER
from hwptq.kernels.cuda.flat import PIPELINE

_NAME = "hwptq"
_OPAQUE = 8  # TVM's pattern of functions that FuseOps leaves alone
#: What TVM's CUDA runtime links against; without a driver each says that there is no device (error 100).
_DRIVER_FUNCTIONS = (
    *("cuInit", "cuDeviceGetName", "cuFuncSetAttribute", "cuLaunchKernelEx", "cuModuleGetFunction"),
    *("cuModuleLoadData", "cuModuleUnload", "cuTensorMapEncodeTiled"),
)
_ENVIRONMENT = {
    "TVM_CUDA_COMPILE_MODE": "nvcc",
    "TVM_CUDA_NVCC_NO_FAST_MATH": "1",  # the arithmetic is defined to the bit
}


def compile_cuda(mod: tvm.IRModule, target: Any, inputs: int | None = None) -> Any:
    """The executable of a Relax module for TVM's virtual machine; its calls are joined in a CUDA graph.

    inputs: how many parameters may lie elsewhere at each call; those behind them lie where they lay at the
    first one. None = all.

    Raises RuntimeError where nvcc refuses the code, HwptqError where TVM's CUDA runtime can't be loaded.
    """
    _load_runtime()
    device = tvm.target.Target(dict(target), host="llvm")
    main = mod["main"]
    functions = {
        gv: f.with_attr("op_pattern", _OPAQUE) if isinstance(f, tirx.PrimFunc) else f
        for gv, f in mod.functions.items()
    }
    functions[mod.get_global_var("main")] = main.with_attr(
        "num_input", len(main.params) if inputs is None else inputs
    )
    graph = tvm.IRModule(functions)
    options = {"relax.backend.use_cuda_graph": True}
    with _environment(), tvm.transform.PassContext(config=options), device:
        return tvm.compile(graph, target=device, relax_pipeline=_graph_passes(), tir_pipeline=_NAME)


def compile_kernels(kernels: Mapping[str, Any], target: Any) -> Any:
    """PrimFuncs by the name under which a runtime module will offer them; TIRx where they don't say other."""
    _load_runtime()
    device = tvm.target.Target(dict(target), host="llvm")
    named = {
        name: (func if PIPELINE in func.attrs else func.with_attr(PIPELINE, "tirx")).with_attr(
            "global_symbol", name
        )
        for name, func in kernels.items()
    }
    with _environment(), device:
        return tvm.compile(tvm.IRModule(named), target=device, tir_pipeline=_NAME)


def _reshape(builder: Any, call: Any) -> Any:
    return relax.op.reshape(call.args[0], call.ty.shape)


_RESHAPES = {f"relax.{name}": _reshape for name in SAME_ORDER if name != "reshape"}


def _graph_passes() -> Any:
    """TVM's pipeline for CUDA; what is fused is its own code, since our kernels are as they should be."""
    passes = relax.transform
    generic = dlight.gpu
    return tvm.ir.transform.Sequential(
        [
            passes.EliminateCommonSubexpr(),
            passes.LegalizeOps(_RESHAPES, skip_ops=["relax.reshape"]),  # that takes the same memory
            passes.AnnotateTIROpPattern(),
            passes.FoldConstant(),
            passes.FuseOps(),
            passes.FuseTIR(),
            dlight.ApplyDefaultSchedule(
                generic.Matmul(), generic.Reduction(), generic.GeneralReduction(), generic.Fallback()
            ),
            passes.ToNonDataflow(),
            passes.RemovePurityChecking(),
            passes.CallTIRRewrite(),
            passes.StaticPlanBlockMemory(),
            passes.RewriteCUDAGraph(),
            passes.LowerAllocTensor(),
            passes.KillAfterLastUse(),
            passes.LowerRuntimeBuiltin(),
            passes.ComputePrimValue(),
            passes.VMShapeLower(),
            passes.AttachGlobalSymbol(),
        ]
    )


@contextmanager
def _environment() -> Iterator[None]:
    """TVM takes how it calls nvcc from the environment."""
    wanted = {**_ENVIRONMENT, "PATH": call_environment()["PATH"]}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@cache
def _load_runtime() -> None:
    """Load TVM's CUDA runtime. Without it TVM emits source text in silence instead of machine code."""
    if tvm.get_global_func("ffi.Module.create.cuda", allow_missing=True) is not None:
        return
    from tvm_ffi import libinfo

    _load_driver()
    libinfo.load_lib_ctypes("apache-tvm", "tvm_runtime_cuda", "RTLD_GLOBAL")
    if tvm.get_global_func("ffi.Module.create.cuda", allow_missing=True) is None:
        raise HwptqError("TVM's CUDA runtime can't be loaded; is this a wheel of TVM without CUDA?")


def _load_driver() -> None:
    """libcuda.so.1, or a library of that name without a device."""
    try:
        ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        with tempfile.TemporaryDirectory(prefix="hwptq-") as folder:
            ctypes.CDLL(str(_stand_in(Path(folder))), mode=ctypes.RTLD_GLOBAL)


def _stand_in(folder: Path) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise HwptqError("gcc not found on PATH: nvcc needs it, and so does the stand-in for libcuda.so.1")
    source, library = folder / "driver.c", folder / "libcuda.so.1"
    lines = [f"int {name}(void) {{ return 100; }}" for name in _DRIVER_FUNCTIONS]
    for name in ("cuGetErrorName", "cuGetErrorString"):
        lines.append(f'int {name}(int e, const char **s) {{ *s = "no driver"; return 0; }}')
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return library


def _pipeline() -> Any:
    """TIRx kernels go through TIRx's passes, all else through those of schedulable TIR."""
    tirx_passes, _, _ = compilation_pipeline.get_tir_pipeline("tirx")
    other_passes, finish_host, finish_device = compilation_pipeline.get_tir_pipeline("s_tir")

    @tvm.transform.module_pass(opt_level=0, name="hwptq.CudaPipeline")
    def lower(mod: tvm.IRModule, ctx: Any) -> tvm.IRModule:
        def is_tirx(func: Any) -> bool:
            return isinstance(func, tirx.PrimFunc) and func.attrs.get(PIPELINE) == "tirx"

        kernels = {gv: f for gv, f in mod.functions.items() if is_tirx(f)}
        others = {gv: f for gv, f in mod.functions.items() if not is_tirx(f)}
        out = other_passes(tvm.IRModule(others, attrs=mod.attrs))
        if kernels:
            out.update(tirx_passes(tvm.IRModule(kernels, attrs=mod.attrs)))
        return out

    return lower, finish_host, finish_device


compilation_pipeline.register_tir_pipeline(_NAME, _pipeline)
