"""Cache: a result is computed once for all that determines it, and found again afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from .content import Content
from .digest import NoDigest, digest
from .store import Store

T = TypeVar("T")
#: The results of those numbers, in their order.
Make = Callable[[Sequence[int]], Iterable[T]]


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
        return self.recall_all(kind, [causes], content, lambda _: [make()])[0]

    def recall_all(
        self, kind: str, causes: Sequence[tuple[Any, ...]], content: Content[T], make: Make[T]
    ) -> list[T]:
        """As recall, for several at once. `make` is given the numbers of those that the store lacks."""
        return list(self.recall_each(kind, causes, content, make))

    def recall_each(
        self, kind: str, causes: Sequence[tuple[Any, ...]], content: Content[T], make: Make[T]
    ) -> Iterator[T]:
        """As recall_all, one after another as they are known; each is kept as soon as it is."""
        keys = [self.key(kind, each) for each in causes]
        found = {i: value for i, key in enumerate(keys) for value in self._held(kind, key, content)}
        lacking = [i for i in range(len(causes)) if i not in found]
        made = iter(make(lacking) if lacking else ())
        for i, key in enumerate(keys):
            if i not in found:
                found[i] = next(made)
                self._keep(kind, key, content, found[i])
            yield found.pop(i)
        if lacking:
            for _ in made:
                raise ValueError(f"{kind}: more results than were asked for")

    def _held(self, kind: str, key: str | None, content: Content[T]) -> Iterator[T]:
        """What the store has, if it has it."""
        if key is None or self.store is None or (data := self.store.get(kind, key)) is None:
            return
        try:
            value = content.read(data)
        except Exception:  # written by a fault, or a version that nobody knows: as if it were absent
            self.store.remove(kind, key)
        else:
            yield value

    def _keep(self, kind: str, key: str | None, content: Content[T], value: T) -> None:
        if key is None or self.store is None:
            return
        with suppress(TypeError):  # it can't be written
            self.store.put(kind, key, content.write(value))

    def key(self, kind: str, causes: tuple[Any, ...]) -> str | None:
        """The key of a result; None where it has none, or nothing is kept."""
        if self.store is None:
            return None
        try:
            return digest(self.context, kind, causes)
        except NoDigest:
            return None
