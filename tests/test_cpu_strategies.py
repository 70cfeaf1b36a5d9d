"""Every strategy of the CPU path gives the exact answer, wherever its parts are cut."""

from math import prod

import numpy as np
import pytest

import cases
import oracle
from tconv import _cpu
from tconv._cpu import banded, overlap_add, parts, tap_by_tap
from tconv._geometry import Geometry


@pytest.fixture(params=[overlap_add, tap_by_tap], ids=["overlap-add", "tap by tap"])
def strategy(request, monkeypatch):
    """One strategy, chosen for whatever comes."""
    monkeypatch.setattr(_cpu, "choose", lambda _: request.param.compute)


@pytest.fixture(params=["whole", "in crumbs"])
def sizes(request, monkeypatch):
    """Parts as large as ever, or of a few elements each."""
    if request.param == "in crumbs":
        monkeypatch.setattr(parts, "FEWEST", 1)
        monkeypatch.setattr(_cpu, "PRODUCTS", (32, 8, 3))
        monkeypatch.setattr(_cpu, "SUMS", (24, 8, 2))
        monkeypatch.setattr(_cpu, "OUTPUTS", (24, 8, 2))


def is_thin(case):
    """Tell whether each group has one input channel."""
    return case.weight[0] == case.call.get("groups", 1)


THIN = [c for c in (*cases.NAMED, *cases.random_cases(700, seed=8)) if is_thin(c)]


@pytest.mark.usefixtures("strategy", "sizes")
@pytest.mark.parametrize("case", [*cases.NAMED, *cases.random_cases(250, seed=4)], ids=str)
def test_every_strategy_is_exact_on_integers(cpu, case, rng):
    for dtype in (np.dtype("f4"), np.dtype("f2"), np.dtype("c8"), np.dtype("i4")):
        x, weight, bias = case.integers(dtype, rng)
        answer = oracle.transposed_conv(x, weight, bias, **case.call)
        oracle.assert_exact(cpu(x, weight, bias, **case.call), answer, dtype)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("case", THIN, ids=str)
def test_banded_matrices_are_exact_on_integers(cpu, monkeypatch, case, rng):
    monkeypatch.setattr(_cpu, "choose", lambda _: banded.compute)
    for dtype in (np.dtype("f4"), np.dtype("f2"), np.dtype("c8"), np.dtype("i4")):
        x, weight, bias = case.integers(dtype, rng)
        answer = oracle.transposed_conv(x, weight, bias, **case.call)
        oracle.assert_exact(cpu(x, weight, bias, **case.call), answer, dtype)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("case", [c for c in THIN if all(c.x)], ids=str)
def test_a_zero_of_a_banded_matrix_never_meets_an_infinity(cpu, monkeypatch, case, rng):
    monkeypatch.setattr(_cpu, "choose", lambda _: banded.compute)
    x, weight = np.ones(case.x, "f4"), np.ones(case.weight, "f4")
    infinite = np.array(x)
    infinite.flat[rng.integers(x.size)] = np.inf
    assert not np.isnan(cpu(infinite, weight, **case.call)).any()
    weight.flat[rng.integers(weight.size)] = np.inf
    assert not np.isnan(cpu(x, weight, **case.call)).any()


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize(
    "case", [c for c in cases.random_cases(100, seed=6) if c.weight[0]], ids=str
)
def test_an_infinite_weight_is_never_multiplied_by_an_absent_input(cpu, monkeypatch, case, rng):
    """Tap by tap would; so the strategy is changed where a weight is not finite."""
    monkeypatch.setattr(_cpu, "choose", lambda _: tap_by_tap.compute)
    x = np.ones(case.x, "f4")
    weight = np.ones(case.weight, "f4")
    weight.flat[rng.integers(weight.size)] = np.inf
    y = cpu(x, weight, **case.call)
    assert not np.isnan(y).any()


GEOMETRY = Geometry(
    batch=3, groups=2, in_channels=4, out_channels=6, in_size=(7, 5), kernel_size=(3, 4),
    stride=(2, 3), dilation=(1, 2), pad_begin=(1, 2), out_size=(15, 14),
)  # fmt: skip


@pytest.mark.parametrize("elements", [1, 50, 1000, 10**6])
def test_parts_hold_every_output_once(elements):
    times = np.zeros(GEOMETRY.out_shape, int)
    for part in parts.split(GEOMETRY, 12, elements, 1, 2, threads=2):
        assert times[part.out].shape == part.geometry.out_shape
        times[part.out] += 1
    assert (times == 1).all()


def test_parts_are_cut_smaller_until_their_products_fit():
    wide = Geometry(1, 1, 64, 64, (64, 64), (2, 2), (2, 2), (1, 1), (0, 0), (128, 128))
    cut = parts.split(wide, 4, 1 << 17, 1 << 16, 64, threads=2)
    products = [4 * part.geometry.out_channels * prod(part.geometry.in_size) for part in cut]
    assert max(products) <= 1 << 17
    assert len(products) == 8


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_every_thread_has_as_many_parts_unless_these_would_be_too_small(threads):
    wide = Geometry(1, 1, 64, 64, (64, 64), (2, 2), (2, 2), (1, 1), (0, 0), (128, 128))
    sizes = [1 << 21, 3 << 18, 1 << 18]
    counts = [len(list(parts.split(wide, 4, n, 1 << 16, 64, threads))) for n in sizes]
    assert counts == [threads, max(2, threads), max(4, threads)]
    assert len(list(parts.split(wide, 4, 1 << 21, 1 << 22, 64, threads))) == 1


def test_a_single_output_channel_is_cut_by_its_positions_so_that_threads_share_it():
    istft = Geometry(1, 1, 8, 1, (224,), (1024,), (256,), (1,), (0,), (58112,))
    sizes = [p.geometry.in_size[0] for p in _cpu.cut(istft, overlap_add.compute, threads=2)]
    assert len(sizes) == 2
    assert min(sizes) >= parts.FEWEST // 2


def test_outputs_far_from_every_input_do_not_make_the_parts_grow():
    far = Geometry(1, 1, 2, 2, (4,), (3,), (2,), (1,), (-(10**6),), (2 * 10**6,))
    for part in parts.split(far, 3, 1 << 12, 1 << 16, 256, threads=2):
        first = part.geometry.pad_begin[0] // 2
        last = (part.geometry.pad_begin[0] + part.geometry.out_size[0]) // 2
        assert max(last, part.geometry.in_size[0]) - min(first, 0) < 10**4


@pytest.mark.parametrize(
    ("geometry", "strategy"),
    [
        (GEOMETRY, overlap_add.compute),
        (Geometry(1, 8, 8, 8, (9,), (3,), (2,), (1,), (0,), (19,)), banded.compute),
        (Geometry(1, 4, 4, 8, (9,), (3,), (2,), (1,), (0,), (19,)), banded.compute),
        (Geometry(1, 8, 8, 8, (99,) * 2, (31,) * 2, (1,) * 2, (1,) * 2, (15,) * 2, (99,) * 2),
         banded.compute),
        (Geometry(1, 8, 8, 8, (9,), (3,), (2,), (40,), (0,), (97,)), tap_by_tap.compute),
        (Geometry(1, 8, 8, 8, (9,), (9,), (64,), (1,), (9,), (9,)), tap_by_tap.compute),
        (Geometry(1, 1, 8, 8, (99,) * 2, (99,) * 2, (1,) * 2, (1,) * 2, (0,) * 2, (197,) * 2),
         tap_by_tap.compute),
        (Geometry(1, 1, 1026, 1, (1000,), (1024,), (256,), (1,), (0,), (256768,)),
         overlap_add.compute),
    ],
    ids=["dense", "depthwise", "depthwise, two outputs each", "depthwise, large kernel",
         "depthwise, taps far apart", "depthwise, stride beyond the output", "large kernel",
         "iSTFT"],
)  # fmt: skip
def test_the_geometry_alone_chooses_the_strategy(geometry, strategy):
    assert _cpu.choose(geometry) is strategy
