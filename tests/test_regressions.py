"""Configurations that broke other libraries, each with the report it comes from."""

import json
from pathlib import Path

import numpy as np
import pytest

import oracle

CASES = json.loads((Path(__file__).parent / "regression_cases.json").read_text())

SMALLER = {
    "batch 65536": [300, 1, 1, 500],
    "large 3d index": [2, 2, 2, 64, 64],
    "1d 512->256 k16 s8": [1, 512, 12],
    "big kernel small stride": [1, 2049, 5],
}
"""Inputs for those that take long; at full size they are marked slow."""

DISTINCT = {"batch 65536": 64, "large 3d index": 1, "big kernel small stride": 1}
"""Different items in the batch of those where the oracle could not compute all."""

RIGHT = [case for case in CASES if "out_shape" in case]
WRONG = [case for case in CASES if "raises" in case]


def by_name(case):
    return case["name"]


def check(conv, case, x_shape, distinct):
    rng = np.random.default_rng(0)
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in case["kwargs"].items()}
    weight = rng.integers(-4, 5, case["weight_shape"]).astype(np.float32)
    bias = rng.integers(-4, 5, weight.shape[1] * kwargs.get("groups", 1)).astype(np.float32)
    items = rng.integers(-4, 5, [distinct, *x_shape[1:]]).astype(np.float32)
    x = np.tile(items, [x_shape[0] // distinct] + [1] * (len(x_shape) - 1)) if distinct else items
    y = conv(x, weight, bias, **kwargs)
    answer = oracle.narrow(oracle.transposed_conv(items, weight, bias, **kwargs), np.float32)
    if distinct:
        y = y.reshape(-1, *answer.shape)
        for repetition in y:
            np.testing.assert_array_equal(repetition, answer)
    else:
        np.testing.assert_array_equal(y, answer)


@pytest.mark.parametrize("case", RIGHT, ids=by_name)
def test_what_was_wrong_elsewhere_is_right_here(cpu, case):
    x_shape = SMALLER.get(case["name"], case["x_shape"])
    check(cpu, case, x_shape, x_shape[0])


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in RIGHT if c["name"] in SMALLER], ids=by_name)
def test_what_was_wrong_elsewhere_is_right_here_at_full_size(cpu, case):
    check(cpu, case, case["x_shape"], DISTINCT.get(case["name"], case["x_shape"][0]))


@pytest.mark.parametrize("case", RIGHT, ids=by_name)
def test_the_shape_is_the_one_that_the_report_asks_for(cpu, case):
    """An empty batch where there is one, so that even the largest geometry costs nothing."""
    groups = case["kwargs"].get("groups", 1)
    batch = [] if len(case["x_shape"]) < len(case["weight_shape"]) else [0]
    in_size = case["x_shape"][len(batch) + 1 :]
    x = np.zeros([*batch, case["weight_shape"][0], *in_size])
    y = cpu(x, np.zeros(case["weight_shape"]), **case["kwargs"])
    expected = case["out_shape"]
    assert list(y.shape) == ([0, *expected[1:]] if batch else expected)
    assert y.shape[len(batch)] == case["weight_shape"][1] * groups


@pytest.mark.parametrize("case", WRONG, ids=by_name)
def test_what_crashed_elsewhere_raises_here(conv, case):
    error = (ValueError, MemoryError) if "MemoryError" in case["raises"] else ValueError
    x, weight = np.zeros(case["x_shape"]), np.zeros(case["weight_shape"])
    with pytest.raises(error):
        conv(x, weight, **case["kwargs"])
