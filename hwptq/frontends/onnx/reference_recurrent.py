"""Recurrent layers for onnx.reference, whose own take every sequence for as long as the longest.

A sequence alone is as long as it is: each goes through onnx's layer by itself.
"""

from __future__ import annotations

import numpy as np
from onnx.reference.ops.op_gru import CommonGRU
from onnx.reference.ops.op_lstm import CommonLSTM
from onnx.reference.ops.op_rnn import CommonRNN


class _BySequence:
    """In front of a layer of onnx: outputs behind the end of a sequence are 0, and its last state is that of
    its end."""

    def _run(self, x, w, r, bias=None, lengths=None, *states, layout=None, **attributes):
        run = super()._run  # type: ignore[misc]
        if attributes.get("clip") or attributes.get("input_forget"):
            raise NotImplementedError("bounds, or gates that share a function")
        functions = {str(f).lower() for f in attributes.get("activations") or ()}
        if functions - {"sigmoid", "tanh"}:  # which onnx's layers take for those
            raise NotImplementedError(f"gates of {', '.join(sorted(functions))}")
        if lengths is None:
            return run(x, w, r, bias, None, *states, layout=layout, **attributes)
        batch, time = (0, 1) if layout else (1, 0)
        found = []
        for i, length in enumerate(lengths):
            own = np.take(np.take(x, [i], batch), range(length), time)
            first = [s if s is None or s.ndim < 3 else np.take(s, [i], batch) for s in states]
            every, *last = run(own, w, r, bias, None, *first, layout=layout, **attributes)
            behind = [(0, x.shape[time] - length if axis == time else 0) for axis in range(every.ndim)]
            found.append((np.pad(every, behind), *last))
        ys, *ends = zip(*found, strict=True)
        return (
            np.concatenate(ys, 0 if layout else 2),
            *(np.concatenate(last, 0 if layout else 1) for last in ends),
        )


class LSTM(_BySequence, CommonLSTM):
    """With sequence_lens."""


class GRU(_BySequence, CommonGRU):
    """With sequence_lens."""


class RNN(_BySequence, CommonRNN):
    """With sequence_lens."""
