"""What no kernel may stumble over, whichever it is: odd numbers, any place in memory, long offsets.

Each computes the same calls, the adjoint too, on arrays that lie as it is made for.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import pytest

import cases
import oracle
import standin
from cases import Case
from standin import Recorder, Standin
from standin.check import TILES
from tconv.gpu import launch
from tconv.gpu.choice import Tile, WarpTile
from tconv.gpu.families import gemm
from test_conv import arguments
from test_gradients import answers, whole

F2, F4 = np.dtype("f2"), np.dtype("f4")
FAR = 2**31
PLACES = ("x", "weight", "bias", "out")


@dataclass(frozen=True)
class Way:
    """A kernel, the element type, and which axes it is to find nearest in memory.

    ``last`` are the channels of images.  ``nearest`` is the weight's axis: the channels that are
    read, those that are written, or None for the last axis of taps.
    """

    kernel: str
    dtype: np.dtype = F4
    last: bool = False
    nearest: str | None = None
    tile: Tile | WarpTile | None = None
    shared_sums: bool = False

    @property
    def capability(self):
        return 90 if self.kernel == "hopper" else 80

    def images(self, ndim):
        """Return the axes of an image, the nearest one last."""
        axes = range(2, ndim + 2)
        return (0, *axes, 1) if self.last else (0, 1, *axes)

    def taps(self, ndim, adjoint):
        """Likewise of a weight."""
        axes = range(2, ndim + 2)
        if self.nearest is None:
            return 0, 1, *axes
        return (*axes, 0, 1) if (self.nearest == "written") != adjoint else (*axes, 1, 0)

    def computes(self, case):
        """Tell whether the kernel is there for such groups."""
        if self.kernel == "depthwise_channels_last":
            return cases.has_single_channels(case)
        if self.kernel == "depthwise":
            return cases.has_small_groups(case)
        return True


WAYS = {
    "gather": Way("gather"),
    "gemm": Way("gemm", tile=TILES["gemm"]),
    "gemm, vectors": Way("gemm", last=True, nearest="written", tile=TILES["gemm"]),
    "gemm, shared sums": Way("gemm", tile=TILES["gemm"], shared_sums=True),
    "direct": Way("direct"),
    "direct_channels_last": Way("direct_channels_last", last=True),
    "depthwise": Way("depthwise"),
    "depthwise_channels_last": Way("depthwise_channels_last", last=True),
    "mma": Way("mma", F2, tile=TILES["mma"]),
    "mma, vectors": Way("mma", F2, last=True, nearest="read", tile=TILES["mma"]),
    "mma, packed": Way("mma", F2, last=True, nearest="written", tile=TILES["mma"]),
    "hopper": Way("hopper", F2, last=True, nearest="written", tile=TILES["hopper"]),
    "hopper, copied": Way("hopper", F2, tile=TILES["hopper"]),
}
BOTH = [
    (name, adjoint)
    for name, way in WAYS.items()
    for adjoint in (False, True)
    if not (adjoint and way.kernel == "hopper")
]
"""With and without: the adjoint of all but Hopper's."""
NAMES = [(name, adjoint) for name, adjoint in BOTH if name == WAYS[name].kernel != "hopper"]
"""Each kernel once."""

GROUPS = Case("", "", (2, 16, 4, 16), (16, 4, 4, 4), {"stride": 2, "padding": 1, "groups": 2})
SINGLE = Case("", "", (2, 8, 4, 32), (8, 1, 4, 4), {"stride": 2, "padding": 1, "groups": 8})
DENSE = Case("", "", (2, 16, 3, 16), (16, 8, 2, 2), {"stride": 2})
VECTORS = {
    "direct": GROUPS,
    "direct_channels_last": GROUPS,
    "depthwise": SINGLE,
    "depthwise_channels_last": SINGLE,
}
"""Of which everything is a whole number of vectors; where none is named, it is DENSE."""


# --- arrays that lie somewhere --------------------------------------------------------------------


def lying(array, order, *, shift=0, far=None):
    """Return an equal array whose axes have this order in memory.

    It begins ``shift`` elements after a boundary of vectors; the first and the last element of the
    axis ``far`` lie more than 2^31 elements apart.
    """
    steps, size = [0] * array.ndim, 1
    for axis in [axis for axis in reversed(order) if axis != far]:
        steps[axis] = size
        size *= array.shape[axis]
    if far is not None:
        between = max(size, FAR // (array.shape[far] - 1))
        steps[far] = (between // 64 + 1) * 64  # a whole number of vectors
        size += (array.shape[far] - 1) * steps[far]
    memory = np.zeros(size + shift + 64, array.dtype)  # pages that nobody touches take no room
    begin = -memory.ctypes.data // array.itemsize % 64 + shift
    strides = [step * array.itemsize for step in steps]
    view = np.ndarray(array.shape, array.dtype, memory, begin * array.itemsize, strides)
    view[...] = array
    return view


@dataclass(frozen=True)
class Problem:
    """What a kernel is to compute, in whole numbers, and the right result."""

    way: Way
    case: Case
    adjoint: bool
    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    exact: np.ndarray

    @classmethod
    def of(cls, name, adjoint, case):
        way, rng = WAYS[name], np.random.default_rng(0)
        x, weight = (whole(shape, way.dtype, rng) for shape in (case.x, case.weight))
        if not adjoint:
            bias = whole(case.out_channels, way.dtype, rng)
            exact = oracle.transposed_conv(x, weight, bias, **case.call)
            return cls(way, case, adjoint, x, weight, bias, exact)
        y = whole(oracle.transposed_conv(x, weight, **case.call).shape, way.dtype, rng)
        bias = whole(case.weight[0], way.dtype, rng)
        exact, *_ = answers(y, x, weight, **case.call)
        exact = exact + oracle.wide(bias).reshape(-1, *[1] * (weight.ndim - 2))
        return cls(way, case, adjoint, y, weight, bias, exact)

    def arrays(self, **places):
        """Return x, weight, bias and room for the result; ``places`` says how one of them lies."""
        ndim = self.weight.ndim - 2
        images, taps = self.way.images(ndim), self.way.taps(ndim, self.adjoint)
        room = np.full(self.exact.shape, 99, self.way.dtype)
        orders = {
            "x": (self.x, images),
            "weight": (self.weight, taps),
            "bias": (self.bias, (0,)),
            "out": (room, images),
        }
        return [lying(*ordered, **places.get(name, {})) for name, ordered in orders.items()]

    def compute(self, device, x, weight, bias, out):
        """Compute, and compare unless the device only records."""
        forced = self.way.kernel, self.way.tile
        with sums(shared=self.way.shared_sums):
            if self.adjoint:
                call = arguments(self.case)
                device.conv(*forced)(x, weight, bias, out=out, **call)
            else:
                device.verbs(*forced)(x, weight, bias, out=out, **self.case.call)
        if not isinstance(device, Recorder):
            oracle.assert_exact(out, self.exact, self.way.dtype)


@contextmanager
def sums(*, shared):
    """Let blocks share even short sums, or leave all as it is."""
    if not shared:
        yield
        return
    launch._recalled.cache_clear()
    try:
        with patch.object(gemm, "LONG_SUM", 8):
            yield
    finally:
        launch._recalled.cache_clear()


def odd():
    """Yield a problem for every kernel that can compute a case."""
    for case in cases.ODD:
        for name, adjoint in BOTH:
            if WAYS[name].computes(case):
                yield pytest.param(name, adjoint, case, id=f"{label(name, adjoint)}-{case}")


def far():
    """Yield the arrays of a problem, and those of their axes that can be long."""
    for name, adjoint in BOTH:
        case = VECTORS.get(name, DENSE)
        for place in PLACES:
            for axis in range(1 if place == "bias" else 4):
                if place == "weight" and case.weight[axis] == 1:
                    continue
                # Hopper wants one distance between positions, and one between taps.
                if "hopper" in name and axis > 1 and place == "weight":
                    continue
                if name == "hopper, copied" and axis > 1 and place == "x":
                    continue
                yield pytest.param(
                    name, adjoint, place, axis, id=f"{label(name, adjoint)}-{place}-{axis}"
                )


def label(name, adjoint):
    return f"{name}, adjoint" if adjoint else name


ODD, LONG = [*odd()], [*far()]


@pytest.fixture(scope="session")
def compiled():
    """Compile in a few units what all tests need."""
    standin.skip_without_compiler()
    recorders = {capability: Recorder(capability=capability) for capability in (80, 90)}
    for name, adjoint, case in (param.values for param in ODD):
        problem = Problem.of(name, adjoint, case)
        problem.compute(recorders[problem.way.capability], *problem.arrays())
    for name, adjoint, place, axis in (param.values for param in LONG):
        problem = Problem.of(name, adjoint, VECTORS.get(name, DENSE))
        recorder = recorders[problem.way.capability]
        problem.compute(recorder, *problem.arrays())
        problem.compute(recorder, *problem.arrays(**{place: {"far": axis}}))
    for name, adjoint in NAMES:
        three_channels(recorders[80], name, adjoint, "x")
    Standin(capability=90).prepare([s for r in recorders.values() for s in r.launched])


def on(device, name):
    """Return a device that has what a kernel needs."""
    if isinstance(device, Standin):
        return Standin(capability=WAYS[name].capability)
    if WAYS[name].kernel == "hopper" and device.device.capability != 90:
        pytest.skip("needs compute capability 9.0")
    return device


@pytest.mark.parametrize(("name", "adjoint", "case"), ODD)
def test_odd_numbers_of_everything(name, adjoint, case, device):
    problem = Problem.of(name, adjoint, case)
    problem.compute(on(device, name), *problem.arrays())


@pytest.mark.parametrize(("name", "adjoint"), BOTH, ids=[label(*both) for both in BOTH])
def test_arrays_may_begin_between_two_vectors(name, adjoint, device):
    problem = Problem.of(name, adjoint, VECTORS.get(name, DENSE))
    for places in (*((place,) for place in PLACES), PLACES):
        for shift in (1, 3, 4):
            arrays = problem.arrays(**{place: {"shift": shift} for place in places})
            problem.compute(on(device, name), *arrays)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "adjoint"), NAMES, ids=[label(*both) for both in NAMES])
def test_channels_may_span_more_than_2_to_the_31_elements(name, adjoint, place, device):
    assert three_channels(device, name, adjoint, place).ravel().tolist() == [10, 17, 26]


def three_channels(device, name, adjoint, place):
    """Return the results of three groups of one element each, one array of which is long."""
    arrays = {name: np.empty(3, F2) for name in PLACES}
    arrays[place] = np.zeros(FAR + 1, F2)[:: FAR // 2]  # pages that nobody touches take no room
    x, weight, bias, out = arrays.values()
    x[...], weight[...], bias[...] = (2, 3, 4), (3, 4, 5), (4, 5, 6)
    x, weight, out = x.reshape(1, 3, 1), weight.reshape(3, 1, 1), out.reshape(1, 3, 1)
    compute = (device.conv if adjoint else device.verbs)(WAYS[name].kernel)
    return compute(x, weight, bias, groups=3, out=out)


# A GPU would be sent gigabytes for each of these.
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(("name", "adjoint", "place", "axis"), LONG)
def test_an_axis_of_any_array_may_span_more_than_2_to_the_31_elements(name, adjoint, place, axis):
    problem = Problem.of(name, adjoint, VECTORS.get(name, DENSE))
    device = on(Standin(), name)
    problem.compute(device, *problem.arrays(**{place: {"far": axis}}))
    assert 64 in [specialisation.index_bits for specialisation in device.launched]
