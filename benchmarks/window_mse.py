"""tiny-ad: the reconstruction error of each window, emitted code against float32.

python benchmarks/window_mse.py
"""

from __future__ import annotations

import numpy as np
from common import compiled, parser, paths, row

from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx

BOUND = 3.0  # percent
command = parser(__doc__)
command.add_argument("--target", default="arm-cortex-a")


def main() -> None:
    """Compile, run on every window, compare the errors."""
    args = command.parse_args()
    files = paths("tiny-ad", args.data)
    windows = np.load(files["evaluation_data"])["x"]
    imported = import_onnx(files["model"])
    (name,) = imported.inputs
    float32 = Interpreter(imported.module)
    with compiled("tiny-ad", args.target, args.data) as model:
        exact = model.report["bit_exact"]
        samples = [{name: window[np.newaxis]} for window in windows]
        emitted = [next(iter(out.values())) for out in model.run_stream(samples)]
    mse = {
        "emitted": [_mse(a, b) for a, b in zip(windows, emitted, strict=True)],
        "float32": [_mse(s[name], float32.run(s)[0]) for s in samples],
    }
    means = {kind: float(np.mean(values)) for kind, values in mse.items()}
    change = 100 * (means["emitted"] / means["float32"] - 1)
    windows_change = 100 * np.mean(np.abs(np.divide(mse["emitted"], mse["float32"]) - 1))
    figure = (
        f"mean window MSE {means['emitted']:.3f} emitted, {means['float32']:.3f} float32: {change:+.2f} % "
        f"(bound {BOUND:g} %); a window changes by {windows_change:.2f} % on average; "
        f"{exact['mismatches']} of {exact['values']} values differ ({exact['samples']} samples, "
        f"{exact['executor']})"
    )
    row(f"tiny-ad, {args.target}", figure, abs(change) <= BOUND and exact["mismatches"] == 0)


def _mse(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean((x.reshape(-1).astype(np.float64) - y.reshape(-1)) ** 2))


if __name__ == "__main__":
    main()
