"""What is said about a field of a descriptor: what the loader checks and the docs list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

WORD = {"pattern": r"[A-Za-z0-9][A-Za-z0-9_.-]*", "like": "letters, digits, '-', '_' and '.'"}

INTRINSIC = {"pattern": r"(llvm\.[A-Za-z0-9_.]+)?", "like": "the name of an LLVM intrinsic, llvm.*"}
#: One instruction: no directive, no label, nothing that would end it.
INSTRUCTION = {
    "pattern": r"([a-z][A-Za-z0-9 .,#_+\[\]{}-]*)?",
    "like": "one instruction in lower case, with names in braces for its operands",
}


Choices = tuple[str | int, ...]


@dataclass(frozen=True)
class About:
    """What is known about one field besides its type; limits hold for each element of a list."""

    doc: str
    key: str = ""  # key in the file where it differs from the field's name
    low: float | None = None
    high: float | None = None
    choices: Choices | Callable[[], Choices] = ()  # the function tells those of an open set
    power_of_two: bool = False
    not_empty: bool = False
    pattern: str = ""  # regular expression of a string, or of the keys of a table
    like: str = ""  # the pattern in words
    keys: tuple[str, ...] | Callable[[], tuple[str, ...]] = ()  # the only keys of a table

    @property
    def allowed(self) -> Choices:
        """`choices` as they are now."""
        return self.choices() if callable(self.choices) else self.choices

    @property
    def allowed_keys(self) -> tuple[str, ...]:
        """`keys` as they are now."""
        return self.keys() if callable(self.keys) else self.keys


def about(doc: str, **limits: object) -> dict[str, About]:
    """`field(metadata=about("meaning in its unit", low=1))`."""
    return {"about": About(doc, **limits)}  # type: ignore[arg-type]
