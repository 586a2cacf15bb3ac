"""What must not work: the sdot program on a CPU without sdot, and a broken kernel.

python benchmarks/negative_control.py
"""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
from common import compiled, parser, row

import hwptq
from hwptq.errors import HwptqError, MismatchError
from hwptq.operators.dense import Dense
from hwptq.passes import select_kernels
from hwptq.tir.kernel import Step

OLD_CPU = ("qemu-aarch64", "-cpu", "cortex-a72")
command = parser(__doc__)


def main() -> None:
    """Both controls, on the demo."""
    args = command.parse_args()
    with compiled("demo", "arm-cortex-a", args.data, hwptq.Options(samples=1)) as model:
        golden = np.load(model.folder / "golden.npz")
        sample = {t.name: golden[t.name][:1] for t in model.inputs}
        model.run(sample)  # does run on its own CPU
        try:
            replace(model, program=replace(model.program, run=OLD_CPU)).run(sample)
            message = "it ran"
        except HwptqError as error:
            message = str(error)
    row("sdot on cortex-a72", message, "instructions that this CPU lacks" in message)
    try:
        with (
            mock.patch.object(select_kernels, "select", _broken(select_kernels.select)),
            compiled("demo", "arm-cortex-a", args.data, hwptq.Options(samples=8)),
        ):
            outcome, good = "not noticed", False
    except MismatchError as error:
        outcome, good = f"exit code {error.exit_code}: {error}", error.exit_code == 6
    row("a broken kernel", outcome, good)


def _broken(select):
    """A select that gives the kernels of another zero point for every dense layer."""

    def wrong(layer, *args) -> tuple[Step, ...]:
        if isinstance(layer.op, Dense):
            layer = replace(layer, op=replace(layer.op, out_zero_point=layer.op.out_zero_point + 1))
        return select(layer, *args)

    return wrong


if __name__ == "__main__":
    main()
