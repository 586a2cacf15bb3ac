"""The step in front of a matrix-multiply kernel: the rows of its activation operand side by side.

It is worth a pass over the image: each vector of output channels would interleave the same pixels again.
"""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import TEMPLATE, Expr, Flat, loop, powers, primfunc
from hwptq.tir.kernel import Argument, Step, TensorType

from .register_tile import Plan, real_pixel


def interleave_pixels(x: TensorType, source: Argument, channels: int, plan: Plan) -> Step:
    """The step int8 [pixels, channels] -> [ceil(channels / k), ceil(pixels / rows), rows, k].

    So what a tile reads of one group of channels stands side by side. The last pixel is repeated to fill its
    rows. What fills the last group of channels is left unwritten: it meets weights of 0.
    """
    mac = plan.mac
    rows, k = mac.rows, mac.k
    lines, groups = plan.row_pixels // rows, mac.groups_of(channels)
    whole, rest = divmod(channels, k)
    group = lines * rows * k
    out = TensorType((groups * group,), "int8")

    def emit(image: Flat, packed: Flat) -> None:
        def line(i: Expr) -> None:
            sources = [real_pixel(plan, i * rows + r) * channels for r in range(rows)]
            target = i * rows * k

            def copy(at: Expr, count: int) -> None:
                loaded = [T.bind(image.load(s + at * k, count * k)) for s in sources]
                for u in range(count):
                    packed.store(target + (at + u) * group, mac.pick(loaded, u, count), rows * k)

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
                    packed.store(target + whole * group + r * k + done, value, count)
                    done += count

        loop(lines, line)

    func = primfunc([x, out], {TEMPLATE: "interleave_pixels"}, emit)
    return Step(func, (source,), out, "interleave_pixels")
