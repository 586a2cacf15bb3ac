"""docs/embedding.md: its example runs as it stands, and every pass is in its table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from relax_graphs import network, samples
from tvm import relax

from hwptq import passes
from hwptq.evaluate.interpret import Interpreter
from hwptq.passes.graph.quantizable import assignment

PAGE = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text(encoding="utf-8")


def test_the_example_runs() -> None:
    code, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    data = samples(network(), 8)
    names: dict[str, Any] = {"mod": network(), "samples": data}
    exec(compile(code, "embedding.md", "exec"), names)
    assert "int4" in {weight for _, weight in assignment(names["mod"]["main"]).values()}
    machine = relax.VirtualMachine(names["executable"], tvm.cpu())
    found = machine["main"](tvm.runtime.tensor(data[0]["x"])).numpy()
    (exact,) = Interpreter(network()).run(data[0])
    assert np.linalg.norm(found - exact) < 0.2 * np.linalg.norm(exact)


def test_the_passes_of_the_table_exist() -> None:
    table = PAGE[: PAGE.index("| Passes of TVM |")]
    rows = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| `[A-Z].*?\|", table, re.MULTILINE)))
    assert len(rows) > 10
    assert all(issubclass(getattr(passes, name), tvm.ir.transform.Pass) for name in rows)
