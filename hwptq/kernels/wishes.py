"""In which layout a kernel wants to read a tensor, and which one serves all readers of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwptq.tir.layout import PLAIN, Layout, common


@dataclass(frozen=True)
class Wish:
    """A reader of a tensor takes `layout`, or if it is not `exact`, any that serves it; None: any in rows."""

    layout: Layout | None
    exact: bool = False

    def takes(self, layout: Layout) -> bool:
        """Whether the reader can read `layout`."""
        if self.layout is None:
            return layout.rows == 1
        return layout == self.layout if self.exact else layout.serves(self.layout)


#: Of a reader that knows nothing of layouts.
AS_IT_IS = Wish(PLAIN, exact=True)
ANY = Wish(None)


def agreed(wishes: Sequence[Wish]) -> Layout:
    """The layout in which to store a tensor for all its readers; the plain one where they do not agree."""
    layouts = [wish.layout for wish in wishes if wish.layout is not None]
    layout = common(layouts) if layouts else None
    if layout is None or any(wish.exact and wish.layout != layout for wish in wishes):
        return PLAIN
    return PLAIN if layout.rows > 1 and len(layouts) < len(wishes) else layout
