"""What the GPU benchmarks build and run: products of e4m3 by name, and numpy data for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hwptq.formats import fp8
from hwptq.kernels.cuda.tiling import Problem, Tiling, candidates, choose
from hwptq.targets import load_target

TARGET = "nvidia-hopper-fp8"
FLOAT32, E4M3, BFLOAT16 = "float32", fp8.DTYPE, "bfloat16"
BYTES = {FLOAT32: 4, E4M3: 1, BFLOAT16: 2}
GEMMS = (
    (4096, 4096, 4096), (8192, 8192, 8192), (25216, 768, 768), (25216, 3072, 768), (25216, 768, 3072),
    (100352, 256, 64),
)  # fmt: skip
#: ResNet-50's shapes: H = W, C, O, kernel, stride, padding.
CONVS = (
    (56, 64, 64, 3, 1, 1), (56, 64, 256, 1, 1, 0), (56, 256, 64, 1, 1, 0), (28, 128, 128, 3, 1, 1),
    (56, 128, 128, 3, 2, 1), (14, 256, 256, 3, 1, 1), (7, 512, 512, 3, 1, 1), (14, 1024, 256, 1, 1, 0),
    (7, 512, 2048, 1, 1, 0),
)  # fmt: skip
DEPTHS = (32, 96, 128, 512, 2048, 4096, 8192)
#: Odd convolutions: N, H, W, C, O, kernel, stride, padding, dilation.
ODD_CONVS = (
    (2, 9, 7, 16, 16, 3, 1, 1, 1), (1, 12, 12, 32, 48, 3, 2, 1, 1), (3, 8, 10, 64, 10, 3, 1, 1, 2),
    (1, 14, 14, 96, 80, 1, 1, 0, 1), (2, 15, 15, 144, 100, 5, 2, 2, 1), (1, 7, 7, 192, 128, 3, 1, 1, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One kernel: its tiling, the dtype of its output, and whether it adds a residual and clamps at 0."""

    name: str
    tiling: Tiling
    out: str
    relu: bool = True
    residual: bool = False


def gemm(m: int, n: int, k: int, promote: int = 128, out: str = E4M3) -> Problem:
    """A dense layer as Problem sees it."""
    return Problem((1, 1, m, k), n, out_shape=(1, m), promote=promote, out_bytes=BYTES[out])


def conv(
    n: int, h: int, w: int, c: int, o: int, kernel: int, stride: int, padding: int, dilation: int = 1,
    promote: int = 128, out: str = E4M3,
) -> Problem:  # fmt: skip
    """A square convolution."""
    shape = [(extent + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for extent in (h, w)]
    return Problem(
        (n, h, w, c), o, (kernel, kernel), (stride, stride), (padding, padding), (dilation, dilation),
        (shape[0], shape[1]), promote=promote, out_bytes=BYTES[out],
    )  # fmt: skip


def equality_cases() -> Iterator[Case]:
    """Kernels that must equal the emulator: as they are chosen, and then every tile of the descriptor."""
    kernel = load_target(TARGET).kernels["wgmma"]
    for promote in (0, 128):
        mode = "promoted" if promote else "fast"
        for k in DEPTHS:
            for out in (FLOAT32, E4M3):
                tiling = choose(gemm(160, 192, k, promote, out), kernel)
                yield Case(f"eq_gemm_{k}_{mode}_{out}", tiling, out, out == E4M3)
        for i, shape in enumerate(ODD_CONVS):
            for out in (E4M3, FLOAT32):
                tiling = choose(conv(*shape, promote=promote, out=out), kernel)
                yield Case(
                    f"eq_conv_{i}_{mode}_{out}", tiling, out, out == FLOAT32, (i % 2 == 0) == (out == E4M3)
                )
    batched = replace(gemm(70, 130, 80, out=FLOAT32), images=(3, 1, 70, 80), groups_of_weights=3)
    yield Case("eq_batched", choose(batched, kernel), FLOAT32, False)
    for i, tile in enumerate(kernel.tiles):
        few = replace(kernel, tiles=(tile,), multiprocessors=3)  # so that each block has many tiles
        promote = 128 if tile.promoted else 0
        for out in (E4M3, FLOAT32):
            for name, problem in (
                ("gemm", gemm(1000, 320, 640, promote, out)),
                ("conv", conv(2, 17, 19, 128, 272, 3, 1, 1, 1, promote, out)),
            ):
                tiling = next(candidates(problem, few))
                yield Case(f"eq_tile_{i}_{name}_{out}", tiling, out, name == "gemm", name == "conv")


def speed_cases(batches: tuple[int, ...] = (1, 128)) -> Iterator[tuple[str, Case]]:
    """(group, case): the measured shapes, each with the tiling that is chosen for it."""
    kernel = load_target(TARGET).kernels["wgmma"]
    for m, n, k in GEMMS:
        for promote, out in ((0, BFLOAT16), (128, BFLOAT16), (0, E4M3), (128, E4M3)):
            group = f"gemm {m} {n} {k} {'promoted' if promote else 'fast'} {out}"
            yield group, Case(group.replace(" ", "_"), choose(gemm(m, n, k, promote, out), kernel), out)
    for batch in batches:
        for shape in CONVS:
            h, *rest = shape
            group = f"conv {batch} {' '.join(map(str, shape))} promoted {E4M3}"
            yield group, Case(group.replace(" ", "_"), choose(conv(batch, h, h, *rest), kernel), E4M3)


def data(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Codes: normal, or positive as behind a ReLU."""
    x = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return fp8.encode(np.abs(x) if kind == "positive" else x)
