"""A pass whose result is kept: it follows from the module and what the pass was handed, and nothing else."""

from __future__ import annotations

from typing import Any

import tvm

from hwptq.cache.cache import Cache
from hwptq.cache.content import MODULE

#: Attributes of passes that only watch.
_WATCH = ("track",)


def recalled_pass(step: Any, module: tvm.IRModule, cache: Cache) -> tvm.IRModule:
    """What a pass of ours makes of a module, from the cache if it has it."""
    handed = {name: value for name, value in vars(step._inst).items() if name not in _WATCH}
    causes = (type(step._inst), handed, module)
    applied = tvm.ir.transform.Sequential([step])
    return cache.recall(step.info.name.rpartition(".")[2], causes, MODULE, lambda: applied(module))
