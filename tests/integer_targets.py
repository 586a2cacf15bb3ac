"""The shipped targets whose code is LLVM's: those that compute in integers, on a CPU or an NPU."""

from __future__ import annotations

from hwptq.targets import load_target, target_names
from hwptq.targets.numerics import Numerics

#: Models of a chip's arithmetic have the kernels of the target that they extend; how they round is what
#: tests/kernels/test_roundings.py is about.
MODELS = [name for name in target_names() if load_target(name).numerics != Numerics()]
INTEGER_TARGETS = [
    name for name in target_names() if load_target(name).tvm["kind"] == "llvm" and name not in MODELS
]
#: Those with an operating system. The others share their templates but for those of sums of products, which
#: tests of all targets try, and emulators of whole boards start slowly.
HOSTED_TARGETS = [
    name for name in INTEGER_TARGETS if load_target(name).toolchain.runtime not in ("bare", "wasi")
]
