"""Do the regular expressions of a user match anything?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

import tvm
from tvm import relax

from hwptq.errors import InputError
from hwptq.ir.dataflow import bindings, main_functions
from hwptq.ir.provenance import origins
from hwptq.options import Options
from hwptq.passes.graph.channel_links import layers

_SHOWN = 4  # names in a message


def check_patterns(float32: tvm.IRModule, options: Options) -> None:
    """Raise InputError where --exclude matches no layer, or --keep-float no node, of a fused module."""
    nodes, weighted = [], []
    for _, func in main_functions(float32):
        named, found = origins(func), layers(float32, func)
        nodes += [named[var].node for var, value in bindings(func) if isinstance(value, relax.Call)]
        weighted += [named[var].node for var in found]
    _check("--exclude", options.exclude, "layer", weighted)
    _check("--keep-float", options.keep_float, "node", nodes)


def _check(option: str, pattern: str | None, what: str, names: Iterable[str]) -> None:
    known = list(dict.fromkeys(names))
    if pattern is None or any(re.search(pattern, name) for name in known):
        return
    likely = get_close_matches(pattern, known, _SHOWN, cutoff=0.3) or known[:_SHOWN]
    others = " …" if len(known) > len(likely) else ""
    there = f"there are {', '.join(likely)}{others}" if known else "there is none"
    raise InputError(
        f"{option} {pattern!r} matches no {what}; {there} (what is fused into a layer goes by its name)"
    )
