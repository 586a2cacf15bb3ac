"""The step in front of a matrix-multiply kernel: the rows of its activation operand side by side.

It is worth a pass over the image: each vector of output channels would interleave the same pixels again.
"""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from .builder import TEMPLATE, Expr, Flat, loop, powers, primfunc
from .kernel import Argument, Step, TensorType
from .register_tile import Mac


def interleave_pixels(x: TensorType, source: Argument, pixels: int, channels: int, mac: Mac) -> Step:
    """The step int8 [pixels, channels] -> [ceil(pixels / rows), ceil(channels / k), rows, k].

    The last pixel is repeated to fill its rows. What fills the last group of channels is left unwritten: it
    meets weights of 0.
    """
    rows, k = mac.rows, mac.k
    lines, groups = -(-pixels // rows), mac.groups_of(channels)
    whole, rest = divmod(channels, k)
    out = TensorType((lines * groups * rows * k,), "int8")

    def emit(image: Flat, packed: Flat) -> None:
        def line(i: Expr) -> None:
            sources = [_pixel(i * rows + r, pixels, rows) * channels for r in range(rows)]
            target = i * groups * rows * k

            def copy(at: Expr, count: int) -> None:
                loaded = [T.bind(image.load(s + at * k, count * k)) for s in sources]
                for u in range(count):
                    packed.store(target + (at + u) * rows * k, mac.pick(loaded, u, count), rows * k)

            full, odd = divmod(whole, mac.groups)
            if full:
                loop(full, lambda g: copy(g * mac.groups, mac.groups))
            at = full * mac.groups
            for count in powers(odd, mac.groups):
                copy(at, count)
                at += count
            for r, first in enumerate(sources):
                done = 0
                for count in powers(rest, k):
                    value = image.load(first + whole * k + done, count)
                    packed.store(target + (whole * rows + r) * k + done, value, count)
                    done += count

        loop(lines, line)

    func = primfunc([TensorType(x.shape, "int8"), out], {TEMPLATE: "interleave_pixels"}, emit)
    return Step(func, (source,), out, "interleave_pixels")


def _pixel(index: Expr, pixels: int, rows: int) -> Expr:
    """Those beyond the last pixel repeat it."""
    return index if pixels % rows == 0 else T.min(index, pixels - 1)
