"""The wheel holds everything, and the package works installed as well as in a checkout."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import hwptq

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"hwptq": "hwptq", "passes": "hwptq/passes", "targets": "hwptq/targets"}
USE = """
import hwptq, hwptq.calibration, hwptq.cli.main
from hwptq import passes
from hwptq.backends.static_c.c_source import header
from hwptq.targets import load_target, target_names
assert passes.FoldBatchNorm and hwptq.compile
assert {"arm-cortex-a", "x86-64-vnni"} <= {load_target(name).name for name in target_names()}
print(hwptq.__file__)
"""


def sources() -> set[str]:
    """Every file of the package, by its path in the wheel."""
    return {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def use(folder: Path, path: str = "") -> Path:
    """Use the package in a process of its own, started in `folder`; where it was found."""
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", USE]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    copy.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "--wheel-dir", str(folder), str(copy)], check=True)
    return next(folder.glob("hwptq-*.whl"))


def test_the_wheel_holds_every_file(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (n for n in names if n.endswith("entry_points.txt"))
        assert "hwptq = hwptq.cli.start:main" in archive.read(entry_points).decode()
    assert sources() - names == set()
    assert {"hwptq/py.typed", "hwptq/backends/static_c/main.c.in", "hwptq/targets/arm-cortex-a.toml"} <= names
    assert {n.split("/")[0] for n in names} == {"hwptq", wheel.name.rsplit("-", 3)[0] + ".dist-info"}


def test_the_metadata_of_the_wheel(wheel: Path):
    """Complete, with the licences, and the version that the module tells."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(archive.read(name))
        licences = {Path(n).name for n in archive.namelist() if "/licenses/" in n}
    assert said["Version"] == hwptq.__version__
    assert said["License-Expression"] == "Apache-2.0"
    assert licences == {"LICENSE", "NOTICE"} == set(said.get_all("License-File", []))
    assert said["Author"] == "The hwptq developers"
    assert said["Keywords"]
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert said["Description-Content-Type"] == "text/markdown"


def test_the_version_stands_in_one_place():
    """CITATION.cff can't refer to it, and the changelog tells of it; no other file may state it."""
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert cited == hwptq.__version__
    assert hwptq.__version__ in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert not re.search(r'^version = "', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)


def test_pins_have_reasons():
    """Whatever has an upper bound has a comment in front of it, or in front of its list."""
    lines = (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
    pinned = [n for n, line in enumerate(lines) if re.match(r'\s*"[\w-]+(==|>=[\d.]+,<)', line)]
    assert pinned
    for number in pinned:
        while re.match(r'\s*"', lines[number]) or lines[number].endswith("["):
            number -= 1
        assert lines[number].strip().startswith("#"), lines[number + 1]


def test_use_of_the_wheel_from_another_folder(wheel: Path, tmp_path: Path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert use(tmp_path, str(tmp_path / "site")) == tmp_path / "site" / "hwptq" / "__init__.py"


def test_use_of_a_checkout_from_its_root():
    assert use(ROOT) == ROOT / "hwptq" / "__init__.py"


def test_use_of_a_checkout_from_another_folder(tmp_path: Path):
    assert use(tmp_path, str(ROOT)) == ROOT / "hwptq" / "__init__.py"
