"""What is installed is whole: from a wheel, from a source archive, and as an editable checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tconv

ROOT = Path(__file__).parents[1]
KERNELS = sorted(path.name for path in (ROOT / "kernels").iterdir())


def run(*command, **kwargs):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", str(folder), cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(built):
    (path,) = built.glob("*.tar.gz")
    return path


def test_the_wheel_is_pure_python_and_bears_the_version(wheel):
    assert wheel.name == f"tconv-{tconv.__version__}-py3-none-any.whl"


def test_the_wheel_holds_the_modules_the_types_marker_the_suite_and_the_kernels(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "tconv"
    modules = {path.relative_to(package.parent).as_posix() for path in package.rglob("*.py")}
    assert names >= modules
    assert names >= {"tconv/py.typed", "tconv/commands/suite.toml"}
    assert "tconv/commands/demo/weights.npz" in names
    assert names >= {f"tconv/kernels/{name}" for name in KERNELS}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_holds_nothing_else(wheel):
    metadata = f"tconv-{tconv.__version__}.dist-info/"
    for name in zipfile.ZipFile(wheel).namelist():
        assert name.startswith(("tconv/", metadata))
        assert not name.endswith((".pyc", ".so", ".cubin"))


def test_the_wheel_asks_for_numpy_and_scipy_only_and_offers_the_extras(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"tconv-{tconv.__version__}.dist-info/METADATA").decode()
    needs = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    assert [line for line in needs if "extra ==" not in line] == [
        "Requires-Dist: numpy>=1.26", "Requires-Dist: scipy>=1.11",
    ]  # fmt: skip
    extras = {line[16:] for line in metadata.splitlines() if line.startswith("Provides-Extra: ")}
    assert extras >= {"cuda12x", "cuda13x", "demo", "bench", "test"}


def test_the_source_archive_holds_all_that_tests_and_builds_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"pyproject.toml", "README.md", "LICENSE", "src/tconv/__init__.py"}
    assert names >= {f"kernels/{name}" for name in KERNELS}
    assert names >= {"tests/oracle.py", "tests/regression_cases.json"}


@pytest.mark.slow
@pytest.mark.parametrize("source", ["wheel", "sdist", "folder", "editable"])
def test_an_installation_computes_and_finds_its_kernels(request, tmp_path, source):
    """NumPy, SciPy and the build tool come from this environment, so that no network is needed."""
    home = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(home))
    (bin_folder,) = (path for name in ("bin", "Scripts") if (path := home / name).is_dir())
    python = bin_folder / Path(sys.executable).name
    site = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])").strip())
    (site / "borrowed.pth").write_text(str(Path(np.__file__).parents[1]))

    if source in ("wheel", "sdist"):
        target = [str(request.getfixturevalue(source))]
    else:
        target = ["-e", str(ROOT)] if source == "editable" else [str(ROOT)]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    run(*pip, *options, *target)

    folder = run(
        python, "-c", INSTALLED, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}
    ).strip()
    expected = ROOT / "src" if source == "editable" else site
    assert Path(folder).parent.resolve() == expected.resolve()
    commands = run(bin_folder / "tconv", "--help", env={**os.environ, "PYTHONPATH": ""})
    assert "usage: " in commands


INSTALLED = f"""
import numpy as np
import tconv
from tconv.gpu import source
y = tconv.transposed_conv1d(np.array([[[1, 10, 100]]]), np.array([[[1, 2, 3]]]), stride=2)
assert y.tolist() == [[[1, 2, 13, 20, 130, 200, 300]]]
assert sorted(path.name for path in source.kernels().iterdir()) == {KERNELS}
print(tconv.__path__[0])
"""
