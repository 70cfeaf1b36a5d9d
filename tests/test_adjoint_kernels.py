"""The kernels that know the window compute the adjoint, in either order of memory.

As in `test_gradient_kernels`, each is driven by name through the public verbs.
"""

from itertools import cycle

import numpy as np
import pytest

import cases
import oracle
import standin
from standin import Recorder, Standin, refuses
from standin.check import WINDOWS
from tconv.gpu import launch
from tconv.gpu.families import direct, direct_channels_last
from test_conv import arguments
from test_gradient_kernels import RANDOM, conj, reals
from test_gradients import answers, bounds, integers, whole
from test_kernels import channels_last, strided

WINDOW = {"stride": 2, "padding": 1}
HEAD = cases.Case("", "", (3, 8, 9, 10), (8, 4, 4, 4), WINDOW | {"groups": 2})
SINGLE = cases.Case("", "", (3, 8, 9, 10), (8, 1, 4, 4), WINDOW | {"groups": 8})
LAYERS = {kernel: SINGLE if "depthwise" in kernel else HEAD for kernel in WINDOWS}
"""Vectors of rows and of channels."""


def fits(kernel, case, dtype):
    """Tell whether a thread can hold the window."""
    y, _, weight = integers(case, dtype, np.random.default_rng(0))
    refused = refuses(Recorder().conv(kernel), y, weight, **arguments(case))
    return not refused and 0 not in (*case.x, *case.weight)


def suited(own):
    """Return kernels with cases, each in one dtype, by turns: each is a kernel of its own."""
    return [
        pytest.param(kernel, case, dtype, id=f"{kernel}-{case}")
        for kernel, named in WINDOWS.items()
        for case, dtype in zip(named if own else RANDOM[:40], cycle(cases.DTYPES), strict=False)
        if fits(kernel, case, dtype)
    ]


SOME, MANY = suited(own=True), suited(own=False)


def lying(kernel, array, weight):
    """Return an array as the kernel is made for it."""
    last = kernel.endswith("channels_last") and array.ndim == weight.ndim
    return channels_last(array) if last else array


@pytest.fixture(scope="session")
def compiled():
    """Compile in a few units what most tests need, instead of one by one."""
    standin.skip_without_compiler()
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        few_channels_at_a_time(patch)
        for kernel, case, dtype in (param.values for param in SOME):
            y, _, weight = integers(case, dtype, np.random.default_rng(0))
            for one in (y, lying(kernel, y, weight)):
                recorder.conv(kernel)(one, weight, **arguments(case))
            recorder.conv("gather")(y, weight, **arguments(case))
    launch._recalled.cache_clear()
    Standin().prepare(recorder.launched)


def few_channels_at_a_time(patch):
    """Let even small layers have several blocks of channels."""
    patch.setattr(direct, "WEIGHT_BYTES", 1024)
    patch.setattr(direct_channels_last, "INPUT_BYTES", 0)
    launch._recalled.cache_clear()


@pytest.fixture
def conv(device, monkeypatch):
    """The adjoint by kernel, with a few channels in shared memory at a time."""
    few_channels_at_a_time(monkeypatch)
    yield device.conv
    launch._recalled.cache_clear()


@pytest.mark.parametrize(("kernel", "case", "dtype"), SOME)
def test_the_adjoint_is_exact_on_integers_and_within_its_bound_on_reals(
    kernel, case, dtype, conv, rng
):
    assert_the_adjoint_is_right(kernel, case, dtype, conv, rng)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "case", "dtype"), MANY)
def test_the_adjoint_in_many_windows(kernel, case, dtype, device, rng):
    assert_the_adjoint_is_right(kernel, case, dtype, device.conv, rng)


def assert_the_adjoint_is_right(kernel, case, dtype, conv, rng):
    compute, call = conv(kernel), arguments(case)
    y, x, weight = integers(case, dtype, rng)
    bias = whole(weight.shape[:1], dtype, rng)
    exact, *_ = answers(y, x, conj(weight), **case.call)
    exact = exact + oracle.wide(bias).reshape(-1, *[1] * (weight.ndim - 2))
    for one in (y, lying(kernel, y, weight)):
        oracle.assert_exact(compute(one, weight, bias, **call), exact, dtype)
    if dtype.kind == "i":
        return
    y, x, weight = reals(case, dtype, rng)
    back = compute(lying(kernel, y, weight), weight, **call)
    exact, *_ = answers(y, x, conj(weight), **case.call)
    limit, *_ = bounds(y, x, conj(weight), **case.call)
    oracle.assert_within(back, exact, limit)
    if "depthwise" in kernel:
        assert back.tobytes() == conv("gather")(y, weight, **call).tobytes()


@pytest.mark.parametrize(
    ("kernel", "case", "dtype"), [param for param in SOME if param.values[2].kind == "f"]
)
def test_nan_and_infinity_reach_only_what_they_take_part_in(kernel, case, dtype, conv, rng):
    y, x, weight = (np.ones_like(array) for array in integers(case, dtype, rng))
    exact, *_ = answers(y, x, weight, **case.call)
    for intruded in (y, weight):
        for intruder in (np.nan, np.inf, -np.inf):
            at = rng.integers(intruded.size)
            intruded.flat[at] = 0
            without, *_ = answers(y, x, weight, **case.call)
            intruded.flat[at] = intruder
            back = conv(kernel)(lying(kernel, y, weight), weight, **arguments(case))
            expected = np.where(without == exact, exact, intruder)
            np.testing.assert_array_equal(back.astype(float), expected)
            intruded.flat[at] = 1


@pytest.mark.parametrize("kernel", WINDOWS)
def test_arrays_may_lie_in_memory_in_any_way(kernel, conv, rng):
    case = LAYERS[kernel]
    y, x, weight = integers(case, np.dtype("f4"), rng)
    exact, *_ = answers(y, x, weight, **case.call)
    for one, taps in zip(strided(y, rng), strided(weight, rng), strict=True):
        oracle.assert_exact(conv(kernel)(one, taps, **arguments(case)), exact, y.dtype)
    n, c, height, width = x.shape
    for buffer, order in (
        (np.full((n, height, width, c + 3), 99, "f4"), (0, 3, 1, 2)),
        (np.full((width, n, c + 3, height), 99, "f4"), (1, 2, 3, 0)),
    ):
        out = buffer.transpose(order)[:, 3:, ::-1]
        conv(kernel)(y, weight, out=out, **arguments(case))
        oracle.assert_exact(out, exact, y.dtype)
        out[...] = 99
        assert (buffer == 99).all()


@pytest.mark.parametrize("dtype", [np.dtype("f4"), np.dtype("f2")], ids=str)
@pytest.mark.parametrize("kernel", ["depthwise", "direct"])
def test_rows_that_end_within_a_vector_are_read_and_written_to_their_end_alone(
    kernel, dtype, conv, rng
):
    case = cases.Case("", "", (2, 3, 5, 29), (3, 1, 4, 4), {"stride": 2, "groups": 3})
    y, x, weight = integers(case, dtype, rng)
    around, into = np.full((2, 3, 12, 64), 99, dtype), np.full((2, 3, 5, 32), 99, dtype)
    around[..., :60] = y
    exact, *_ = answers(y, x, weight, **case.call)
    conv(kernel)(around[..., :60], weight, out=into[..., :29], **arguments(case))
    oracle.assert_exact(into[..., :29], exact, dtype)
    assert (into[..., 29:] == 99).all()


@pytest.mark.parametrize("kernel", ["depthwise_channels_last", "direct_channels_last"])
def test_channels_next_to_those_of_a_slice_are_neither_summed_nor_written(kernel, conv, rng):
    case = LAYERS[kernel]
    y, x, weight = integers(case, np.dtype("f4"), rng)
    around, into = (np.full((n, h, w, c + 8), 99, "f4") for n, c, h, w in (y.shape, x.shape))
    around[..., 4:-4] = y.transpose(0, 2, 3, 1)
    exact, *_ = answers(y, x, weight, **case.call)
    inside = into[..., 4:-4].transpose(0, 3, 1, 2)
    conv(kernel)(around[..., 4:-4].transpose(0, 3, 1, 2), weight, out=inside, **arguments(case))
    oracle.assert_exact(inside, exact, y.dtype)
    assert (into[..., :4] == 99).all()
    assert (into[..., -4:] == 99).all()


@pytest.mark.parametrize("kernel", WINDOWS)
def test_an_item_has_the_same_bits_in_any_batch(kernel, conv, rng):
    case = LAYERS[kernel]
    y, _, weight = reals(case, np.dtype("f4"), rng)
    many = np.concatenate([y, rng.standard_normal((9, *y.shape[1:])).astype("f4")])
    together = conv(kernel)(lying(kernel, many, weight), weight, **arguments(case))
    alone = conv(kernel)(lying(kernel, y[1:2], weight), weight, **arguments(case))
    assert alone.tobytes() == together[1:2].tobytes()
