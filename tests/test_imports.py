"""Data flows one way, and nothing is loaded that nobody asked for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tconv

PACKAGE = Path(tconv.__file__).parent
OPTIONAL = (
    "cupy", "torch", "dask", "onnx", "onnxruntime", "matplotlib", "skimage", "rich", "ml_dtypes",
)  # fmt: skip


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def imports(path, everywhere=True):
    """Return the modules that a source file imports, by their absolute names."""
    tree = ast.parse(path.read_text())
    package = ["tconv", *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def own(path):
    return {name for name in imports(path) if name.split(".")[0] == "tconv"}


def libraries(path, everywhere=True):
    found = {name.split(".")[0] for name in imports(path, everywhere)}
    return found - {"tconv"} - set(sys.stdlib_module_names)


def test_the_import_reader_sees_what_is_there():
    assert "tconv._geometry.Geometry" in own(PACKAGE / "_check.py")
    assert "tconv._api" in own(PACKAGE / "gpu" / "__init__.py")
    assert libraries(PACKAGE / "reference.py") == {"numpy", "scipy"}


def test_geometry_imports_nothing_but_the_standard_library():
    assert own(PACKAGE / "_geometry.py") == set()
    assert libraries(PACKAGE / "_geometry.py") == set()


def test_check_reads_shapes_and_dtypes_and_needs_no_array_library():
    assert own(PACKAGE / "_check.py") == {
        "tconv._geometry", "tconv._geometry.Geometry", "tconv._geometry.full_size",
    }  # fmt: skip
    assert libraries(PACKAGE / "_check.py") == set()
    tree = ast.parse((PACKAGE / "_check.py").read_text())
    arrays = {"x", "weight", "bias", "out", "array"}
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in arrays
    }
    assert read == {"shape", "dtype"}


def test_nothing_points_upwards():
    """A backend never imports the checks' callers, and _check and _geometry import no backend."""
    layers = ["_geometry", "_check", "_dispatch", "_api"]
    for height, name in enumerate(layers):
        above = {f"tconv.{other}" for other in layers[height + 1 :]}
        assert not own(PACKAGE / f"{name}.py") & above


def test_the_reference_and_the_cpu_path_do_not_know_each_other():
    assert not {name for name in own(PACKAGE / "reference.py") if "_cpu" in name}
    for path in (PACKAGE / "_cpu").rglob("*.py"):
        assert not {name for name in own(path) if "reference" in name or "gpu" in name}


def test_cupy_is_imported_by_the_gpu_backend_and_by_commands_alone():
    users = {path.relative_to(PACKAGE).parts[0] for path in sources() if "cupy" in libraries(path)}
    assert {"gpu"} <= users <= {"gpu", "commands"}


def test_only_the_compiler_names_the_module_classes_of_cupy():
    for path in sources():
        if path.relative_to(PACKAGE).parts != ("gpu", "compile.py"):
            assert not {"RawModule", "RawKernel", "nvrtc"} & names_of(path)


def test_only_numpy_and_scipy_are_imported_at_the_top_of_a_module():
    """An adapter imports the library that it is named after as well."""
    for path in sources():
        if "commands" not in path.parts:
            adapted = {path.stem} if path.parent == PACKAGE else set()
            assert libraries(path, everywhere=False) <= {"numpy", "scipy"} | adapted, path


def test_no_import_error_is_passed_over_in_silence():
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                assert not isinstance(node.body[0], ast.Pass), f"{path}:{node.lineno}"


def names_of(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} | {
        node.id for node in nodes if isinstance(node, ast.Name)
    }


def python(code):
    """Run code in a fresh process that finds the package where this one does."""
    path = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{path}\n{code}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


WITHOUT = f"""
class Absent:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""

USE = """
import numpy as np
x, weight = np.ones((1, 2, 3)), np.ones((2, 1, 2))
for module in (tconv, tconv.reference):
    assert module.transposed_conv1d(x, weight, stride=2).tolist() == [[[2] * 6]]
try:
    tconv.transposed_conv1d([1], weight)
except TypeError as error:
    assert str(error) == "x must be a NumPy or CuPy array, not list"
"""


def test_importing_and_computing_loads_no_optional_library_and_prints_nothing():
    """Recognising arrays and answering what is none imports nothing either."""
    done = python(f"import tconv\n{USE}\nprint(*sorted(m for m in {OPTIONAL} if m in sys.modules))")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_importing_and_computing_works_without_any_optional_library():
    fall_back = "tconv.gpu.transposed_conv1d(x, weight)"
    done = python(f"{WITHOUT}\nimport tconv, tconv.gpu\n{USE}\n{fall_back}")
    assert done.returncode == 0, done.stderr
    assert "CuPy is not installed" in done.stderr


def test_importing_does_not_load_scipy_signal_which_is_slow():
    done = python("import tconv; print('scipy.signal' in sys.modules)")
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", tconv.__all__)
def test_every_public_name_exists_and_is_documented(name):
    public = getattr(tconv, name)
    assert name == "__version__" or public.__doc__


def test_the_gpu_module_can_be_imported_alone():
    assert python("import tconv.gpu; tconv.gpu.why_not()").returncode == 0
