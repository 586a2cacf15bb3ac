"""Loops for onnx.reference, whose own stack along fewer axes than the standard has.

Written from the standard's text and in numpy alone, so that nothing is shared with what they check.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx.reference.op_run import OpRun


class Loop(OpRun):
    """Turns of the body; what it stacks gets a new first axis (onnx's own puts rows one below another)."""

    def need_context(self) -> bool:
        return True

    def _run(self, count, go, *states, context=None, body=None, attributes=None, **_):
        stacks: list[list[np.ndarray]] = [[] for _ in self.body.output_names[1 + len(states) :]]
        turn, go = 0, np.array(True) if go is None else go
        while go and (count is None or turn < count):
            given = zip(self.body.input_names, [np.array(turn, np.int64), go, *states], strict=True)
            go, *results = self._run_body({**(context or {}), **dict(given)}, attributes=attributes)
            states, rows = results[: len(states)], results[len(states) :]
            for stack, row in zip(stacks, rows, strict=True):
                stack.append(row)
            turn += 1
        if stacks and not turn:
            raise NotImplementedError("the shape of what no turn stacks")
        return (*states, *map(np.stack, stacks))


class Scan(OpRun):
    """Turns of the body over the places of axes, forwards or backwards (onnx's own knows the first axis and
    one direction)."""

    def need_context(self) -> bool:
        return True

    def _run(
        self, *inputs, context=None, body=None, num_scan_inputs=None, scan_input_axes=None,
        scan_input_directions=None, scan_output_axes=None, scan_output_directions=None, attributes=None, **_,
    ):  # fmt: skip
        states, scanned = inputs[:-num_scan_inputs], inputs[-num_scan_inputs:]
        ways = zip(
            scanned, _each(scan_input_axes, scanned), _each(scan_input_directions, scanned), strict=True
        )
        read = [np.moveaxis(x, axis, 0)[:: -1 if back else 1] for x, axis, back in ways]
        stacks: list[list[np.ndarray]] = [[] for _ in self.body.output_names[len(states) :]]
        for rows in zip(*read, strict=True):
            given = dict(zip(self.body.input_names, [*states, *rows], strict=True))
            results = self._run_body({**(context or {}), **given}, attributes=attributes)
            states = results[: len(states)]
            for stack, row in zip(stacks, results[len(states) :], strict=True):
                stack.append(row)
        ends = zip(
            stacks, _each(scan_output_axes, stacks), _each(scan_output_directions, stacks), strict=True
        )
        return (*states, *(np.stack(stack[:: -1 if back else 1], axis) for stack, axis, back in ends))


def _each(numbers: Sequence[int] | None, tensors: Sequence[object]) -> Sequence[int]:
    return numbers or [0] * len(tensors)
