"""Cache: a result is computed once for all that determines it, and found again afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .content import Content
from .digest import NoDigest, digest
from .store import Store

T = TypeVar("T")


@dataclass(frozen=True)
class Cache:
    """Recalls results from a store; without one it computes all of them.

    context: what determines every result beside its own causes, such as the version of the code.
    """

    store: Store | None = None
    context: str = ""

    def recall(self, kind: str, causes: tuple[Any, ...], content: Content[T], make: Callable[[], T]) -> T:
        """What `make` gives, from the store if it has it. causes: all that the result follows from; where one
        has no hash (see digest), or the result can't be written, nothing is kept.
        """
        key = self.key(kind, causes)
        if key is None or self.store is None:
            return make()
        if (data := self.store.get(kind, key)) is not None:
            try:
                return content.read(data)
            except Exception:  # written by a fault, or a version that nobody knows: as if it were absent
                self.store.remove(kind, key)
        found = make()
        try:
            data = content.write(found)
        except TypeError:
            return found
        self.store.put(kind, key, data)
        return found

    def key(self, kind: str, causes: tuple[Any, ...]) -> str | None:
        """The key of a result; None where it has none, or nothing is kept."""
        if self.store is None:
            return None
        try:
            return digest(self.context, kind, causes)
        except NoDigest:
            return None
