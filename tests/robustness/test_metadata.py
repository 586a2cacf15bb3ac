"""metadata.json is checked before anything it names is run: each edit is refused in one line."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwptq
from hwptq.errors import HwptqError, InputError

TARGET = "x86-64-avx2"
Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture
def folder(demo: Callable[[str], Any], tmp_path: Path) -> Path:
    """A copy of the demo's output."""
    return Path(shutil.copytree(demo(TARGET).folder, tmp_path / "out"))


def sample(folder: Path) -> dict[str, np.ndarray]:
    """A golden input."""
    golden = np.load(folder / "golden.npz")
    return {"input": golden["input"][:1]}


def refused(folder: Path, match: str = "") -> None:
    """What is left of the model can't be loaded, and says so in one line."""
    with pytest.raises(InputError, match=match) as caught:
        hwptq.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda d: d.update(run=["sh", "-c", "touch pwned"]), "no emulator that hwptq knows"),
        (lambda d: d.update(run=["qemu-aarch64", "-L", "."]), "no emulator that hwptq knows"),
        (lambda d: d.update(run="sh"), "run: no list"),
        (lambda d: d.update(run=[5]), r"run\[0\]: 5 is no text"),
        (lambda d: d.update(run=None), "run: no list"),
        (lambda d: d.update(program="/bin/cat"), "does not lie in the folder"),
        (lambda d: d.update(program="../out/digits"), "does not lie in the folder"),
        (lambda d: d.update(program=".."), "does not lie in the folder"),
        (lambda d: d.update(program=5), "is no text"),
        (lambda d: d.update(program=""), "is no text"),
        (lambda d: d.update(program="nope"), "there is no file 'nope'"),
        (lambda d: d.pop("program"), "'program' is missing"),
        (lambda d: d["library"].update(file="/lib/libc.so"), "does not lie in the folder"),
        (lambda d: d["library"].update(arena_bytes=-1), "-1 is no size"),
        (lambda d: d["library"].update(alignment=True), "True is no size"),
        (lambda d: d.update(machine=[]), "machine: no table"),
        (lambda d: d["machine"].update(device="tpu"), "machine: not as hwptq writes it"),
        (lambda d: d.update(schema=99), "schema 99"),
        (lambda d: d["inputs"][0].update(dtype="float99"), "'float99' is no dtype"),
        (lambda d: d["outputs"][0].update(dtype="O"), "is no tensor of a model"),
        (lambda d: d["outputs"][0].update(dtype=5), "5 is no text"),
        (lambda d: d["outputs"][0].update(shape=[-1, 10]), "-1 is no size"),
        (lambda d: d["outputs"][0].update(shape=[2**39, 2**39]), "is no tensor of a model"),
        (lambda d: d["outputs"][0].update(shape=[1e3]), "is no size"),
        (lambda d: d["outputs"][0].update(shape="ab"), "no list"),
        (lambda d: d["library"].update(alignment=0), "alignment: 0 is no power of two"),
        (lambda d: d["library"].update(alignment=48), "alignment: 48 is no power of two"),
        (lambda d: d["library"].update(alignment=2**40), "alignment: 1099511627776 is no power of two"),
        (lambda d: d["outputs"].clear(), "aren't those that the code was made for"),
        (lambda d: d["outputs"][0].update(shape=[1, 9]), "aren't those that the code was made for"),
        (lambda d: d["library"].update(arena_bytes=0), "aren't those that the code was made for"),
        (lambda d: d.pop("interface"), "'interface' is missing"),
    ],
)  # fmt: skip
def test_an_edit_is_refused(folder: Path, edit: Edit, match: str) -> None:
    data = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    edit(data := copy.deepcopy(data))
    (folder / "metadata.json").write_text(json.dumps(data), encoding="utf-8")
    refused(folder, match)
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize(
    "text", ["[]", '{"schema": 1', "[" * 100_000, "null", "NaN", "\x00\x01", '{"schema": 2}', ""]
)
def test_what_is_no_metadata_is_refused(folder: Path, text: str) -> None:
    (folder / "metadata.json").write_text(text, encoding="utf-8")
    refused(folder, "no output folder of hwptq")


def test_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "digits").unlink()
    (folder / "digits").symlink_to("/bin/cat")
    refused(folder, "does not lie in the folder")


@pytest.mark.parametrize("name", ["/nope", "/etc/passwd", "", "\0"])
def test_what_is_no_folder_is_refused(name: str) -> None:
    refused(Path(name), "no output folder of hwptq")


def test_a_program_that_is_damaged_fails_in_one_line(folder: Path) -> None:
    inputs, program = sample(folder), folder / "digits"
    whole = program.read_bytes()
    for damage in (whole[:3000], b""):
        program.write_bytes(damage)
        with pytest.raises(HwptqError):
            hwptq.load(folder, executor="process").run(inputs)
    program.write_bytes(whole)
    os.chmod(program, 0o644)
    with pytest.raises(HwptqError, match="can't be started"):
        hwptq.load(folder, executor="process").run(inputs)


@pytest.mark.parametrize("text", ["{", "[]", None])
def test_a_report_that_is_damaged_is_one_line(folder: Path, text: str | None) -> None:
    report = folder / "report.json"
    report.unlink() if text is None else report.write_text(text, encoding="utf-8")
    model = hwptq.load(folder)
    with pytest.raises(InputError, match=r"report\.json"):
        _ = model.report


def test_an_interface_that_does_not_fit_the_program(folder: Path) -> None:
    """Fewer output bytes than the program writes: nothing may be read out of step."""
    data = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    data["outputs"][0]["shape"] = [1, 1000]
    (folder / "metadata.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(HwptqError):
        hwptq.load(folder, executor="process").run(sample(folder))
