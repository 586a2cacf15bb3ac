"""The list of passes: which of them a job takes, and what --dump-ir shows of them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import model, node, normal, save
from tvm import relax

import hwptq
from hwptq.data.dataset import from_batches
from hwptq.errors import InputError
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.dataflow import bindings, constant
from hwptq.options import options_of
from hwptq.pipeline.ir_dump import IrDump
from hwptq.pipeline.stages import dynamic, fuse, lower, prepare, quantize
from hwptq.pipeline.step import Job
from hwptq.pipeline.steps import FUSE
from hwptq.recipe import Recipe, recipe
from hwptq.targets import load_target


def weights(module):
    return [constant(v.args[1]) for _, v in bindings(module["main"]) if isinstance(v, relax.Call)]


@pytest.mark.parametrize(
    ("granularity", "setting", "equalized"),
    [
        ("tensor", "equalize=auto", True),
        ("channel", "equalize=auto", False),
        (None, "equalize=auto", False),  # the target's convolutions have a scale for each channel
        ("channel", "equalize=on", True),
        ("tensor", "equalize=off", False),
    ],
)
def test_auto_equalizes_where_weights_have_one_scale(tmp_path, granularity, setting, equalized):
    constants = {"w1": normal(1, 4, 2, 1, 1), "w2": normal(2, 3, 4, 1, 1)}
    constants["w1"][0] *= 50
    nodes = [node("Conv", "x w1", "a"), node("Relu", "a", "b"), node("Conv", "b w2", "y")]
    imported = import_onnx(save(model(nodes, {"x": ["N", 2, 3, 3]}, constants), tmp_path))
    options = hwptq.Options(weight_granularity=granularity, recipe=recipe("default", [setting]))
    data = from_batches([{"x": normal(3, 1, 2, 3, 3)}], imported.inputs)
    job = Job(load_target("x86-64-vnni"), data, options)
    float32 = prepare(imported.module, job).float32
    same = all(
        np.array_equal(a, b) for a, b in zip(weights(fuse(imported.module)), weights(float32), strict=True)
    )
    assert same != equalized


def small_job(data, folder, **words):
    return Job(load_target("x86-64-vnni"), data, options_of(None, **words), dump=IrDump(folder))


def dumped(folder):
    return [path.stem.partition("-")[2] for path in sorted(folder.glob("*.py"))]


@pytest.fixture
def imported(tmp_path):
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "y")]
    return import_onnx(save(model(nodes, {"x": ["N", 2, 3, 3]}, {"w": normal(1, 4, 2, 1, 1)}), tmp_path))


@pytest.fixture
def data(imported):
    return from_batches([{"x": normal(3, 1, 2, 3, 3)}], imported.inputs)


@pytest.mark.parametrize(
    ("words", "repairs"),
    [
        ({"recipe": "fast"}, []),
        ({"recipe": "best"}, ["RoundWeights"]),
        ({"recipe": Recipe(correct_bias=True)}, ["CorrectBias"]),
    ],
)
def test_every_pass_that_is_taken_is_dumped_in_its_order(imported, data, tmp_path, words, repairs):
    job = small_job(data, tmp_path / "ir", **words)
    lower(quantize(imported.module, job), job)
    found = dumped(tmp_path / "ir")
    smooth = ["SmoothActivations"] if job.options.recipe.smooth else []
    depthwise = ["EqualizeDepthwise"] if job.options.recipe.depthwise else []
    widen = ["WidenActivations"] if job.options.recipe.widen else []
    assert found == [
        *(make.__name__ for make in FUSE), *smooth, *depthwise, *widen, "InsertQDQ", *repairs,
        "LowerToInteger", "JoinKernels", "SelectKernels",
    ]  # fmt: skip
    insert = next((tmp_path / "ir").glob("*-InsertQDQ.py")).read_text()
    assert "R.quantize(" in insert
    assert "R.quantize(" not in next((tmp_path / "ir").glob("*-FuseConvRelu.py")).read_text()


@pytest.mark.parametrize(
    ("name", "repairs"),
    [
        ("fast", []),
        ("default", ["RoundGroups"]),
        ("best", ["RoundGroups", "ReconstructBlocks", "MatchOutputs"]),
    ],
)
def test_weights_by_group_are_rounded_as_the_recipe_says(tmp_path, name, repairs):
    nodes = [node("MatMul", "x w", "a"), node("Relu", "a", "b"), node("MatMul", "b v", "y")]
    constants = {"w": normal(1, 16, 24), "v": normal(2, 24, 16)}
    imported = import_onnx(save(model(nodes, {"x": ["N", 5, 16]}, constants), tmp_path))
    data = from_batches([{"x": normal(3, 1, 5, 16)}], imported.inputs)
    words = {"activations": "dynamic", "weight_granularity": "group", "group": 8, "precision": "w3a8"}
    dynamic(imported.module, small_job(data, tmp_path / "ir", recipe=name, **words))
    found = dumped(tmp_path / "ir")
    assert found[found.index("InsertDynamicQDQ") + 1 :] == repairs


def test_dumps_of_an_earlier_compilation_are_replaced_and_nothing_else(imported, data, tmp_path):
    own = tmp_path / "07-own.py"
    own.write_text("mine = 1\n")
    (tmp_path / "42-Old.py").write_text("# hwptq: after Old\n")
    prepare(imported.module, small_job(data, tmp_path, recipe="fast"))
    assert dumped(tmp_path) == [*(make.__name__ for make in FUSE), "own"]
    assert own.read_text() == "mine = 1\n"


def test_dumps_need_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--dump-ir .*file: can't be written"):
        IrDump(tmp_path / "file")


def test_a_folder_for_dumps_is_made_with_the_first_of_them(imported, tmp_path):
    dump = IrDump(tmp_path / "deep" / "ir")
    assert not (tmp_path / "deep").exists()
    dump("import", imported.module)
    assert dumped(tmp_path / "deep" / "ir") == ["import"]


def test_a_float_model_needs_data(imported):
    with pytest.raises(InputError, match="the model is in float: give calibration data"):
        quantize(imported.module, Job(load_target("x86-64-vnni")))
