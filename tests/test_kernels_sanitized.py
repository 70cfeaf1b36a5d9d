"""The kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.

Each runs in a child process on the stand-in for CUDA.  The mistakes of `kernel_mutants` are planted
there one by one, and each must be noticed.
"""

import subprocess
from pathlib import Path

import pytest

import kernel_mutants
import standin
from standin.check import WINDOWS
from standin.check_gradients import KERNELS

pytestmark = pytest.mark.skipif(
    not standin.sanitizers(), reason=f"{standin.INSTALL}; the sanitizers need g++"
)

BUILDS = [("asan", False), ("asan", True), ("tsan", False)]
BUILD_NAMES = ["ASan and UBSan, early copies", "ASan and UBSan, late copies", "TSan"]
COMPILED_IN = [
    pytest.param(kernel, *build, id=f"{kernel}-{name}")
    for kernel in WINDOWS
    for build, name in zip(BUILDS, BUILD_NAMES, strict=True)
    if kernel == "direct_channels_last" or not build[1]  # the others copy nothing asynchronously
]
"""Of the kernels that know the window when they are compiled."""


def check(*arguments, build="plain", late=False, module="check"):
    """Run `standin.check` in a child process and return what became of it."""
    python, env = standin.python(build, late=late)
    return subprocess.run(
        [*python, "-m", f"standin.{module}", *arguments],
        cwd=Path(__file__).parent, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip


def plant(mutant):
    return "--file", mutant.file, "--old", mutant.old, "--new", mutant.new


@pytest.mark.parametrize(("build", "late"), BUILDS, ids=BUILD_NAMES)
@pytest.mark.parametrize("kernel", ["gather", "gemm"])
def test_the_sanitizers_find_nothing(kernel, build, late):
    done = check(kernel, "60", "--axes", "2", "--dtypes", "f4", "f2", build=build, late=late)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("build", "late"), BUILDS[1:], ids=BUILD_NAMES[1:])
def test_the_sanitizers_find_nothing_on_hopper(build, late):
    done = check("hopper", "0", "--axes", "1", "--dtypes", "f2", build=build, late=late)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("build", "late"), BUILDS, ids=BUILD_NAMES)
def test_the_sanitizers_find_nothing_on_hopper_in_many_geometries(build, late):
    done = check("hopper", "12", "--dtypes", "f2", build=build, late=late)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("build", "late"), BUILDS, ids=BUILD_NAMES)
@pytest.mark.parametrize("kernel", ["gather", "gemm"])
def test_the_sanitizers_find_nothing_in_many_geometries(kernel, build, late):
    dtypes = ["f4", "f2", "c8", "c16"]  # one of each size
    done = check(kernel, "120", "--dtypes", *dtypes, build=build, late=late)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("build", "late"), BUILDS, ids=BUILD_NAMES)
def test_the_sanitizers_find_nothing_on_tensor_cores(build, late):
    done = check("mma", "0", "--axes", "1", "--dtypes", "f4", "f2", build=build, late=late)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("build", "late"), BUILDS, ids=BUILD_NAMES)
def test_the_sanitizers_find_nothing_on_tensor_cores_in_many_geometries(build, late):
    done = check("mma", "12", "--dtypes", "f4", "f2", build=build, late=late)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("kernel", "build", "late"), COMPILED_IN)
def test_the_sanitizers_find_nothing_where_windows_are_compiled_in(kernel, build, late):
    done = check(kernel, "0", "--axes", "2", "--dtypes", "f4", "f2", build=build, late=late)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "build", "late"), COMPILED_IN)
def test_the_sanitizers_find_nothing_where_many_windows_are_compiled_in(kernel, build, late):
    dtypes = ["f4", "f2", "c8"]
    done = check(kernel, "60", "--dtypes", *dtypes, build=build, late=late)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", kernel_mutants.FAULTS, ids=str)
def test_planted_faults_are_noticed(fault):
    arguments = (fault.kernel, "0", "--axes", "1", "--dtypes", fault.dtypes[0], *plant(fault))
    done = check(*arguments, build=fault.build, late=fault.late)
    assert done.returncode != 0
    assert fault.seen in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mutant", kernel_mutants.MUTANTS, ids=str)
def test_mutants_are_killed(mutant):
    arguments = mutant.kernel, "24", "--axes", *mutant.axes, "--dtypes", *mutant.dtypes
    done = check(*arguments, *plant(mutant))
    assert done.returncode != 0
    assert kernel_mutants.WRONG in done.stderr or done.returncode < 0, done.stderr


# --- the adjoint and the gradients ---------------------------------------------------------------


def check_gradients(*arguments, **options):
    return check(*arguments, module="check_gradients", **options)


@pytest.mark.parametrize(("build", "late"), BUILDS[1:], ids=BUILD_NAMES[1:])
def test_the_sanitizers_find_nothing_in_a_gradient(build, late):
    arguments = "weight_gradient", "10", "--axes", "1", "--dtypes", "f4"
    done = check_gradients(*arguments, build=build, late=late)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("build", "late"), BUILDS, ids=BUILD_NAMES)
@pytest.mark.parametrize("kernel", [k for k in KERNELS if k.split(",")[0] not in WINDOWS])
def test_the_sanitizers_find_nothing_in_many_gradients(kernel, build, late):
    dtypes = ["f4", "f2", "c8", "c16"]
    done = check_gradients(kernel, "50", "--dtypes", *dtypes, build=build, late=late)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kernel", WINDOWS)
def test_the_sanitizers_find_nothing_in_an_adjoint_whose_window_is_compiled_in(kernel):
    """Where it reads and writes; its barriers are those of the transposed convolution."""
    done = check_gradients(f"{kernel}, adjoint", "0", "--dtypes", "f4", "f2", build="asan")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", kernel_mutants.GRADIENT_FAULTS, ids=str)
def test_planted_faults_in_gradients_are_noticed(fault):
    arguments = fault.kernel, "0", "--axes", "1", "--dtypes", fault.dtypes[0], *plant(fault)
    done = check_gradients(*arguments, build=fault.build, late=fault.late)
    assert done.returncode != 0
    assert fault.seen in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mutant", kernel_mutants.GRADIENT_MUTANTS, ids=str)
def test_mutants_of_gradients_are_killed(mutant):
    arguments = mutant.kernel, "10", "--axes", *mutant.axes, "--dtypes", *mutant.dtypes
    done = check_gradients(*arguments, *plant(mutant))
    assert done.returncode != 0
    assert kernel_mutants.WRONG in done.stderr or done.returncode < 0, done.stderr
