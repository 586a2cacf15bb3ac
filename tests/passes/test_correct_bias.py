"""CorrectBias: each layer's accumulator has, on the calibration data, the mean that it has in float."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from relax_graphs import apply, const, graph, labels, network, nn, op, samples, stats_of, tensors
from tvm import relax

from hwptq import passes
from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.dataflow import bindings, constant, rewrite
from hwptq.ir.operator import integer_operator
from hwptq.ir.provenance import Origin, origins
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense
from hwptq.passes.graph.channel_links import layers
from hwptq.targets import load_target

TARGET = load_target("x86-64-vnni")


def net():
    """Strided, padded, dilated, grouped and depthwise convolutions, with and without bias; dense."""

    def build(emit, x):
        y = emit(nn.conv2d(x, const(6, 3, 3, 3), strides=2, padding=(1, 0, 0, 1)), "stem")
        y = emit(op.clip(emit(op.add(y, const(1, 6, 1, 1))), 0, 6))
        y = emit(nn.conv2d(y, const(6, 1, 3, 3, seed=1), padding=2, dilation=2, groups=6), "depthwise")
        y = emit(nn.relu(y))
        y = emit(nn.conv2d(y, const(4, 3, 2, 1, seed=2), groups=2), "grouped")
        y = emit(op.mean(emit(nn.relu(emit(op.add(y, const(4, 1, 1, seed=3))))), axis=[2, 3]))
        return emit(op.add(emit(op.matmul(y, const(4, 5, seed=4)), "dense"), const(5, seed=5)))

    return apply(passes.FuseConvRelu(), graph(build, x=(1, 3, 9, 8)))


def quantized(mod, data, weight="int8"):
    assignment = {str(v.name): ("int8", weight) for v in layers(mod, mod["main"])}
    if weight == "int4":
        assignment["depthwise"] = ("int8", "int8")  # the target's only pair
    return apply(passes.InsertQDQ(TARGET, stats_of(mod, data), assignment=assignment), mod)


def integer_means(qdq, data):
    """The mean accumulator of each layer in real units, from windows and products of its own."""
    integer, tensors = apply(passes.LowerToInteger(TARGET), qdq), []
    for sample in data:
        tensors_of: dict = {}
        Interpreter(integer).run(sample, lambda _, o, value, seen=tensors_of: seen.update({o: value}))
        tensors.append(tensors_of)
    found, named = {}, origins(integer["main"])
    for var, value in bindings(integer["main"]):
        kind = integer_operator(integer, value)
        if isinstance(kind, Conv2d | Dense):
            x, *constants = value.args[1].fields
            w, bias = (constant(c).astype(np.int64) for c in constants[:2])
            total = [accumulate(kind, seen[named[x]].astype(np.int64), w) + bias for seen in tensors]
            mean = np.concatenate([t.reshape(-1, len(bias)) for t in total]).mean(axis=0)
            found[named[var].label] = mean
    return found


def accumulate(kind, x, w):
    """sum x * w by plain loops over the taps: [pixels, O]."""
    if isinstance(kind, Dense):
        return x @ w.T
    top, left, bottom, right = kind.padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=kind.in_zero_point)
    o, kh, kw, i = w.shape
    (sh, sw), (dh, dw), g = kind.strides, kind.dilation, kind.groups
    height = (x.shape[1] - dh * (kh - 1) - 1) // sh + 1
    width = (x.shape[2] - dw * (kw - 1) - 1) // sw + 1
    out = np.zeros((height, width, o), np.int64)
    for y in range(height):
        for z in range(width):
            window = x[0, y * sh : y * sh + dh * kh : dh, z * sw : z * sw + dw * kw : dw]
            for c in range(o):
                first = c // (o // g) * i
                out[y, z, c] = (window[:, :, first : first + i] * w[c]).sum()
    return out


def units(qdq):
    """The real value of one step of each layer's accumulator."""
    values = dict(bindings(qdq["main"]))
    found = {}
    for var, value in values.items():
        if len(getattr(value, "args", ())) > 1 and constant_weight(values, value):
            data, weight = values[value.args[0]], values[value.args[1]]
            found[labels(qdq)[var]] = constant(data.args[1]) * constant(weight.args[1]).astype(np.float64)
    return found


def constant_weight(values, value):
    weight = values.get(value.args[1])
    return weight is not None and len(getattr(weight, "args", ())) and constant(weight.args[0]) is not None


def float_means(mod, data):
    """The mean of every layer before its clamp: the same layers without their clamps, fed as they were."""
    func, found = mod["main"], {}
    for var, unit in layers(mod, func).items():
        rows = []
        for sample in data:
            seen = tensors(mod, sample)
            x = relax.Var("x", unit.args[0].ty)
            builder = relax.BlockBuilder()
            with builder.function("main", [x]):
                call = relax.Call(unit.head.op, [x, unit.args[1]], unit.head.attrs, unit.head.ty_args)
                builder.emit_func_output(builder.emit(call))
            (y,) = Interpreter(builder.get()).run({"x": seen[labels(mod)[unit.args[0]]]})
            rows.append(np.moveaxis(y, 1, -1).reshape(-1, y.shape[1]))
        bias = 0 if unit.bias is None else unit.bias
        found[labels(mod)[var]] = np.concatenate(rows).astype(np.float64).mean(axis=0) + bias
    return found


@pytest.mark.parametrize("weight", ["int8", "int4"])
def test_means_equal_those_in_float(weight):
    mod = net()
    data = samples(mod, 6)
    qdq = quantized(mod, data, weight)
    corrected = apply(passes.CorrectBias(mod, data, TARGET), qdq)
    wanted, step = float_means(mod, data), units(qdq)
    before, after = integer_means(qdq, data), integer_means(corrected, data)
    assert set(after) == {"stem", "depthwise", "grouped", "dense"}
    for name, mean in after.items():
        unit = step[name] / (16 if weight == "int4" and name != "depthwise" else 1)
        error = np.abs(mean * unit - wanted[name])
        assert np.all(error <= unit * 0.501 + 1e-6 * np.abs(wanted[name]).max()), name
        assert error.max() < np.abs(before[name] * unit - wanted[name]).max()


def test_spoiled_biases_are_repaired():
    mod = net()
    data = samples(mod, 4)
    qdq = quantized(mod, data)

    def spoil(r, var, value):
        new = r.keep(value)
        if r.origin in (Origin("stem"), Origin("dense")):
            bias = constant(value.args[2])
            new = relax.Call(
                new.op, [*new.args[:2], relax.const(bias + np.float32(0.2)), *new.args[3:]], new.attrs
            )
        return new

    spoiled = rewrite(qdq, spoil)
    good, repaired = (apply(passes.CorrectBias(mod, data, TARGET), m) for m in (qdq, spoiled))
    assert np.abs(integer_means(spoiled, data)["stem"] - integer_means(qdq, data)["stem"]).max() > 10
    for name, mean in integer_means(repaired, data).items():
        np.testing.assert_allclose(mean, integer_means(good, data)[name], atol=1.01)


def test_layers_between_other_operators_are_corrected():
    mod = apply(passes.FuseConvRelu(), apply(passes.FoldBatchNorm(), network()))
    data = samples(mod, 4)
    qdq = quantized(mod, data)
    corrected = apply(passes.CorrectBias(mod, data, TARGET), qdq)
    wanted, step = float_means(mod, data), units(qdq)
    for name, mean in integer_means(corrected, data).items():
        assert np.all(np.abs(mean * step[name] - wanted[name]) <= step[name] * 0.501 + 1e-5), name


def test_no_more_samples_are_read_than_are_held(monkeypatch):
    from hwptq.passes import correct_bias

    mod = net()
    data = samples(mod, 3)
    qdq = quantized(mod, data)
    monkeypatch.setattr(correct_bias, "SAMPLES", 3)

    class Endless:
        def __iter__(self):
            return (data[k % 3] for k in count())

    few, endless = (apply(passes.CorrectBias(mod, d, TARGET), qdq) for d in (data, Endless()))
    for name, mean in integer_means(endless, data).items():
        assert np.array_equal(mean, integer_means(few, data)[name])


def test_a_layer_left_in_float_stays_as_it_is():
    mod = net()
    data = samples(mod, 3)
    qdq = apply(passes.InsertQDQ(TARGET, stats_of(mod, data), exclude="depthwise"), mod)
    corrected = apply(passes.CorrectBias(mod, data, TARGET), qdq)
    assert set(integer_means(corrected, data)) == {"stem", "grouped", "dense"}
