"""The benchmark on a GPU: its rows, tables and pictures, on a machine that only counts."""

import json
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import tconv
from standin import Recorder
from tconv.__main__ import main
from tconv.commands import CommandError
from tconv.commands.bench import cuda as cuda_device
from tconv.commands.bench import gpu, on_gpu, peers, samples, suite, timing
from tconv.commands.bench.peers import Contender
from tconv.gpu import launch
from test_bench import GPU_LAYERS, PLAN, SMALL, report, table_row


class Machine:
    """A device that counts, not measures: its clock takes what a contender says it takes."""

    capability = 90

    def __init__(self):
        self.spoilt, self.asked = set(), []

    def facts(self):
        return {"device": "a card"}

    def ceilings(self, variants):
        return {"copy": 4e12, **dict.fromkeys(variants, 60000000000000.0)}

    def seconds(self, run, calls):
        for _ in range(calls):
            run()
        return run.seconds

    def contenders(self, layer, variant, *, gradients):
        self.asked.append((layer.name, variant, gradients))
        times = {"tconv NCHW": 4e-5, "tconv layer NCHW": 2e-5, "tconv layer channels last": 3e-5,
                 "PyTorch NCHW": 9e-5, "PyTorch channels last tuned": 6e-5}  # fmt: skip
        make = peers.our_gradients if gradients else peers.ours
        return {name: self.contender(name, make, seconds) for name, seconds in times.items()}

    def contender(self, name, make, seconds):
        def factory(layer, arrays, threads):
            found = make(layer, arrays, threads)

            def run():
                result = found.run()
                if name in self.spoilt:
                    result[...] = np.nan
                return result

            run.seconds = seconds
            return Contender(run)

        return factory


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(timing, "TURN", 0)
    return replace(PLAN, rounds=1)


def measured_on(machine, plan, variants=("float32",), results=None, layers=(SMALL,), keep=None):
    results = results or gpu.GpuResults(machine.facts(), machine.ceilings(variants))
    gpu.run(layers, variants, plan, machine, results, keep or (lambda _: None))
    return results


def test_a_gpu_row_compares_the_best_modes(quick):
    results = measured_on(Machine(), quick)
    [one] = results.rows
    assert one.best("tconv") == (4e-5, "NCHW")
    assert one.best("tconv layer") == (2e-5, "NCHW")
    assert one.best("PyTorch") == (6e-5, "channels last tuned")
    assert one.ratio_to_best_peer() == pytest.approx(3)
    assert results.mean("float32") == pytest.approx(3)
    g = SMALL.geometry
    assert one.floor(results.ceilings) == max(g.flops / 6e13, g.nbytes(4) / 4e12)
    choice = gpu.plan_of(SMALL, "float32", 90, channels_last=False).choice
    assert one.kernel == f"{choice.specialisation.kernel} {choice.tile or ''}".rstrip()
    assert results.all_right


def test_a_wrong_answer_on_the_gpu_is_not_timed_and_fails_the_run(quick):
    machine = Machine()
    machine.spoilt = {"PyTorch NCHW"}
    results = measured_on(machine, quick)
    assert "PyTorch NCHW" not in results.rows[0].seconds
    assert results.all_right
    machine.spoilt = {"tconv layer NCHW"}
    results = measured_on(machine, quick)
    assert "tconv layer NCHW" not in results.rows[0].seconds
    assert not results.all_right


@pytest.mark.parametrize("where", ["making", "poison"])
def test_who_fails_before_a_row_is_timed_refuses_it_and_the_others_are_timed(quick, where):
    def fails(*_):
        raise MemoryError("out of memory\nsomewhere")

    def factory(layer, arrays, threads):
        if where == "making":
            fails()
        contender = peers.ours(layer, arrays, threads)
        return replace(contender, answer_in_poison=fails)

    machine = Machine()
    whole = machine.contenders(SMALL, "float32", gradients=False)
    machine.contenders = lambda *_, **__: {**whole, "PyTorch NCHW": factory}
    [row] = measured_on(machine, quick).rows
    assert row.refusals == {"PyTorch NCHW": "out of memory"}
    assert set(row.seconds) == set(whole) - {"PyTorch NCHW"}


def test_each_variant_is_a_row_and_gradients_come_last(quick):
    machine = Machine()
    plan = replace(quick, with_gradients=True)
    results = measured_on(machine, plan, ("float32", "tf32x3", "float16"))
    assert [row.key for row in results.rows] == machine.asked == [
        ("small", "float32", False), ("small", "tf32x3", False), ("small", "float16", False),
        ("small", "float32", True), ("small", "float16", True),
    ]  # fmt: skip
    assert results.rows[2].itemsize == 2
    assert results.rows[3].floor(results.ceilings) is None


def test_a_run_goes_on_where_a_file_ended(quick, tmp_path):
    path = tmp_path / "gpu.json"
    facts = {"commit": None, **Machine().facts()}
    ceilings = Machine().ceilings(["float32"])
    first = measured_on(Machine(), quick, results=gpu.GpuResults(facts, ceilings),
                        keep=lambda results: on_gpu._write(path, results))  # fmt: skip
    machine = Machine()
    held = on_gpu._results(str(path), machine, ["float32"], {"commit": None})
    assert json.loads(json.dumps(held.as_dict())) == json.loads(path.read_text())
    assert held.rows == first.rows
    measured_on(machine, quick, ("float32", "float16"), held)
    assert machine.asked == [("small", "float16", False)]
    with pytest.raises(CommandError, match="holds rows of commit None, this is abc"):
        on_gpu._results(str(path), machine, ["float32"], {"commit": "abc"})


@pytest.mark.parametrize(
    "held",
    [b"\xff", b"{", b"3", b"[]", b"{}", b'{"commit": null, "device": "a card"}',
     b'{"commit": null, "device": "a card", "ceilings": {}, "rows": [{}]}',
     b'{"commit": null, "device": "a card", "ceilings": {}, "rows": [{"layer": "x"}]}'],
)  # fmt: skip
def test_a_file_of_something_else_is_left_as_it_is(held, tmp_path):
    path = tmp_path / "gpu.json"
    path.write_bytes(held)
    with pytest.raises(CommandError, match="holds no rows of a run on a GPU; name another file"):
        on_gpu._results(str(path), Machine(), ["float32"], {"commit": None})
    assert path.read_bytes() == held


def test_rows_that_no_time_is_left_for_on_the_gpu_are_listed(quick, capsys):
    results = measured_on(Machine(), replace(quick, seconds=-1), ("float32", "tf32"))
    assert results.rows == []
    assert results.not_run == ["small float32", "small tf32"]
    report.print_gpu_tables(results)
    assert "not run, for want of time: small float32, small tf32" in capsys.readouterr().out


def test_the_tables_of_a_gpu_run_show_what_was_measured(quick, capsys):
    results = measured_on(Machine(), quick, ("float32", "tf32"))
    results.rows[0].refusals["PyTorch NCHW"] = "out of memory"
    report.print_gpu_tables(results)
    first, second = capsys.readouterr().out.split("tf32 on a card")
    cells = table_row(first, "small")
    floor = results.rows[0].floor(results.ceilings)
    kernel = results.rows[0].kernel
    assert " ".join(cells).startswith(f"{kernel} 40.0 20.0 60.0 channels last tuned")
    assert cells[-2:] == [f"{floor / 2e-5:.0%}", "3.00"]
    assert "small float32: PyTorch NCHW refuses: out of memory" in second
    assert table_row(second, "geometric mean") == ["3.00"]


def test_pictures_of_a_gpu_run_are_drawn(quick, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    results = measured_on(Machine(), quick)
    on_gpu.check_pictures(str(tmp_path / "new"))
    assert not list((tmp_path / "new").iterdir())
    on_gpu.draw(results, str(tmp_path / "new"))
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"roofline-float32.png", "ratios-float32.png"}
    said = capsys.readouterr().out
    assert all(name in said for name in names)


def test_a_folder_for_pictures_that_cannot_be_is_told_before_the_work(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    monkeypatch.setattr(on_gpu.tconv_gpu, "why_not", lambda: None)
    monkeypatch.setattr(cuda_device, "Cuda", lambda: pytest.fail("the work has begun"))
    for folder, reason in (("file", "File exists"), ("file/new", "Not a directory")):
        assert main(["bench", "--gpu", "--pictures", str(tmp_path / folder)]) == 2
        said = capsys.readouterr().err
        assert f"cannot write --pictures {tmp_path / folder}: {reason}" in said


def test_what_a_layer_would_run_is_known_for_every_variant():
    chosen = gpu.specialisations([SMALL, GPU_LAYERS["unet-top"]], gpu.VARIANTS, 90)
    assert {s.dtype for s in chosen} == {"float32", "float16", "bfloat16", "float64"}
    assert {name for names in chosen.values() for name in names} == {"small", "unet-top"}


ALL = sorted({SMALL, *GPU_LAYERS.values()}, key=lambda layer: layer.name)


@pytest.mark.parametrize("layer", ALL, ids=lambda layer: layer.name)
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_every_kernel_that_is_launched_is_compiled_before(layer, last):
    chosen = gpu.specialisations([layer], ["float32", "tf32", "float16"], 90, gradients=True)
    device = Recorder(capability=90)
    g = layer.geometry
    for dtype, precision in (("f4", None), ("f4", "tf32"), ("f2", None)):
        x, y, weight = (
            np.empty(shape, dtype) for shape in (g.x_shape, g.out_shape, g.weight_shape)
        )
        if last:
            x, y = (lying_last(array) for array in (x, y))
        for one in (weight, launch.packed(weight, device)):
            launch.transposed_conv(
                x, one, None, g, activation=None, precision=precision, out=None, device=device
            )
        if precision is None:
            launch.conv(y, weight, g, bias=None, out=None, device=device)
            launch.parameter_gradients(x, y, g, device=device)
    assert set(device.launched) <= set(chosen)


def lying_last(array):
    """Return memory for an array with channels nearest; nobody looks at its elements."""
    n, c, *size = array.shape
    return np.moveaxis(np.empty((n, *size, c), array.dtype), -1, 1)


@pytest.fixture
def cuda(monkeypatch):
    """A `Cuda` whose CuPy is NumPy and whose device is the CPU."""
    cupy = ModuleType("cupy")
    cupy.asarray, cupy.asnumpy, cupy.moveaxis = np.array, np.asarray, np.moveaxis
    cupy.ascontiguousarray = np.ascontiguousarray
    device = SimpleNamespace(id=0, synchronize=lambda: None)
    properties = {"name": b"a card", "major": 9, "minor": 0, "l2CacheSize": 10_000}
    runtime = SimpleNamespace(getDeviceProperties=lambda _: properties)
    cupy.cuda = SimpleNamespace(Device=lambda: device, runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cuda_device, "missing_packages", lambda _: ["torch"])
    monkeypatch.setattr(tconv.gpu, "why_not", lambda: "this is a test")
    return cuda_device.Cuda()


@pytest.mark.parametrize("variant", ["float32", "tf32", "bfloat16", "float64"])
@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "gradients"])
def test_tconv_on_a_gpu_is_asked_the_same_question_in_both_memory_orders(cuda, variant, gradients):
    dtype = suite.as_dtype("float32" if variant == "tf32" else variant)
    arrays = (suite.gradient_arrays if gradients else suite.arrays)(SMALL, dtype)
    check = samples.gradient_mistakes if gradients else samples.output_mistakes
    contenders = cuda.contenders(SMALL, variant, gradients=gradients)
    assert len(contenders) == (2 if gradients else 4)
    for name, make in contenders.items():
        contender = make(SMALL, arrays, 1)
        answers = [contender.answer() for _ in range(3)]
        if not gradients:
            answers.append(contender.answer_in_poison())
            assert (answers[0][0].strides[1] == dtype.itemsize) == name.endswith("last")
        assert check(SMALL, arrays, {name: answers}, tf32=variant == "tf32") == {}


def test_a_run_ends_where_a_kernel_has_gone_wrong_and_blames_no_other_row(cuda, monkeypatch, quick):
    def broken():
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(cuda._cupy.cuda.Device(), "synchronize", broken)
    results = gpu.GpuResults({}, {})
    with pytest.raises(RuntimeError, match="illegal memory access"):
        measured_on(cuda, quick, results=results)
    assert results.rows == []


def test_the_time_of_a_run_includes_what_comes_before_the_first_row(monkeypatch):
    now = [0.0]
    plans = []
    monkeypatch.setattr(on_gpu.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(on_gpu.tconv_gpu, "why_not", lambda: None)
    monkeypatch.setattr(cuda_device, "Cuda", Machine)
    monkeypatch.setattr(on_gpu, "_prepare", lambda *_, **__: now.__setitem__(0, 70.0))
    monkeypatch.setattr(gpu, "run", lambda *arguments: plans.append(arguments[2]))
    assert main(["bench", "unet-top", "--gpu", "--seconds", "540"]) == 0
    assert plans[0].seconds == 540 - 70


@pytest.mark.torch
@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "gradients"])
def test_every_mode_of_pytorch_is_asked_the_same_question(cuda, monkeypatch, gradients):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "cuda", torch.Tensor.clone)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    cuda.has_pytorch = True
    arrays = (suite.gradient_arrays if gradients else suite.arrays)(SMALL, np.dtype(np.float32))
    check = samples.gradient_mistakes if gradients else samples.output_mistakes
    modes = {name: make for name, make in
             cuda.contenders(SMALL, "tf32", gradients=gradients).items()
             if name.startswith("PyTorch")}  # fmt: skip
    assert list(modes) == ["PyTorch NCHW", "PyTorch NCHW tuned", "PyTorch channels last",
                           "PyTorch channels last tuned"]  # fmt: skip
    for name, make in modes.items():
        answers = {name: [make(SMALL, arrays, 1).answer()]}
        assert check(SMALL, arrays, answers) == {}
        assert torch.backends.cudnn.benchmark == name.endswith("tuned")
        assert torch.backends.cudnn.allow_tf32


@pytest.mark.nvrtc
def test_kernels_are_prepared_without_a_gpu(tmp_path, monkeypatch, capsys):
    pytest.importorskip("cupy")
    monkeypatch.setenv("TCONV_CACHE_DIR", str(tmp_path))
    assert main(["bench", "depthwise-47341", "--dtype", "float16", "--prepare", "90"]) == 0
    count = len(list(tmp_path.glob("*.cubin")))
    assert f"{count} kernels are compiled for compute capability 9.0" in capsys.readouterr().out
    assert count > 0
    assert main(["bench", "depthwise-47341", "--prepare", "13"]) == 2
    assert "cannot compile for compute capability 1.3" in capsys.readouterr().err
