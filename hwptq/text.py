"""Text and tokens, by the tokenizers library (`pip install hwptq[text]`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError


@dataclass(frozen=True)
class Tokenizer:
    """What `open_tokenizer` reads."""

    file: Path
    library: Any

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with those that the file says a text begins or ends with."""
        return list(self.library.encode(text).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; what is no whole character yet is U+FFFD."""
        return str(self.library.decode(list(tokens)))

    def token(self, name: str) -> int:
        """The number of a token. Raises InputError where there is none of that name."""
        found = self.library.token_to_id(name)
        if found is None:
            raise InputError(f"{self.file}: no token {name!r}")
        return int(found)


def open_tokenizer(file: Path) -> Tokenizer:
    """A tokenizer.json. Raises InputError where it can't be read, or the library is missing."""
    try:
        from tokenizers import Tokenizer as Library
    except ImportError as error:
        raise InputError("the tokenizers library is missing: pip install 'hwptq[text]'") from error
    try:
        return Tokenizer(file, Library.from_str(file.read_text(encoding="utf-8")))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{file}: no tokenizer.json ({str(error).splitlines()[0]})") from error
