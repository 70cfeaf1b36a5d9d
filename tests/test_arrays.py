"""Arrays are computed where they are; the GPU's verbs fall back to the CPU and say why."""

import logging
import subprocess
import sys
import textwrap
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import tconv


class ForeignArray:
    """An array of a library that keeps its memory to itself."""

    def __init__(self, shape, device=0, dtype="f4"):
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.strides = np.empty(shape, dtype).strides
        self.flags = SimpleNamespace(c_contiguous=True)
        self.device = SimpleNamespace(id=device)

    def __array__(self, *args, **kwargs):
        raise AssertionError("read on the CPU")


@pytest.fixture
def cupy(monkeypatch):
    """A CuPy that has arrays, and nothing to compute with."""
    module = ModuleType("cupy")
    module.ndarray = ForeignArray
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.mark.parametrize("module", [tconv, tconv.gpu], ids=lambda m: m.__name__)
@pytest.mark.usefixtures("cupy")
def test_cupy_arrays_never_run_on_the_cpu(module, monkeypatch):
    def caught(*args, **kwargs):
        raise AssertionError(f"ran on the CPU: {args}, {kwargs}")

    monkeypatch.setattr("tconv.gpu.why_not", lambda: "a reason")
    monkeypatch.setattr("tconv._cpu.transposed_conv", caught)
    monkeypatch.setattr("tconv.reference.transposed_conv", caught)
    x, weight = ForeignArray((1, 1, 3)), ForeignArray((1, 1, 3))
    with pytest.raises(RuntimeError, match=r"^tconv cannot compute on CuPy arrays: a reason$"):
        module.transposed_conv1d(x, weight)


@pytest.mark.usefixtures("cupy")
def test_the_reference_refuses_cupy_arrays_and_says_what_to_pass():
    message = "tconv.reference computes on NumPy arrays but x is a CuPy array; pass x.get()"
    with pytest.raises(TypeError) as error:
        tconv.reference.transposed_conv1d(ForeignArray((1, 1, 3)), ForeignArray((1, 1, 3)))
    assert str(error.value) == message


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("CN", "x is a CuPy array but weight is a NumPy array; convert one"),
        ("NC", "x is a NumPy array but weight is a CuPy array; convert one"),
        ("NNC", "x is a NumPy array but bias is a CuPy array; convert one"),
        ("CCN", "x is a CuPy array but bias is a NumPy array; convert one"),
        ("NNNC", "x is a NumPy array but out is a CuPy array; convert one"),
    ],
)
def test_numpy_and_cupy_arrays_do_not_mix(arguments, message):
    make = {"N": lambda shape: np.zeros(shape, "f4"), "C": ForeignArray}
    shapes = ((1, 1, 3), (1, 1, 1), (1,), (1, 1, 3))
    arrays = [make[kind](shape) for kind, shape in zip(arguments, shapes, strict=False)]
    out = {"out": arrays.pop()} if len(arrays) == 4 else {}
    for module in (tconv, tconv.gpu, tconv.reference):
        with pytest.raises(TypeError) as error:
            module.transposed_conv1d(*arrays, **out)
        assert str(error.value) == message


@pytest.mark.usefixtures("cupy")
def test_arrays_on_two_devices_are_an_error_that_names_both():
    message = r"^x is on GPU 0 but weight is on GPU 1; move one of them$"
    with pytest.raises(ValueError, match=message):
        tconv.transposed_conv1d(ForeignArray((1, 1, 3)), ForeignArray((1, 1, 3), device=1))


@pytest.mark.usefixtures("cupy")
def test_cupy_arrays_are_checked_like_numpy_arrays():
    with pytest.raises(ValueError, match=r"^weight has 2 input channels \(axis 0\) but x has 1 "):
        tconv.transposed_conv1d(ForeignArray((1, 1, 3)), ForeignArray((2, 1, 3)))


def test_a_cupy_that_is_half_imported_is_no_obstacle(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))
    with pytest.raises(TypeError, match=r"^x must be a NumPy or CuPy array, not list$"):
        tconv.transposed_conv1d([1], np.zeros((1, 1, 1)))


@pytest.fixture
def no_gpu():
    if tconv.gpu.is_available():
        pytest.skip("this machine computes on its GPU")


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_its_verbs_give_what_the_cpu_gives(rng):
    x, weight = rng.standard_normal((2, 4, 5, 5)), rng.standard_normal((4, 3, 3, 3))
    bias, out = rng.standard_normal(6), np.zeros((2, 6, 10, 10))
    call = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "activation": "gelu"}
    assert tconv.gpu.transposed_conv2d(x, weight, bias, out=out, **call) is out
    np.testing.assert_array_equal(out, tconv.transposed_conv2d(x, weight, bias, **call))
    assert tconv.gpu.transposed_conv2d(x[0], weight, bias, **call).shape == (6, 10, 10)


NO_CUPY = "raise ModuleNotFoundError('No module named cupy', name='cupy')"
BROKEN_CUPY = "raise ImportError('libcudart.so.13: cannot open shared object file')"
NO_DRIVER = """
class CUDARuntimeError(RuntimeError):
    pass
def getDeviceCount():
    raise CUDARuntimeError("cudaErrorInsufficientDriver: the driver is older than CUDA")
"""
NO_DEVICE = """
class CUDARuntimeError(RuntimeError):
    pass
def getDeviceCount():
    return 0
"""


@pytest.mark.parametrize(
    ("cupy", "runtime", "words"),
    [
        (NO_CUPY, "", ("CuPy is not installed", "pip install 'tconv[cuda12x]'")),
        (BROKEN_CUPY, "", ("CuPy cannot be imported", "libcudart.so.13")),
        ("from . import cuda", NO_DRIVER, ("driver", "cudaErrorInsufficientDriver")),
        ("from . import cuda", NO_DEVICE, ("CUDA finds no device",)),
    ],
    ids=["no CuPy", "broken CuPy", "no driver", "no device"],
)
def test_the_fallback_says_why_and_warns_once_a_process(tmp_path, cupy, runtime, words):
    package = tmp_path / "cupy"
    (package / "cuda").mkdir(parents=True)
    (package / "__init__.py").write_text(cupy + "\nclass ndarray: pass\n")
    (package / "cuda" / "__init__.py").write_text("from . import runtime\n")
    (package / "cuda" / "runtime.py").write_text(runtime)
    child = run_python(
        """
        import logging, sys
        import numpy as np
        logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
        import tconv, tconv.gpu
        assert not tconv.gpu.is_available()
        print(tconv.gpu.why_not())
        x, weight = np.arange(6.0).reshape(1, 2, 3), np.ones((2, 1, 2))
        for _ in range(3):
            y = tconv.gpu.transposed_conv1d(x, weight, stride=2)
            assert (y == tconv.transposed_conv1d(x, weight, stride=2)).all()
        """,
        tmp_path,
    )
    why, *log = child.splitlines()
    assert all(word in why for word in words)
    assert log == [f"tconv WARNING tconv.gpu computes on the CPU: {why}"]


def run_python(code, *path):
    """Run code in a fresh process that imports from these folders first; return what it prints."""
    first = f"import sys; sys.path[:0] = {[*map(str, path), *sys.path]!r}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{first}\n{textwrap.dedent(code)}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_cpu_call_logs_nothing(caplog):
    with caplog.at_level(logging.DEBUG, "tconv"):
        tconv.transposed_conv1d(np.ones((1, 1, 2)), np.ones((1, 1, 2)))
    assert caplog.records == []


@pytest.mark.parametrize("module", [tconv, tconv.gpu, tconv.reference], ids=lambda m: m.__name__)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_module_has_the_verbs_under_their_own_names(module, ndim):
    verb = getattr(module, f"transposed_conv{ndim}d")
    assert verb.__name__ == f"transposed_conv{ndim}d"
    assert verb.__module__ == module.__name__
    assert f"over {ndim} spatial axes" in verb.__doc__
