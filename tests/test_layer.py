"""Layers: the functions with weights of their own, on the CPU and on GPUs."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace as changed
from threading import Barrier

import numpy as np
import pytest

import cases
import oracle
import tconv
from pretended import on_device
from tconv import layer as layers
from tconv.gpu import launch
from tconv.gpu.families import FAMILIES, OPERATIONS, gemm

LAYERS = (tconv.TransposedConv1d, tconv.TransposedConv2d, tconv.TransposedConv3d)
RANDOM = [case for case in cases.random_cases(60, seed=5) if 0 not in case.x]
CASE = cases.Case(
    "layer", "every number different",
    (2, 6, 5, 4), (6, 3, 3, 4), {"stride": (2, 3), "padding": (1, 2), "groups": 2}, (2, 6, 9, 9),
)  # fmt: skip


def layer_of(weight, bias, call):
    """Return a layer, and what of the call is left for calling it."""
    size = {name: value for name, value in call.items() if name == "output_size"}
    window = {name: value for name, value in call.items() if name not in size}
    return LAYERS[weight.ndim - 3](weight, bias, **window), size


@pytest.fixture
def only(monkeypatch):
    """Leave one kernel family."""

    def leave(kernel):
        def choose(call, *, asked, tile):  # noqa: ARG001
            return family(call, asked=True, tile=tile)

        family = FAMILIES[kernel]
        monkeypatch.setitem(OPERATIONS, "transposed_conv", {kernel: choose})
        launch._recalled.cache_clear()

    yield leave
    launch._recalled.cache_clear()


@pytest.fixture
def only_gather(only):
    """Compile one kernel, not one for every tile."""
    only("gather")


# --- the same answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*cases.NAMED, *RANDOM], ids=str)
def test_a_layer_gives_the_bits_that_the_function_gives(cpu, case, rng):
    for dtype in cases.DTYPES:
        x, weight, bias = case.reals(dtype, rng)
        layer, size = layer_of(weight, bias, case.call)
        y = layer(x, **size)
        assert y.dtype == dtype
        assert y.tobytes() == cpu(x, weight, bias, **case.call).tobytes()


@pytest.mark.usefixtures("only_gather")
@pytest.mark.parametrize("case", [*cases.NAMED, *RANDOM[:20]], ids=str)
def test_a_layer_is_exact_on_integers_on_a_gpu(with_gpu, case, rng):
    for dtype in (np.dtype("f4"), np.dtype("f2")):
        x, weight, bias = case.integers(dtype, rng)
        layer, size = layer_of(weight, bias, case.call)
        y = layer(on_device(x), **size)
        assert 0 in y.shape or list(with_gpu) == [3]
        answer = oracle.transposed_conv(x, weight, bias, **case.call)
        oracle.assert_exact(np.asarray(y), answer, dtype)


def test_a_matrix_product_reads_packed_weights_too(with_gpu, only, rng):
    only("gemm")
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    layer = tconv.TransposedConv2d(weight, bias, **CASE.call)
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    oracle.assert_exact(np.asarray(layer(on_device(x))), answer, np.float32)
    assert with_gpu[3].launched[0].kernel == "gemm"


@pytest.mark.parametrize("activation", oracle.ACTIVATIONS)
def test_a_layer_applies_its_activation(cpu, activation, rng):
    x, weight, bias = CASE.reals(np.dtype("f4"), rng)
    layer = tconv.TransposedConv2d(weight, bias, activation=activation, **CASE.call)
    answer = cpu(x, weight, bias, activation=activation, **CASE.call)
    np.testing.assert_array_equal(layer(x), answer)


def test_a_layer_takes_inputs_of_any_size_and_memory_order(cpu, rng):
    _, weight, bias = CASE.reals(np.dtype("f4"), rng)
    layer = tconv.TransposedConv2d(weight, bias, **CASE.call)
    for shape in ((1, 6, 2, 2), (3, 6, 7, 2), (6, 4, 9)):
        x = rng.standard_normal(shape, np.float32)
        np.testing.assert_array_equal(layer(x), cpu(x, weight, bias, **CASE.call))
    last = np.ascontiguousarray(rng.standard_normal((2, 5, 4, 6), np.float32))
    y = layer(last.transpose(0, 3, 1, 2))
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_output_size_replaces_the_output_padding_of_the_layer(rng):
    x, weight, _ = CASE.reals(np.dtype("f4"), rng)
    layer = tconv.TransposedConv2d(weight, stride=3, output_padding=1, groups=2)
    assert layer(x).shape == (2, 6, 16, 14)
    assert layer(x, output_size=(15, 15)).shape == (2, 6, 15, 15)
    with pytest.raises(ValueError, match=r"^output_size=18 must be from 15 to 17"):
        layer(x, output_size=18)
    same = tconv.TransposedConv2d(weight, stride=3, padding="same", groups=2)
    with pytest.raises(ValueError, match=r"^padding='same' fixes the output size"):
        same(x, output_size=15)


def test_out_is_written_and_returned_with_a_batch_or_without(rng):
    x, weight, bias = CASE.reals(np.dtype("f4"), rng)
    layer = tconv.TransposedConv2d(weight, bias, **CASE.call)
    out = np.empty((2, 6, 9, 18), "f4")[..., ::2]
    assert layer(x, out=out) is out
    np.testing.assert_array_equal(out, layer(x))
    assert layer(x[0], out=out[1]).base is out.base
    np.testing.assert_array_equal(out[1], out[0])


# --- its own weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_writing_into_the_callers_arrays_does_not_change_the_layer(dtype, rng):
    x, weight, bias = CASE.integers(dtype, rng)
    layer = tconv.TransposedConv2d(weight, bias, **CASE.call)
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    weight[...] = bias[...] = 0
    oracle.assert_exact(layer(x), answer, dtype)
    weight[...] = bias[...] = 1
    oracle.assert_exact(layer(x), answer, dtype)


def test_weight_and_bias_can_be_read_and_not_written(rng):
    _, weight, bias = CASE.reals(np.dtype("f4"), rng)
    layer = tconv.TransposedConv2d(weight, bias, groups=2)
    np.testing.assert_array_equal(layer.weight, weight)
    np.testing.assert_array_equal(layer.bias, bias)
    for array in (layer.weight, layer.bias):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    for name in ("weight", "bias"):
        with pytest.raises(AttributeError):
            setattr(layer, name, weight)
    assert tconv.TransposedConv2d(weight).bias is None


def test_weights_may_lie_in_memory_in_any_way(rng):
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    flipped = np.ascontiguousarray(weight[:, :, ::-1])[:, :, ::-1]
    for strange in (weight.astype(">f4"), np.asfortranarray(weight), flipped):
        layer = tconv.TransposedConv2d(strange, bias.astype(">f4"), **CASE.call)
        oracle.assert_exact(layer(x), answer, np.dtype("f4"))
        assert layer.weight.flags.c_contiguous
        assert layer.weight.dtype.isnative


@pytest.mark.usefixtures("with_gpu", "only_gather")
def test_weights_may_come_from_a_gpu_and_inputs_from_anywhere(rng):
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    layer = tconv.TransposedConv2d(on_device(weight), on_device(bias), **CASE.call)
    assert type(layer.weight) is type(layer.bias) is np.ndarray
    for there in (x, on_device(x)):
        oracle.assert_exact(np.asarray(layer(there)), answer, np.dtype("f4"))


@pytest.mark.parametrize("way", [lambda a: pickle.loads(pickle.dumps(a)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_a_layer_can_be_pickled_and_copied(way, dtype, rng):
    x, weight, bias = CASE.integers(dtype, rng)
    activation = None if dtype.kind == "c" else "relu"
    layer = tconv.TransposedConv2d(weight, bias, activation=activation, **CASE.call)
    again = way(layer)
    assert repr(again) == repr(layer)
    assert again(x).tobytes() == layer(x).tobytes()
    assert not again.weight.flags.writeable


@pytest.mark.usefixtures("only_gather")
def test_a_pickle_holds_nothing_of_a_device(with_gpu, rng):
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    layer = tconv.TransposedConv2d(weight, bias, **CASE.call)
    before = pickle.dumps(layer)
    y = layer(on_device(x))
    assert pickle.dumps(layer) == before
    again = pickle.loads(before)
    np.testing.assert_array_equal(again(on_device(x)), y)
    assert len(with_gpu[3].uploaded) == 4


# --- on a GPU -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("only_gather")
def test_weights_are_packed_and_copied_to_each_device_once(with_gpu, rng):
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    layer = tconv.TransposedConv2d(weight, bias, **CASE.call)
    for number in (0, 1, 0, 1, 1):
        layer(on_device(x, number))
    assert sorted(with_gpu) == [0, 1]
    for device in with_gpu.values():
        # m is nearest in memory, then c, then the taps.
        packed, _ = device.uploaded
        np.testing.assert_array_equal(packed, weight.transpose(2, 3, 0, 1))
        assert packed.flags.c_contiguous
        assert len(device.uploaded) == 2


@pytest.mark.usefixtures("only_gather")
def test_with_out_nothing_is_allocated_after_the_first_call(with_gpu, rng):
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    layer = tconv.TransposedConv2d(weight, bias, **CASE.call)
    x, out = on_device(x), on_device(np.empty(CASE.out, "f4"))
    layer(x, out=out)
    device = with_gpu[3]
    del device.allocated[:], device.launched[:]
    assert layer(x, out=out) is out
    assert device.allocated == []
    assert len(device.launched) == 1


def test_a_workspace_stays_and_belongs_to_one_stream_and_one_thread(with_gpu):
    device = with_gpu[3]
    workspaces = launch.Workspaces(device)
    with on_device(np.zeros(1)).device:
        first = workspaces(1000)
        assert first.nbytes >= 1000
        assert workspaces(1000) is first
        device.stream = 7
        assert workspaces(1000) is not first
        device.stream = 0
        assert workspaces(5000).nbytes >= 5000
        assert workspaces(1000) is first

    def elsewhere():
        with on_device(np.zeros(1)).device:
            return workspaces(1000)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result() is not first


@pytest.mark.usefixtures("only_gather")
def test_a_layer_keeps_the_workspace_of_its_second_pass(with_gpu, monkeypatch, rng):
    def split(call, *, asked, tile):
        choice = gather(call, asked=asked, tile=tile)
        again = choice.specialisation, choice.blocks
        return changed(choice, workspace_bytes=100, second=again)

    gather = FAMILIES["gather"]
    monkeypatch.setitem(OPERATIONS, "transposed_conv", {"gather": split})
    given = []
    monkeypatch.setattr(
        type(with_gpu[3]), "kernel", lambda *_: lambda _g, _b, args, **_: given.append(args[4])
    )
    x, weight, _ = CASE.integers(np.dtype("f4"), rng)
    layer = tconv.TransposedConv2d(weight, **CASE.call)
    for _ in range(2):
        layer(on_device(x))
    assert len(given) == 4
    assert all(memory is given[0] for memory in given)


def test_a_layer_whose_sums_blocks_share_allocates_nothing_after_the_first_call(
    with_gpu, only, monkeypatch, rng
):
    monkeypatch.setattr(gemm, "LONG_SUM", 8)
    only("gemm")
    case = cases.LONG_SUMS[0]
    x, weight, bias = case.integers(np.dtype("f4"), rng)
    layer = tconv.TransposedConv1d(weight, bias, **case.call)
    out = on_device(np.empty(case.out, "f4"))
    device = with_gpu[3]
    for number in (1, -3):
        del device.allocated[:], device.launched[:]
        layer(on_device(number * x), out=out)
        answer = oracle.transposed_conv(number * x, weight, bias, **case.call)
        oracle.assert_exact(out.get(), answer, np.float32)
        assert [s.kernel for s in device.launched] == ["gemm", "gemm_sum"]
    assert device.allocated == []


@pytest.mark.gpu
@pytest.mark.parametrize("case", [CASE, cases.LONG_SUMS[0]], ids=["one pass", "two passes"])
def test_a_cuda_graph_captures_a_layer_and_computes_it_anew(case, only, monkeypatch, rng):
    cupy = pytest.importorskip("cupy")
    if case is not CASE:
        monkeypatch.setattr(gemm, "LONG_SUM", 8)
        only("gemm")
    x, weight, bias = case.integers(np.dtype("f4"), rng)
    layer, _ = layer_of(weight, bias, case.call)
    there, out = cupy.asarray(x), cupy.empty(case.out, "f4")
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        layer(there, out=out)
        stream.begin_capture()
        layer(there, out=out)
        graph = stream.end_capture()
    for number in (1, -3):
        there.set(number * x)
        out.fill(np.nan)
        cupy.cuda.Device().synchronize()
        graph.launch(stream)
        stream.synchronize()
        answer = oracle.transposed_conv(number * x, weight, bias, **case.call)
        oracle.assert_exact(out.get(), answer, np.float32)


@pytest.mark.gpu
def test_streams_share_a_layer(rng):
    cupy = pytest.importorskip("cupy")
    _, weight, bias = CASE.integers(np.dtype("f4"), rng)
    layer = tconv.TransposedConv2d(cupy.asarray(weight), cupy.asarray(bias), **CASE.call)
    inputs = [rng.integers(-8, 9, CASE.x).astype("f4") for _ in range(8)]
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in inputs]
    results = []
    for x, stream in zip(inputs, streams, strict=True):
        with stream:
            results.append(layer(cupy.asarray(x)))
    for x, y, stream in zip(inputs, results, streams, strict=True):
        stream.synchronize()
        answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
        oracle.assert_exact(y.get(), answer, np.float32)


# --- threads ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("only_gather")
def test_threads_share_a_layer_and_its_weights_are_placed_once(with_gpu, rng):
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    answer = oracle.transposed_conv(x, weight, bias, **CASE.call)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            layer = tconv.TransposedConv2d(weight, bias, **CASE.call)
            before = len(with_gpu[3].uploaded)
            together = Barrier(8)

            def call(there, layer=layer, together=together):
                together.wait()
                return np.asarray(layer(there))

            inputs = [x, on_device(x)] * 4
            for y in pool.map(call, inputs):
                oracle.assert_exact(y, answer, np.dtype("f4"))
            assert len(with_gpu[3].uploaded) == before + 2


# --- errors -------------------------------------------------------------------------------------


def ones(shape, dtype="f4"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([[[1.0]]],), {}, TypeError, "weight must be a NumPy or CuPy array, not list"),
        ((ones((4, 6, 3, 3)), [0.0]), {}, TypeError,
         "bias must be a NumPy or CuPy array, not list"),
        ((ones((4, 6, 3, 3)), ones(6, "f8")), {}, TypeError,
         "weight is float32 but bias is float64; convert one of them"),
        ((ones((4, 6, 3)),), {}, ValueError,
         "weight has 3 axes but needs 4, (C, M // groups, H, W)"),
        ((ones((4, 6, 0, 3)),), {}, ValueError,
         "weight has length 0 along axis 2; it must be at least 1"),
        ((ones((4, 6, 3, 3)),), {"groups": 3}, ValueError,
         "weight has 4 input channels (axis 0), which groups=3 does not divide"),
        ((ones((4, 6, 3, 3)), ones(6)), {"groups": 2}, ValueError,
         "bias has shape (6,) but must be (12,): "
         "weight has 6 output channels (axis 1) for each of groups=2"),
        ((ones((4, 6, 3, 3)),), {"stride": 0}, ValueError, "stride=0 must be at least 1"),
        ((ones((4, 6, 3, 3)),), {"stride": (2, 2, 2)}, ValueError,
         "stride has 3 values but needs 2, one per spatial axis"),
        ((ones((4, 6, 3, 3)),), {"output_padding": 1}, ValueError,
         "output_padding=1 must be less than stride=1 or dilation=1 (spatial axis 0)"),
        ((ones((4, 6, 3, 3)),), {"activation": "swish"}, ValueError,
         "activation='swish' is not one of relu, leaky_relu, sigmoid, tanh, gelu, silu"),
        ((ones((4, 6, 3, 3), "c8"),), {"activation": "relu"}, TypeError,
         "activation='relu' is not defined for complex64; leave it out"),
        ((ones((4, 6, 3, 3), "f8"),), {"precision": "tf32"}, TypeError,
         "precision='tf32' is for float32, not float64"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_layer_is_said_when_it_is_made(arguments, options, error, message):
    with pytest.raises(error) as raised:
        tconv.TransposedConv2d(*arguments, **options)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        ([1.0], {}, TypeError, "x must be a NumPy or CuPy array, not list"),
        (ones((1, 4, 5, 5), "f8"), {}, TypeError,
         "x is float64 but weight is float32; convert one of them"),
        (ones((1, 3, 5, 5)), {}, ValueError,
         "weight has 4 input channels (axis 0) but x has 3 (axis 1)"),
        (ones((5, 5)), {}, ValueError, "x has 2 axes but needs 4, (N, C, H, W), or 3, (C, H, W)"),
        (ones((1, 4, 5, 5)), {"out": ones((1, 6, 7, 8))}, ValueError,
         "out has shape (1, 6, 7, 8) but the result has (1, 6, 7, 7)"),
        (ones((1, 4, 5, 5)), {"out": ones((1, 6, 7, 7), "f8")}, TypeError,
         "x is float32 but out is float64; convert one of them"),
        (ones((1, 4, 5, 5)), {"output_size": 4.0}, TypeError,
         "output_size=4.0 is of type float; it must be an int"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_input_is_said_before_any_work(x, options, error, message):
    layer = tconv.TransposedConv2d(ones((4, 6, 3, 3)))
    with pytest.raises(error) as raised:
        layer(x, **options)
    assert str(raised.value) == message


def test_out_must_not_share_memory_with_the_input():
    x = ones((1, 4, 5, 5))
    layer = tconv.TransposedConv2d(ones((4, 4, 1, 1)))
    with pytest.raises(ValueError, match=r"^out shares memory with x; it must have memory"):
        layer(x, out=x)


def test_an_input_on_a_gpu_that_cannot_be_used_says_why(with_gpu, monkeypatch):
    monkeypatch.setattr("tconv.gpu.why_not", lambda: "a reason")
    layer = tconv.TransposedConv1d(ones((1, 1, 1)))
    with pytest.raises(RuntimeError, match=r"^tconv cannot compute on CuPy arrays: a reason$"):
        layer(on_device(ones((1, 1, 1))))
    assert not with_gpu


# --- how it shows itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "TransposedConv2d(float32 (4, 6, 3, 3))"),
        ({"stride": (2, 2), "padding": 1},
         "TransposedConv2d(float32 (4, 6, 3, 3), stride=2, padding=1)"),
        ({"stride": (2, 1), "padding": ((1, 1), (0, 0)), "output_padding": (1, 0)},
         "TransposedConv2d(float32 (4, 6, 3, 3), stride=(2, 1), padding=(1, 0), "
         "output_padding=(1, 0))"),
        ({"padding": ((1, 0), (2, 2)), "dilation": 3, "groups": 2},
         "TransposedConv2d(float32 (4, 6, 3, 3), padding=((1, 0), (2, 2)), dilation=3, groups=2)"),
        ({"padding": ((-1, -1), (0, 0))},
         "TransposedConv2d(float32 (4, 6, 3, 3), padding=((-1, -1), (0, 0)))"),
        ({"padding": "same", "activation": "relu", "precision": "tf32"},
         "TransposedConv2d(float32 (4, 6, 3, 3), padding='same', activation='relu', "
         "precision='tf32')"),
    ],
)  # fmt: skip
def test_the_repr_shows_the_window(options, text):
    assert repr(tconv.TransposedConv2d(ones((4, 6, 3, 3)), **options)) == text


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_each_layer_is_documented_with_its_own_axes(layer):
    ndim = LAYERS.index(layer) + 1
    assert f"transposed_conv{ndim}d" in layer.__doc__
    assert "{" not in layer.__doc__.replace("{ndim}", "")
    assert layer.__module__ == layers.__name__
