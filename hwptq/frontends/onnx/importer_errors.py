"""What TVM's importer says of a node, in words of the user's."""

from __future__ import annotations

import re

_REPLACED = (
    (re.compile(r'ir\.Op\(.*?name="relax\.([\w.]+)".*?(support_level|num_inputs)=\d+\)'), r"\1"),
    (re.compile(r"T\.int64\((-?\d+)\)"), r"\1"),
    (re.compile(r"^Check failed: .*? : (?=\S)"), ""),
)


def said_by_importer(error: BaseException, node: str) -> str:
    """One line; node: the one that was being converted, or "". The reason stands in the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    for pattern, words in _REPLACED:
        text = pattern.sub(words, text)
    return f"{node}: {text}" if node and node not in text else text
