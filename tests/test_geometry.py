"""Geometry: the one value that every backend reads, made from shapes and dtypes alone."""

from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import numpy as np
import pytest

import cases
import oracle
from tconv import _check
from tconv._geometry import Geometry

RANDOM = [case for case in cases.random_cases(200, seed=11) if len(case.x) == len(case.weight)]


def geometry(case):
    """Return the geometry of a case, from stand-ins that have a shape and a dtype, and no more."""
    dtype = SimpleNamespace(itemsize=4)
    arrays = (SimpleNamespace(shape=shape, dtype=dtype) for shape in (case.x, case.weight))
    defaults = {
        "stride": 1, "padding": 0, "output_padding": 0, "output_size": None, "dilation": 1,
        "groups": 1,
    }  # fmt: skip
    return _check.geometry(len(case.weight) - 2, *arrays, None, **(defaults | case.call))


def terms_of_each_output(case):
    ones = np.ones(case.x, int), np.ones(case.weight, int)
    return oracle.transposed_conv(*ones, **case.call)


def test_it_keeps_the_facts_and_prints_them():
    case = cases.Case("", "", (2, 4, 5), (4, 3, 3), {"stride": 2, "padding": "same", "groups": 2})
    assert geometry(case) == Geometry(2, 2, 4, 6, (5,), (3,), (2,), (1,), (0,), (10,))
    assert repr(geometry(case)) == (
        "Geometry(batch=2, groups=2, in_channels=4, out_channels=6, in_size=(5,), "
        "kernel_size=(3,), stride=(2,), dilation=(1,), pad_begin=(0,), out_size=(10,))"
    )


def test_spellings_of_the_same_facts_are_the_same_value():
    calls = [
        {"stride": 2, "padding": "same"},
        {"stride": 2, "padding": ((0, 1),)},
        {"stride": 2, "padding": ((0, 2),), "output_padding": 1},
        {"stride": 2, "padding": ((0, 2),), "output_size": 10},
    ]
    made = {geometry(cases.Case("", "", (1, 1, 5), (1, 1, 3), call)) for call in calls}
    assert len(made) == 1


def test_it_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        geometry(cases.NAMED[0]).batch = 3


@pytest.mark.parametrize("case", RANDOM, ids=str)
def test_shapes_are_those_of_the_arrays(case):
    made = geometry(case)
    assert (made.x_shape, made.weight_shape) == (case.x, case.weight)
    assert made.out_shape == terms_of_each_output(case).shape
    assert made.ndim == len(case.weight) - 2
    sizes = map(np.prod, (made.x_shape, made.weight_shape, made.out_shape))
    assert made.nbytes(4) == 4 * sum(sizes)


@pytest.mark.parametrize("case", RANDOM, ids=str)
def test_products_are_all_the_terms_of_all_outputs(case):
    assert geometry(case).products == terms_of_each_output(case).sum()
    assert geometry(case).flops == 2 * geometry(case).products


@pytest.mark.parametrize("case", RANDOM, ids=str)
def test_no_output_has_more_terms_than_terms(case):
    assert terms_of_each_output(case).max(initial=0) <= geometry(case).terms


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_terms_are_reached_without_padding_and_dilation(stride):
    case = cases.Case("", "", (1, 4, 3, 6), (4, 2, 4, 3), {"stride": stride, "groups": 2})
    assert terms_of_each_output(case).max() == geometry(case).terms


@pytest.mark.parametrize("case", RANDOM, ids=str)
def test_phases_hold_every_output_once_and_every_tap_once(case):
    g = geometry(case)
    for axis in range(g.ndim):
        stride, dilation, begin = g.stride[axis], g.dilation[axis], g.pad_begin[axis]
        outputs = [
            q * stride + r - begin for r in range(stride) for q in range(*g.phase_window(axis, r))
        ]
        assert sorted(outputs) == list(range(g.out_size[axis]))
        taps = {k: (r, shift) for r, pairs in g.taps(axis).items() for k, shift in pairs}
        assert sorted(taps) == list(range(g.kernel_size[axis]))
        assert all(k * dilation == shift * stride + r for k, (r, shift) in taps.items())


@pytest.mark.parametrize("case", RANDOM, ids=str)
def test_tap_windows_hold_the_inputs_that_reach_the_output(case):
    g = geometry(case)
    for axis in range(g.ndim):
        for k in range(g.kernel_size[axis]):
            landing = [
                i * g.stride[axis] + k * g.dilation[axis] - g.pad_begin[axis]
                for i in range(g.in_size[axis])
            ]
            inside = [i for i, o in enumerate(landing) if 0 <= o < g.out_size[axis]]
            assert list(range(*g.tap_window(axis, k))) == inside
