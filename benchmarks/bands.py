"""A MobileNetV2-like network within budgets for its activations: bytes, bands, and additional products.

    python benchmarks/bands.py [--target arm-cortex-m4] [--budgets 300kB,160kB,128kB,96kB]

The weights are random, so nothing is said of accuracy.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from mobilenet_v2 import images, mobilenet_v2

import hwptq
from hwptq.errors import BudgetError
from hwptq.recipe import RECIPES

command = argparse.ArgumentParser(description=__doc__)
command.add_argument("--target", default="arm-cortex-m4")
command.add_argument("--budgets", default="300kB,160kB,128kB,96kB")


def main() -> None:
    """One row for each budget."""
    args, model = command.parse_args(), mobilenet_v2()
    print("| budget | arena kB | stretches in bands | more products |")
    print("|---|---|---|---|")
    for budget in args.budgets.split(","):
        options = hwptq.Options(recipe=RECIPES["fast"])
        with tempfile.TemporaryDirectory() as folder:
            try:
                compiled = hwptq.compile(
                    model, args.target, images(2), output=Path(folder, "out"), options=options,
                    budget=f"arena={budget}",
                )  # fmt: skip
            except BudgetError as error:
                print(f"| {budget} | {error} | | |")
                continue
            report = compiled.report
        bands = ", ".join(f"{b['first']} … {b['last']} in {b['bands']}" for b in report["bands"]) or "none"
        extra = sum(b["extra_macs"] for b in report["bands"]) / report["coverage"]["macs_total"]
        assert report["bit_exact"]["values"] > 0
        assert report["bit_exact"]["mismatches"] == 0
        print(f"| {budget} | {report['arena_bytes'] / 1e3:.1f} | {bands} | {100 * extra:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
