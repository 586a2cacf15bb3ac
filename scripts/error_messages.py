"""The errors of hwptq as Markdown tables, collected from the code, for docs/troubleshooting.md."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
#: Words of a message that says itself what to do.
_SAYS = re.compile(
    r"\b(give|use|install|check|add|remove|set|export|write|leave|mend|put|make|choose|correct|known|keep|"
    r"there (are|is)|did you mean|needs?|must|allows?|try|raise|at (least|most)|smallest|only|another|"
    r"expected|store|cut)\b"
)
#: class -> exit code; those of hwptq/errors.py, which tests compare.
CODES = {
    "HwptqError": 2, "InputError": 2, "ManyErrors": 2, "UnsupportedError": 3, "WithoutCode": 3,
    "BudgetError": 4, "AccuracyError": 5, "StrictError": 5, "MismatchError": 6,
}  # fmt: skip


def text_of(node: ast.expr) -> str:
    """A message with … for what is put in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(map(text_of, values))
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return text_of(left) + text_of(right)
    return "…"


def messages() -> Iterator[tuple[int, str, str]]:
    """Exit code, file and text of every error that a user may meet; not those that are all put in."""
    for folder in ("hwptq", "passes", "targets"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=[message, *_])) if name in CODES:
                        text = text_of(message)
                        if len(text.replace("…", "").strip(" :;()'")) > 8:
                            yield CODES[name], path.relative_to(ROOT).as_posix(), text


@cache
def _remedies() -> tuple[tuple[re.Pattern[str], str], ...]:
    text = (ROOT / "docs" / "remedies.toml").read_text(encoding="utf-8")
    return tuple((re.compile(row["pattern"]), row["remedy"]) for row in tomllib.loads(text)["remedy"])


def remedy(message: str) -> str | None:
    """What to do about it, where the message doesn't say it; None where nobody knows."""
    for pattern, text in _remedies():
        if pattern.search(message):
            return text
    return "as it says" if _SAYS.search(message) else None


def tables() -> str:
    """One table for each exit code, sorted by the first word that is always the same."""
    parts = []
    for code in sorted(set(CODES.values())):
        rows = sorted({text.replace("|", r"\|") for c, _, text in messages() if c == code}, key=_first_word)
        parts += [
            f"### Exit code {code}",
            "",
            "| Message | What to do |",
            "|---|---|",
            *(f"| {_plain(r)} | {remedy(r)} |" for r in rows),
            "",
        ]
    return "\n".join(parts)


def _first_word(text: str) -> str:
    return text.lstrip("…:' ,-").lower()


def _plain(text: str) -> str:
    """Text in which Markdown finds no marks."""
    return "".join(f"\\{c}" if c in "*_<>[]`#" else c for c in text.replace("\n", " "))


if __name__ == "__main__":
    print(tables())
