"""The shipped targets whose code is LLVM's: those that compute in integers, on a CPU or an NPU."""

from __future__ import annotations

from hwptq.targets import load_target, target_names

INTEGER_TARGETS = [name for name in target_names() if load_target(name).tvm["kind"] == "llvm"]
