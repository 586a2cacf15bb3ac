"""What reads several tokens at once leaves the caches and the logits of as many steps, in every bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import tvm
from growing_models import ROWS, growing
from hypothesis import given, settings
from prompt_models import SMALL, integer_step, llama, prompts, steps
from step_models import step_graph
from tvm import relax

from hwptq import passes
from hwptq.evaluate.interpret import Interpreter
from hwptq.evaluate.steps import Steps
from hwptq.ir.caches import Cache, Caches, with_caches
from hwptq.ir.dataflow import Constant, Rewriter, bindings, op_name, rewrite
from hwptq.ir.operator import integer_operator
from hwptq.operators.attention import Attention
from hwptq.operators.dense import DenseFloat
from hwptq.passes.graph.axes_along import reading
from hwptq.passes.graph.token_axis import Growing, Tokens

OPTIONS: dict[str, dict[str, Any]] = {
    "dynamic": {"activations": "dynamic"},
    "dynamic, caches in int8": {"activations": "dynamic", "kv_cache": "int8"},
    "dynamic, by group": {
        "activations": "dynamic", "precision": "w4a8", "weight_granularity": "group", "group": 32,
    },
    "static": {"recipe": "fast"},
}  # fmt: skip


@cache
def step(kind: str) -> tvm.IRModule:
    return integer_step(llama(), **OPTIONS[kind])


@cache
def by_steps(kind: str, tokens: tuple[int, ...]) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """The logits behind each token, and the caches behind all."""
    run = Steps(step(kind))
    logits = [run.run(sample)[0] for sample in steps(tokens)]
    return logits, run.held


TEXT = tuple(np.random.default_rng(1).integers(0, SMALL.words, 12).tolist())


@pytest.mark.parametrize("kind", OPTIONS)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_prompts_are_steps(kind: str, data: st.DataObject) -> None:
    most = data.draw(st.sampled_from((2, 7, 16, 24)))
    sizes: list[int] = []
    while sum(sizes) < len(TEXT) and len(sizes) < 4:
        sizes.append(data.draw(st.integers(1, min(most, len(TEXT) - sum(sizes)))))
    run = Steps(passes.ReadPrompt(most)(step(kind)))
    logits, end = [], 0
    for sample in prompts(TEXT, sizes, most):
        logits.append(run.run(sample)[0])
    for size, given_logits in zip(sizes, logits, strict=True):
        end += size
        expected, _ = by_steps(kind, TEXT)
        assert np.array_equal(given_logits.view(np.int32), expected[end - 1].view(np.int32))
    _, caches = by_steps(kind, TEXT[:end])
    assert list(run.held) == list(caches)
    for name, held in caches.items():
        assert np.array_equal(run.held[name], held), name


@pytest.mark.parametrize(
    "extra",
    [(), ("mask",), ("position",), ("range", "slice", "mask"), ("mask", "chosen")],
    ids="+".join,
)
def test_caches_that_grew_by_concat(extra: tuple[str, ...]) -> None:
    axes = {"P": ROWS - 1, **({"all": ROWS} if "mask" in extra else {})}
    mod = integer_step(growing(*extra), activations="dynamic", axes=axes)
    place = "step" if "position" in extra else "position"
    shape = (1, 1) if "position" in extra else (1,)
    run, prompt, tokens = Steps(mod), Steps(passes.ReadPrompt(4)(mod)), [3, 1, 4, 1, 5]
    for i, token in enumerate(tokens):
        (expected,) = run.run({"t": np.array([[token]]), place: np.full(shape, i)})
    for at, part in ((0, tokens[:3]), (3, tokens[3:])):
        sample = {"t": np.array([[*part, *[0] * (4 - len(part))]]), place: np.full(shape, at)}
        (found,) = prompt.run({**sample, "count": np.array([len(part)])})
    assert np.array_equal(found.view(np.int32), expected.view(np.int32))
    assert all(np.array_equal(run.held[name], prompt.held[name]) for name in run.held)


def test_the_head_is_computed_once_and_the_step_stays() -> None:
    """Dense layers read T rows, but for what only the last token needs: of the last layer all but k and v."""
    mod = step("dynamic")
    before = tvm.ir.save_json(mod)
    prompt = passes.ReadPrompt(8)(mod)
    assert tvm.ir.save_json(mod) == before
    rows: dict[type, list[int]] = {Attention: [], DenseFloat: []}
    for var, value in bindings(prompt["main"]):
        op = integer_operator(prompt, value)
        if type(op) in rows:
            rows[type(op)].append(int(var.ty.shape.values[-2]))
    assert rows[Attention] == [8, 1]
    assert rows[DenseFloat].count(8) == 7 + 2
    assert rows[DenseFloat].count(1) == 5 + 1


def test_rows_that_nothing_hides_are_refused() -> None:
    """logits of the mean of all rows of a cache."""
    mod = integer_step(step_graph(), activations="dynamic")
    with pytest.raises(ValueError, match="all rows of caches, and nothing hides those behind the position"):
        passes.ReadPrompt(4)(mod)


def compared(mod: tvm.IRModule, name: str, instead: Callable[..., Any]) -> tvm.IRModule:
    """The step with another comparison of places and position."""

    def visit(r: Rewriter, var: Any, value: Any) -> Any:
        same = op_name(value) != name
        return r.keep(value) if same else r.emit(instead(*map(r.get, value.args)), r.origins[var])

    return rewrite(mod, visit)


@pytest.mark.parametrize("name", ["greater_equal", "not_equal", "less"])
def test_masks_that_show_rows_behind_or_nothing_are_refused(name: str) -> None:
    """What hides the row of the position too leaves nothing of the first token, and then all counts."""
    mod = compared(step("dynamic"), "less_equal", getattr(relax.op, name))
    with pytest.raises(ValueError, match=r"node MatMul.*nothing hides those behind the position"):
        passes.ReadPrompt(4)(mod)


def test_what_writes_several_rows_is_refused() -> None:
    mod = compared(step("dynamic"), "equal", relax.op.less_equal)
    with pytest.raises(ValueError, match=r"node present\.0\.key: it writes other rows of the cache past"):
        passes.ReadPrompt(4)(mod)


def small(body: Callable[..., list[Any]]) -> tvm.IRModule:
    """A step with one cache [1,5,3], whose last output it is; body gets an emitter and the inputs."""
    shapes = {"t": ((1, 1), "int64"), "at": ((1,), "int64"), "past": ((1, 5, 3), "float32")}
    builder = relax.BlockBuilder()
    params = [relax.Var(name, relax.TensorType(shape, dtype)) for name, (shape, dtype) in shapes.items()]
    with builder.function("main", params):
        with builder.dataflow():
            out = builder.emit_output(relax.Tuple(body(builder.emit, *params)))
        builder.emit_func_output(out)
    mod = builder.get()
    mod["main"] = with_caches(mod["main"], Caches((Cache(2, 1),), 1, 5))
    return mod


def written(emit: Any, t: Any, at: Any, past: Any) -> tuple[Any, Any]:
    """(what a token is, the cache with it)"""
    table = relax.const(np.arange(21, dtype=np.float32).reshape(7, 3))
    new = emit(relax.op.take(table, t, axis=0, mode="clip"))
    places = relax.const(np.arange(5)[None, :, None], "int64")
    return new, emit(relax.op.where(emit(relax.op.equal(places, at)), new, past))


def test_a_cache_that_is_read_before_its_row_is_written_is_refused() -> None:
    def body(emit: Any, t: Any, at: Any, past: Any) -> list[Any]:
        new, now = written(emit, t, at, past)
        return [emit(relax.op.add(new, emit(relax.op.sum(past, axis=[1], keepdims=True)))), now]

    with pytest.raises(ValueError, match="reads the cache past without the row that the step writes"):
        passes.ReadPrompt(2)(small(body))


def test_what_is_not_known_to_compute_several_tokens_is_refused() -> None:
    def body(emit: Any, t: Any, at: Any, past: Any) -> list[Any]:
        table = relax.const(np.arange(21, dtype=np.float32).reshape(7, 3))
        new = emit(relax.op.take(table, t, axis=0, mode="clip"))
        new = emit(relax.op.cumsum(new, axis=1))
        places = relax.const(np.arange(5)[None, :, None], "int64")
        return [new, emit(relax.op.where(emit(relax.op.equal(places, at)), new, past))]

    with pytest.raises(ValueError, match="how it would compute several tokens at once is not known"):
        passes.ReadPrompt(2)(small(body))


def test_a_function_without_caches_or_position_is_none() -> None:
    mod = small(lambda emit, *inputs: [*written(emit, *inputs)])
    func = mod["main"]
    for caches, says in ((None, "no caches"), (Caches((Cache(2, 1),), None, 5), "no input of one integer")):
        mod["main"] = with_caches(func, caches)
        with pytest.raises(ValueError, match=says):
            passes.ReadPrompt(2)(mod)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_tokens_may_be_on_any_axis(data: st.DataObject) -> None:
    """Movements of random shapes, of tokens that are put on any axis first: what each token gives alone."""
    extents, many = data.draw(st.permutations([1, 1, 2, 3])), 4
    value = np.random.default_rng(0).standard_normal((many, *extents)).astype(np.float32)
    axes = data.draw(st.permutations(range(4)))
    target = data.draw(st.sampled_from([(6,), (1, 6), (2, 3), (3, 1, 2), (1, 1, 6, 1), tuple(extents)]))
    start = data.draw(st.sampled_from([a - 4 for a in range(4) if extents[a] == 1] + [-5]))
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((many, *extents), "float32"))
    one = relax.Var("one", relax.TensorType(tuple(extents), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            growing_to = Growing(builder.get(), builder, many)
            tokens = Tokens(x, tuple(extents), -5)
            tokens = Tokens(growing_to.placed(tokens, start), tuple(extents), start)
            moved = relax.op.permute_dims(one, list(axes))
            tokens = grown(growing_to, moved, tokens)
            between = relax.Var("y", relax.TensorType(tuple(extents[a] for a in axes), "float32"))
            tokens = grown(growing_to, relax.op.reshape(between, target), tokens)
            out = builder.emit_output(growing_to.placed(tokens, -len(target) - 1))
        builder.emit_func_output(out)
    (found,) = Interpreter(builder.get()).run({"x": value})
    expected = np.stack([np.transpose(v, axes).reshape(target) for v in value])
    assert np.array_equal(found, expected)


PLACES = np.array([[2, 0], [1, 1]])
TABLE = np.random.default_rng(1).standard_normal((5, 2, 3)).astype(np.float32)
#: What is chosen of a tensor [1, 2, 3], or by it, in Relax and in numpy.
CHOICES: dict[str, tuple[Callable[[Any], Any], Callable[[np.ndarray], np.ndarray]]] = {
    "places of the last axis": (
        lambda x: relax.op.take(x, relax.const(PLACES), axis=2, mode="clip"),
        lambda x: np.take(x, PLACES, axis=2),
    ),
    "repetitions": (lambda x: relax.op.tile(x, (1, 2, 3)), lambda x: np.tile(x, (1, 2, 3))),
    "elements of a table": (
        lambda x: relax.op.gather_elements(relax.const(TABLE), x, axis=0),
        lambda x: np.take_along_axis(TABLE, x, 0),
    ),
}


@pytest.mark.parametrize("kind", CHOICES)
@pytest.mark.parametrize("start", [-3, -4])
def test_what_is_chosen_for_each_token(kind: str, start: int) -> None:
    make, expected = CHOICES[kind]
    value = np.random.default_rng(0).integers(0, 5, (4, 1, 2, 3))
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(value.shape, "int64"))
    one = relax.Var("one", relax.TensorType(value.shape[1:], "int64"))
    with builder.function("main", [x]):
        with builder.dataflow():
            growing_to = Growing(builder.get(), builder, 4)
            expr = growing_to.placed(Tokens(x, (1, 2, 3), -4), start)
            typed = relax.BlockBuilder().normalize(make(one))
            tensors = [a for a in typed.args if isinstance(a, relax.Var | Constant)]
            held = [Tokens(expr, (1, 2, 3), start) if a.same_as(one) else a for a in tensors]
            found = growing_to.grown(relax.Var("z", typed.ty), typed, held)
            out = builder.emit_output(growing_to.placed(found, -len(found.shape) - 1))
        builder.emit_func_output(out)
    (many,) = Interpreter(builder.get()).run({"x": value})
    assert np.array_equal(many.reshape(4, -1), np.stack([expected(v).ravel() for v in value]))


def grown(growing_to: Growing, value: Any, tokens: Tokens) -> Tokens:
    """A movement, as a step has it, for all tokens."""
    typed = relax.BlockBuilder().normalize(value)
    return growing_to.grown(relax.Var("z", typed.ty), typed, [tokens])


@pytest.mark.parametrize(
    ("shapes", "along"),
    [
        (((2, 3, 4), (2, 4, 5)), {-1: (None, -1), -2: (-2, None), -3: (-3, -3)}),
        (((3, 4), (4,)), None),
        (((4,), (4, 5)), None),
    ],
)
def test_which_axes_of_a_product_run_along(
    shapes: tuple[tuple[int, ...], ...], along: dict[int, tuple[int | None, ...]] | None
) -> None:
    """Of a vector nothing is said: its only axis is summed over, also where it is the last of both."""
    tensors = [relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]
    found = reading(tvm.IRModule(), relax.op.matmul(*tensors))
    assert (None if found is None else {axis: found.along(axis) for axis in (-1, -2, -3)}) == along
