"""What all tests share: the two backends, and Hypothesis without chance or clock."""

import sys

import hypothesis
import numpy as np
import pytest

import pretended
import standin
import tconv
from cuda_device import Cuda, leave_if_broken
from standin import Standin
from tconv import gpu

hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")


class Verbs:
    """The public functions of one module, chosen by the number of axes of the weight."""

    def __init__(self, module):
        self.module = module

    def __call__(self, x, weight, bias=None, **kwargs):
        return self.verb(weight.ndim - 2)(x, weight, bias, **kwargs)

    def verb(self, ndim):
        return getattr(self.module, f"transposed_conv{ndim}d")


@pytest.fixture
def cpu():
    """The fast path."""
    return Verbs(tconv)


@pytest.fixture(params=[tconv, tconv.reference], ids=["cpu", "reference"])
def conv(request):
    """Both backends, one after the other."""
    return Verbs(request.param)


@pytest.fixture
def with_gpu(monkeypatch):
    """Pretend that there are GPUs; return them by their number."""
    standin.skip_without_compiler()
    machine = pretended.Machine()
    monkeypatch.setattr(gpu, "why_not", lambda: None)
    monkeypatch.setattr("tconv.gpu.compile.device", machine.__getitem__)
    monkeypatch.setitem(sys.modules, "cupy", pretended.cupy())
    return machine


@pytest.fixture(params=["stand-in", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """What runs the kernels: the stand-in, with what its file has compiled, or a GPU."""
    if request.param == "cuda":
        return Cuda()
    request.getfixturevalue("compiled")
    return Standin()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item):
    if item.get_closest_marker("gpu"):
        leave_if_broken()


@pytest.fixture
def rng():
    return np.random.default_rng(20_240_229)
