"""The benchmark: which layers, checked how, timed how, and what it makes of the figures."""

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

import oracle
from tconv.__main__ import main
from tconv.commands import CommandError, bench, whole
from tconv.commands.bench import cpu, memory, peers, samples, suite, timing, truth
from tconv.commands.bench.measure import Plan, measure
from tconv.commands.bench.peers import ONNX_RUNTIME, PYTORCH, REFERENCE, TCONV, Contender, Refusal
from tconv.commands.bench.results import Results, Row, mean

report = pytest.importorskip("tconv.commands.bench.report", reason="needs rich")

SUITE = tomllib.loads((files("tconv.commands") / "suite.toml").read_text("utf-8"))["layer"]
LAYERS = {layer.name: layer for layer in suite.load(cpu=True)}
GPU_LAYERS = {layer.name: layer for layer in suite.load(cpu=False)}

SMALL = suite.Layer(
    name="small", group="test", batch=2, in_channels=4, out_channels=6, in_size=(4, 5),
    kernel_size=(3, 4), stride=(2, 3), padding=(1, 1), output_padding=(1, 2), dilation=(2, 1),
    groups=2,
)  # fmt: skip
PLAN = Plan(np.dtype(np.float32), threads=1, rounds=3, seconds=60, with_reference=False)


def answer(layer, x, weight):
    return oracle.transposed_conv(x, weight, **layer.arguments).astype(x.dtype)


def row(layer=SMALL, extra_bytes=None, **seconds):
    names = {"tconv": TCONV, "torch": PYTORCH, "onnx": ONNX_RUNTIME, "reference": REFERENCE}
    by_name = {names[key]: value for key, value in seconds.items()}
    return Row(layer, itemsize=4, seconds=by_name, extra_bytes=extra_bytes)


# --- the layers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("table", SUITE, ids=lambda table: table["name"])
def test_a_layer_has_the_sizes_that_the_suite_gives(table):
    for layers, prefix in ((GPU_LAYERS, ""), (LAYERS, "cpu_")):
        layer = layers[table["name"]]
        batch = table.get(f"{prefix}batch", table["batch"])
        in_size = table.get(f"{prefix}size", table["in_size"])
        groups = table.get("groups", 1)
        assert layer.geometry.x_shape == (batch, table["in_channels"], *in_size)
        assert layer.geometry.weight_shape == (
            table["in_channels"], table["out_channels"] // groups, *table["kernel_size"]
        )  # fmt: skip
        for name in ("stride", "padding", "output_padding", "dilation"):
            default = 0 if "padding" in name else 1
            assert list(getattr(layer, name)) == table.get(name, [default] * len(in_size))


@pytest.mark.parametrize(
    "table", [t for t in SUITE if "floor_fp32_us" in t], ids=lambda table: table["name"]
)
def test_operations_and_bytes_explain_the_floors_of_the_suite(table):
    geometry = GPU_LAYERS[table["name"]].geometry
    floor = max(geometry.flops / 60e12, geometry.nbytes(4) / 4.3e12)
    assert floor * 1e6 == pytest.approx(table["floor_fp32_us"], rel=0.03)


def test_a_u_net_layer_comes_out_twice_as_large():
    assert LAYERS["unet-top"].geometry.out_shape == (1, 64, 512, 512)


def test_arrays_have_the_layers_shapes_and_are_the_same_every_time():
    x, weight = suite.arrays(SMALL, np.dtype(np.float16))
    assert (x.shape, weight.shape) == ((2, 4, 4, 5), (4, 3, 3, 4))
    assert x.dtype == weight.dtype == np.float16
    assert 0.5 < x.std() < 1.5
    np.testing.assert_array_equal(suite.arrays(SMALL, np.dtype(np.float16))[0], x)


def select(names=(), groups=()):
    layers = suite.select(list(LAYERS.values()), names, groups, suite.CPU_GROUPS)
    return [layer.name for layer in layers]


def test_without_names_the_29_layers_of_a_cpu_run_are_chosen():
    assert len(select()) == 29
    assert not any(name.startswith("kernelbench") for name in select())


def test_rows_and_groups_add_up_in_the_order_of_the_suite():
    assert select(["istft-trt", "unet-top"]) == ["unet-top", "istft-trt"]
    assert select([], ["volume"]) == ["nnunet-top", "nnunet-deep", "nnunet-aniso", "monai-3d"]
    assert select(["unet-top"], ["volume"]) == [
        "unet-top", "nnunet-top", "nnunet-deep", "nnunet-aniso", "monai-3d",
    ]  # fmt: skip


@pytest.mark.parametrize("most", [10, 1000, 10**5, 10**9])
def test_a_layer_for_the_reference_is_as_large_as_its_limit_allows(most):
    smaller = suite.shrink(SMALL, most)
    if smaller is None:
        least = replace(SMALL, batch=1, in_size=(1, 1))
        assert suite.reference_products(least) > most
    else:
        assert smaller.batch == 1
        assert suite.reference_products(smaller) <= most
        assert replace(smaller, batch=2, in_size=(4, 5)) == SMALL


def test_the_references_products_are_those_of_the_correlation():
    # 4 / 2 input channels, 6 output channels, an item of 4 x 5: zeros make it 7 x 13, the kernel
    # is 5 x 4 with the zeros between its taps, and the full result is 11 x 16.
    layer = replace(SMALL, batch=1)
    assert suite.reference_products(layer) == 2 * 6 * (11 * 16) * (5 * 4)


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        SMALL,
        replace(SMALL, in_size=(7,), kernel_size=(2,), stride=(3,), padding=(0,),
                output_padding=(2,), dilation=(1,)),
        replace(SMALL, in_size=(2, 3, 2), kernel_size=(3, 3, 1), stride=(1, 2, 2),
                padding=(1, 1, 0), output_padding=(0, 1, 0), dilation=(1, 1, 1)),
    ],
    ids=["2-D", "1-D", "3-D"],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_right_answer_is_accepted(layer, dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    x, weight = suite.arrays(layer, suite.as_dtype(dtype))
    right = answer(layer, x, weight)
    assert truth.mistakes(layer, (x, weight), {"somebody": [(right,)]}) == {}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_an_answer_is_refused_if_one_output_is_off_by_more_than_rounding(dtype):
    x, weight = suite.arrays(SMALL, np.dtype(dtype))
    wrong = answer(SMALL, x, weight)
    where = (1, 5, 2, 3)
    wrong[where] += 64 * np.finfo(dtype).eps * np.abs(wrong).max()
    found = truth.mistakes(SMALL, (x, weight), {"somebody": [(wrong,)]})
    assert found["somebody"].startswith(
        "is off by more than rounding explains at 1 of 960 outputs of item 1, first at (5, 2, 3): "
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_answer_may_be_off_by_what_rounding_explains_and_not_by_three_times_that(dtype):
    x, weight = suite.arrays(SMALL, np.dtype(dtype))
    exact = oracle.transposed_conv(x, weight, **SMALL.arguments)
    terms = 2 * 3 * 2  # channels of a group, and taps that one output reaches along each axis
    sizes = oracle.transposed_conv(np.abs(x), np.abs(weight), **SMALL.arguments)
    bound = (terms + 2) * np.finfo(dtype).eps / 2 * sizes
    assert truth.mistakes(SMALL, (x, weight), {"a": [(exact + bound / 2,)]}) == {}
    assert "a" in truth.mistakes(SMALL, (x, weight), {"a": [(exact + 3 * bound,)]})


def test_rounding_to_half_precision_is_no_float32_answer():
    x, weight = suite.arrays(SMALL, np.dtype(np.float32))
    coarse = answer(SMALL, x, weight).astype(np.float16).astype(np.float32)
    assert "somebody" in truth.mistakes(SMALL, (x, weight), {"somebody": [(coarse,)]})


def test_nan_is_a_mistake():
    x, weight = suite.arrays(SMALL, np.dtype(np.float32))
    unwritten = answer(SMALL, x, weight)
    unwritten[0, 0, 0, 0] = np.nan
    assert "nan instead of" in truth.mistakes(SMALL, (x, weight), {"a": [(unwritten,)]})["a"]


def test_a_wrong_shape_is_a_mistake():
    x, weight = suite.arrays(SMALL, np.dtype(np.float32))
    cropped = answer(SMALL, x, weight)[:, :, 1:]
    found = truth.mistakes(SMALL, (x, weight), {"a": [(cropped,)]})
    assert found == {"a": "has shape (2, 6, 9, 16) instead of (2, 6, 10, 16)"}


LAYERS_LIKE_SMALL = [
    SMALL,
    replace(SMALL, padding=(3, 0), output_padding=(0, 0)),
    replace(SMALL, in_size=(7,), kernel_size=(2,), stride=(3,), padding=(0,), output_padding=(2,),
            dilation=(1,)),
    replace(SMALL, in_size=(2, 3, 2), kernel_size=(3, 3, 1), stride=(1, 2, 2), padding=(1, 1, 0),
            output_padding=(0, 1, 0), dilation=(1, 1, 1)),
]  # fmt: skip


def everywhere(array):
    return tuple(axis.ravel() for axis in np.indices(array.shape))


@pytest.mark.parametrize("layer", LAYERS_LIKE_SMALL, ids=lambda layer: f"{layer.in_size}")
def test_samples_are_the_elements_of_outputs_and_gradients(layer):
    grad_output, x, weight = suite.gradient_arrays(layer, np.dtype(np.float64))
    spelling = {"groups": layer.groups, "stride": layer.stride, "padding": layer.padding,
                "output_padding": layer.output_padding, "dilation": layer.dilation}  # fmt: skip
    right = {
        "output": oracle.transposed_conv(x, weight, **spelling),
        "grad_x": oracle.adjoint(grad_output, weight, layer.in_size, **spelling),
        "grad_weight": np.array([
            np.vdot(oracle.transposed_conv(x, one.reshape(weight.shape), **spelling), grad_output)
            for one in np.eye(weight.size)
        ]),
        "grad_bias": grad_output.sum((0, *range(2, grad_output.ndim))),
    }  # fmt: skip
    found = {
        "output": samples.outputs(layer, x, weight, everywhere(right["output"])),
        "grad_x": samples.grad_x(layer, grad_output, weight, everywhere(x)),
        "grad_weight": samples.grad_weight(layer, grad_output, x, everywhere(weight)),
        "grad_bias": samples.grad_bias(grad_output),
    }
    for name, (sums, sizes, terms) in found.items():
        np.testing.assert_allclose(sums, right[name].ravel(), rtol=0, atol=1e-12)
        assert (sizes >= np.abs(sums) - 1e-12).all()
        assert terms.max() > 1
    # All are made of the same products.
    assert len({found[name][2].sum() for name in ("output", "grad_x", "grad_weight")}) == 1


@pytest.mark.parametrize("wrong", range(3), ids=["grad_x", "grad_weight", "grad_bias"])
def test_a_gradient_with_a_wrong_corner_is_refused(wrong):
    arrays = suite.gradient_arrays(SMALL, np.dtype(np.float32))
    gradients = peers.our_gradients(SMALL, arrays, 1).answer()
    assert samples.gradient_mistakes(SMALL, arrays, {"a": [gradients]}) == {}
    gradients[wrong].flat[-1] += 1e-2
    found = samples.gradient_mistakes(SMALL, arrays, {"a": [gradients]})["a"]
    name = ("grad_x", "grad_weight", "grad_bias")[wrong]
    assert f"places of {name}, first at {tuple(n - 1 for n in gradients[wrong].shape)}: " in found


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, 0.1])
def test_a_sampled_output_that_is_off_is_refused_and_tf32_has_its_own_limit(spoilt):
    arrays = suite.arrays(SMALL, np.dtype(np.float32))
    right = answer(SMALL, *arrays)
    coarse = right * np.float32(1 + 2**-12)
    assert samples.output_mistakes(SMALL, arrays, {"a": [(right,)]}) == {}
    assert "a" in samples.output_mistakes(SMALL, arrays, {"a": [(coarse,)]})
    assert samples.output_mistakes(SMALL, arrays, {"a": [(coarse,)]}, tf32=True) == {}
    right[0, 0, 0, 0] += spoilt
    assert "a" in samples.output_mistakes(SMALL, arrays, {"a": [(right,)]}, tf32=True)


def asked(arrays, dtype):
    """Return arrays to ask PyTorch with: it rounds partial sums of bfloat16 on some processors.

    Of plus and minus one they are whole numbers, and exact.
    """
    if dtype != "bfloat16":
        return arrays
    return tuple(np.sign(array.astype(np.float32)).astype(array.dtype) for array in arrays)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_pytorch_is_asked_for_the_same_gradients(dtype):
    pytest.importorskip("torch")
    arrays = asked(suite.gradient_arrays(SMALL, suite.as_dtype(dtype)), dtype)
    answers = {PYTORCH: [peers.pytorch_gradients(SMALL, arrays, threads=1).answer()]}
    assert samples.gradient_mistakes(SMALL, arrays, answers) == {}


class Actor:
    """A contender that answers what it is told to, and counts its runs."""

    def __init__(self, spoil=None, poison=None, refuse=None):
        self.spoil, self.poison, self.refuse, self.runs = spoil, poison, refuse, 0

    def __call__(self, layer, arrays, *_):
        if self.refuse:
            raise Refusal(self.refuse)
        right = answer(layer, *arrays)
        if self.spoil:
            right[0, 0, 0, 0] += self.spoil

        def run():
            self.runs += 1
            return right

        return Contender(run, answer_in_poison=self.poison and (lambda: (right * self.poison,)))


def test_a_wrong_answer_is_never_timed():
    good, bad = Actor(), Actor(spoil=1)
    measured = measure(SMALL, {"good": good, "bad": bad}, PLAN, deadline=0)
    assert set(measured.seconds) == {"good"}
    assert "bad" in measured.mistakes
    assert bad.runs == 1
    assert good.runs > 1


def test_an_output_that_stays_unwritten_is_never_timed():
    measured = measure(SMALL, {TCONV: Actor(poison=np.nan)}, PLAN, deadline=0)
    assert measured.seconds == {}
    assert TCONV in measured.mistakes


def test_a_refusal_is_kept_with_its_reason():
    contenders = {"good": Actor(), "picky": Actor(refuse="no groups today")}
    measured = measure(SMALL, contenders, PLAN, deadline=0)
    assert measured.refusals == {"picky": "no groups today"}
    assert set(measured.seconds) == {"good"}


def test_what_a_library_raises_becomes_its_refusal():
    def run():
        raise RuntimeError("\n  first line\nsecond line")

    with pytest.raises(Refusal, match=r"^first line$"):
        Contender(run).answer()


def test_tconv_and_its_reference_are_measured_for_what_they_are():
    contenders = {TCONV: peers.ours, REFERENCE: peers.reference}
    measured = measure(SMALL, contenders, replace(PLAN, rounds=1), deadline=0)
    assert set(measured.seconds) == {TCONV, REFERENCE}
    assert measured.mistakes == measured.refusals == {}


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_pytorch_is_asked_the_same_question(dtype):
    pytest.importorskip("torch")
    x, weight = asked(suite.arrays(SMALL, suite.as_dtype(dtype)), dtype)
    contender = peers.pytorch(SMALL, (x, weight), threads=1)
    assert truth.mistakes(SMALL, (x, weight), {PYTORCH: [contender.answer()]}) == {}


@pytest.mark.onnx
def test_onnx_runtime_is_asked_the_same_question():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    layer = replace(SMALL, output_padding=(1, 1), dilation=(1, 1))
    x, weight = suite.arrays(layer, np.dtype(np.float32))
    contender = peers.onnx_runtime(layer, (x, weight), threads=1)
    assert truth.mistakes(layer, (x, weight), {ONNX_RUNTIME: [contender.answer()]}) == {}


@pytest.mark.onnx
def test_what_onnx_runtime_cannot_do_it_refuses():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    x, weight = suite.arrays(SMALL, np.dtype(np.float64))
    with pytest.raises(Refusal, match="NOT_IMPLEMENTED"):
        peers.onnx_runtime(SMALL, (x, weight), threads=1)


# --- times and memory ---------------------------------------------------------------------------


@pytest.fixture
def order(monkeypatch):
    """Let every turn be one call, and keep the order of the calls."""
    monkeypatch.setattr(timing, "TURN", 0)
    return []


def test_contenders_take_turns(order):
    runs = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = timing.alternate(runs, rounds=3, deadline=float("inf"))
    assert order == ["a", "b"] * 4  # a round to warm up
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}


def test_a_deadline_leaves_one_round(order):
    seconds = timing.alternate({"a": lambda: order.append("a")}, rounds=9, deadline=0)
    assert len(seconds["a"]) == 1


def test_a_turn_of_a_quick_call_is_several_calls(monkeypatch):
    clock = itertools.count(step=0.001)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    calls = []
    seconds = timing.alternate({"a": lambda: calls.append("a")}, rounds=2, deadline=float("inf"))
    assert seconds["a"] == pytest.approx([0.001 / 20] * 2)
    assert len(calls) == 1 + 2 * 20  # of a millisecond each


def test_rows_that_no_time_is_left_for_are_listed():
    started = []
    results = cpu.run([SMALL, LAYERS["sam-1"]], replace(PLAN, seconds=-1), started.append)
    assert results.rows == []
    assert results.not_run == started == ["small", "sam-1"]
    assert "not run, for want of time: small, sam-1" in report.remarks(results, PLAN)


def test_a_peer_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(peers, "missing_packages", lambda *_: ["this", "that"])
    results = cpu.run([], PLAN, print)
    assert results.notes == [
        "PyTorch is not timed: this and that not installed",
        "ONNX Runtime is not timed: this and that not installed",
    ]


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's VmHWM")


@linux_only
def test_extra_memory_counts_what_a_call_allocates_beyond_its_arrays():
    code = (
        "import numpy, tconv, tconv.commands.bench.memory as memory\n"
        "from tconv.commands.bench.suite import load\n"
        "layer = next(layer for layer in load(cpu=True) if layer.name == 'istft-torch')\n"
        "def verb(x, weight, *, out, **arguments):\n"
        "    buffer = numpy.ones(40 << 20, numpy.uint8)\n"
        "    out += 1\n"
        "tconv.transposed_conv1d = verb\n"
        "print(memory._measure(layer, 'float32'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 39 <= int(run.stdout) / 2**20 < 44  # Linux counts pages in batches


@linux_only
def test_extra_memory_is_measured_in_a_process_of_its_own():
    assert 1 << 20 < memory.extra_bytes(LAYERS["istft-torch"], "float32") < 64 << 20


def test_extra_memory_is_unknown_where_the_system_keeps_no_peak(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "win32")
    assert memory.extra_bytes(SMALL, "float32") is None


# --- figures ------------------------------------------------------------------------------------


def test_a_rows_time_is_the_median_of_its_rounds():
    assert row(tconv=[3.0, 1.0, 8.0]).time(TCONV) == 3.0


def test_ratios_are_tconvs_time_over_the_others():
    both = row(tconv=[6.0], torch=[3.0], onnx=[4.0])
    assert both.ratio(PYTORCH) == 2.0
    assert both.ratio(ONNX_RUNTIME) == 1.5
    assert both.ratio(PYTORCH, ONNX_RUNTIME) == 2.0  # PyTorch is the better one


def test_a_ratio_without_one_of_the_two_is_none():
    assert row(torch=[3.0]).ratio(PYTORCH) is None
    assert row(tconv=[3.0]).ratio(PYTORCH, ONNX_RUNTIME) is None


def test_rates_count_useful_operations_and_compulsory_bytes():
    timed = row(tconv=[0.5])
    assert timed.flops_per_second == 2 * SMALL.geometry.flops
    sizes = 2 * 4 * 4 * 5 + 4 * 3 * 3 * 4 + 2 * 6 * 10 * 16
    assert timed.bytes_per_second == 2 * 4 * sizes


def test_the_geometric_mean_leaves_out_what_is_not_there():
    assert mean([2.0, None, 8.0]) == pytest.approx(4.0)
    assert mean([None]) is None


def test_the_summary_is_of_all_rows_and_the_reference_of_those_with_two_axes():
    one_axis = LAYERS["hifigan-1"]
    results = Results(
        rows=[
            row(tconv=[2.0], torch=[1.0], onnx=[4.0], extra_bytes=10),
            row(tconv=[1.0], torch=[8.0], onnx=[2.0], extra_bytes=30),
            row(tconv=[1.0]),
        ],
        reference_rows=[
            row(tconv=[1.0], reference=[10.0]),
            row(tconv=[1.0], reference=[1000.0]),
            row(one_axis, tconv=[1.0], reference=[1e9]),
        ],
    )
    summary = results.summary()
    assert summary["ratio_to_pytorch"] == pytest.approx(0.5)  # of 2 and 1/8
    assert summary["ratio_to_better_peer"] == pytest.approx(1.0)  # of 2 and 1/2
    assert summary["times_faster_than_reference_2d"] == pytest.approx(100.0)
    assert summary["largest_extra_bytes"] == 30


def test_forward_plus_gradients_is_compared_by_the_sum_of_both_times(capsys):
    results = Results(
        rows=[row(tconv=[0.001], torch=[0.003], onnx=[0.001]), row(tconv=[0.002])],
        gradient_rows=[row(tconv=[0.004], torch=[0.002]), row(tconv=[0.001], torch=[0.001])],
    )
    summary = results.summary()
    assert summary["gradients_ratio_to_pytorch"] == pytest.approx(2**0.5)  # of 2 and 1
    assert summary["training_ratio_to_pytorch"] == pytest.approx(1.0)  # of (1 + 4) / (3 + 2)
    report.print_tables(results, PLAN)
    table = capsys.readouterr().out.split("gradients of x, weight and bias")[1]
    assert table_row(table, "small") == ["4.00", "2.00", "2.00", "1.00"]
    assert table_row(table, "geometric mean") == ["1.41", "1.00"]


def test_gradients_are_measured_where_they_are_asked_for():
    results = cpu.run([SMALL], replace(PLAN, rounds=1, with_gradients=True), lambda _: None)
    [measured] = results.gradient_rows
    assert TCONV in measured.seconds
    assert measured.mistakes == measured.refusals == {}
    assert cpu.run([], PLAN, print).gradient_rows == []


def test_only_a_mistake_of_tconv_itself_makes_a_run_fail():
    peer_wrong, ours_wrong, ours_failed = row(), row(), row()
    peer_wrong.mistakes[PYTORCH] = "is off"
    ours_wrong.mistakes[TCONV] = "is off"
    ours_failed.refusals[TCONV] = "out of memory"
    assert Results([peer_wrong]).all_right
    assert not Results([ours_wrong]).all_right
    assert not Results([], [ours_failed]).all_right


def test_remarks_say_why_a_figure_is_missing_or_weak():
    one = row(tconv=[1.0, 1.0])
    one.refusals[PYTORCH] = "no such dtype"
    one.mistakes[ONNX_RUNTIME] = "is off"
    assert report.remarks(Results([one]), PLAN) == [
        "small: PyTorch refuses: no such dtype",
        "small: ONNX Runtime is off",
        "fewer than 3 rounds, for want of time: small 2",
    ]


def table_row(text, name):
    return re.search(rf"^ *{name} +(.*?) *$", text, re.MULTILINE)[1].split()


def test_json_holds_what_the_tables_show(capsys, tmp_path):
    results = Results(
        rows=[row(tconv=[0.002], torch=[0.004], onnx=[0.001], extra_bytes=3 << 20)],
        reference_rows=[row(replace(SMALL, in_size=(2, 3)), tconv=[0.001], reference=[0.5])],
    )
    report.print_tables(results, PLAN)
    main_table, reference_table = capsys.readouterr().out.split("against zero insertion")
    path = tmp_path / "bench.json"
    with path.open("w") as file:
        report.write_json(file, results, PLAN)
    data = json.loads(path.read_text())

    one = data["rows"][0]
    shown = [
        one["median_seconds"][TCONV] * 1e3,
        one["flops_per_second"] / 1e9,
        one["bytes_per_second"] / 1e9,
        one["median_seconds"][PYTORCH] * 1e3,
        one["median_seconds"][ONNX_RUNTIME] * 1e3,
        one["ratio_to_better_peer"],
        one["ratio_to_pytorch"],
        one["extra_bytes"] / 2**20,
    ]
    cells = table_row(main_table, "small")
    assert [float(cell) for cell in cells] == pytest.approx(shown, abs=0.051)
    assert cells[0] == "2.00"
    assert cells[-3:] == ["2.00", "0.50", "3.0"]
    assert table_row(main_table, "geometric mean, largest")[-3:] == ["2.00", "0.50", "3.0"]
    assert table_row(reference_table, "small") == [
        "2", "2", "x", "3", "1.00", "500.00", "500.0",
    ]  # fmt: skip
    assert table_row(reference_table, "geometric mean of 2-D rows") == ["500.0"]
    assert data["summary"]["times_faster_than_reference_2d"] == pytest.approx(500)
    assert data["threads"] == 1
    assert data["dtype"] == "float32"
    assert {"tconv", "Python", "NumPy"} <= data["versions"].keys()


def test_the_table_shows_a_dash_for_what_was_not_measured(capsys):
    report.print_tables(Results([row(tconv=[0.002])]), PLAN)
    assert table_row(capsys.readouterr().out, "small")[-5:] == ["-"] * 5


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_a_checkout_which_holds_the_code(monkeypatch, tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    code = tmp_path / "report.py"
    code.write_text("")
    monkeypatch.setattr(report, "PACKAGE", tmp_path)
    monkeypatch.setattr(report, "__file__", str(code))
    assert report.commit() is None
    git("init")
    git("commit", "--allow-empty", "--message", "none of the code")
    assert report.commit() is None
    git("add", "report.py")
    git("commit", "--message", "all")
    head = git("rev-parse", "HEAD").stdout.strip()
    assert report.commit() == head
    code.write_text("changed")
    assert report.commit() == f"{head}-dirty"


# --- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such"], "there is no row 'no-such'; the rows are unet-deep, unet-top, "),
        (["--group", "fish"], "there is no group 'fish'; the groups are segmentation, generation, "
         "volume, audio, kernelbench\n"),
        (["--dtype", "int32"], "there is no dtype 'int32' here; the dtypes are float16, bfloat16, "
         "float32, float64\n"),
        (["--threads", "1000000"], "--threads 1000000 is more than the "),
        (["--json", "no/such/folder/x"],
         "cannot write --json no/such/folder/x: No such file or directory\n"),
        (["--gpu"], "cannot measure on the GPU: "),
        (["--gpu", "--dtype", "int8"], "there is no dtype 'int8' here; the dtypes are float32, "
         "tf32, tf32x3, float16, bfloat16, float64\n"),
        (["--dtype", "float32", "--dtype", "float64"],
         "--dtype float32 and float64: a run on the CPU takes one\n"),
        *(
            ([*where, f"--{option}", *value], f"--{option} has no effect {what}; leave it out\n")
            for where, what, options in [
                ([], "on the CPU", {"pictures": ["."]}),
                (["--cpu"], "on the CPU", {"pictures": ["."]}),
                (["--gpu"], "with --gpu", {"reference": [], "threads": ["1"]}),
                (["--prepare", "90"], "with --prepare",
                 {"cpu": [], "reference": [], "rounds": ["1"], "seconds": ["1"], "threads": ["1"],
                  "json": ["x"], "pictures": ["."]}),
                (["--gpu", "--prepare", "90"], "with --prepare", {"threads": ["1"]}),
            ]
            for option, value in options.items()
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_wrong_argument_is_one_line_and_status_2_before_any_work(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith(f"tconv: {message}")
    assert error.count("\n") == 1


def test_a_missing_extra_is_one_line_that_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(bench, "find_spec", lambda *_: None)
    assert main(["bench"]) == 2
    assert capsys.readouterr().err == "tconv: bench needs rich; pip install 'tconv[bench]'\n"


def test_bfloat16_without_ml_dtypes_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(CommandError, match=re.escape("pip install 'tconv[bfloat16]'")):
        suite.as_dtype("bfloat16")


def test_measuring_begins_in_a_process_whose_thread_pools_do_not_spin(monkeypatch):
    called = []
    monkeypatch.setattr(
        bench.subprocess, "call", lambda command, env: called.append((command, env)) or 7
    )
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert main(["bench", "sam-1", "--threads", "1"]) == 7
    [(command, environment)] = called
    assert command == [sys.executable, "-m", "tconv", "bench", "sam-1", "--threads", "1"]
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["OPENBLAS_THREAD_TIMEOUT"] == "4"
    assert environment["TCONV_NUM_THREADS"] == environment["OMP_NUM_THREADS"] == "1"
    assert environment["PATH"] == os.environ["PATH"]


def test_a_run_prints_its_rows_and_writes_them(tmp_path):
    path = tmp_path / "bench.json"
    arguments = ["bench", "depthwise-47341", "--rounds", "1", "--threads", "1", "--json", str(path)]
    run = subprocess.run(
        [sys.executable, "-m", "tconv", *arguments], capture_output=True, text=True, check=True
    )
    [measured] = json.loads(path.read_text())["rows"]
    assert measured["layer"]["in_size"] == list(LAYERS["depthwise-47341"].in_size)
    milliseconds = measured["median_seconds"][TCONV] * 1e3
    assert table_row(run.stdout, "depthwise-47341")[0] == f"{milliseconds:.2f}"


def test_a_path_is_tried_without_leaving_a_file(monkeypatch, tmp_path):
    path = tmp_path / "bench.json"
    monkeypatch.setattr(bench.subprocess, "call", lambda *_, **__: 7)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert main(["bench", "sam-1", "--json", str(path)]) == 7
    assert not path.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_file_that_is_full_is_one_line_after_the_tables(monkeypatch, capsys):
    monkeypatch.setattr(cpu, "environment", lambda _: {})
    monkeypatch.setattr(cpu, "run", lambda *_: Results([row(tconv=[1e-3])]))
    assert main(["bench", "sam-1", "--json", "/dev/full"]) == 2
    output, error = capsys.readouterr()
    assert table_row(output, "small")[0] == "1.00"
    assert error.endswith("tconv: cannot write --json /dev/full: No space left on device\n")


def test_whole_numbers_are_asked_for():
    assert whole("12") == 12
    for text in ("0", "-1", "1.5", "many"):
        with pytest.raises(argparse.ArgumentTypeError, match=re.escape(repr(text))):
            whole(text)
