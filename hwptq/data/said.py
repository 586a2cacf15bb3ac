"""What exceptions of libraries say, as a part of one line."""

from __future__ import annotations

import re

#: What Python's parser of headers says of a part that it doesn't take.
_OBJECT = re.compile(r": <[^<>]* object at 0x[0-9a-f]+>")


def one_line(error: BaseException) -> str:
    """The reason alone, without a path or an address."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(_OBJECT.sub("", text).split()) or type(error).__name__
