"""Every example in a docstring, the README and the documentation runs and gives what it says."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import tconv

ROOT = Path(__file__).parents[1]
VERBS = [f"transposed_conv{ndim}d" for ndim in (1, 2, 3)]


ADAPTERS = ("torch", "onnx", "dask")
"""Modules that import the library of their name."""


def modules():
    yield tconv
    for found in pkgutil.walk_packages(tconv.__path__, "tconv."):
        if found.name not in ("tconv.__main__", *(f"tconv.{name}" for name in ADAPTERS)):
            yield importlib.import_module(found.name)


def docstring_examples():
    for module in modules():
        yield from examples_of(module)


def examples_of(module):
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


def document_examples():
    """Return one test per document, of all its fenced examples, which may build on each other."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        blocks = re.findall(r"^```(?:python|pycon)\n(.*?)^```$", path.read_text(), re.M | re.S)
        text = "\n".join(block for block in blocks if ">>>" in block)
        name = str(path.relative_to(ROOT))
        test = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
        if test.examples:
            yield test


EXAMPLES = [*docstring_examples(), *document_examples()]


def test_each_public_verb_has_an_example():
    names = {example.name for example in EXAMPLES}
    for module in ("tconv", "tconv.gpu", "tconv.reference"):
        assert names >= {f"{module}.{verb}" for verb in VERBS}


def test_the_readme_has_an_example():
    assert "README.md" in {example.name for example in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_example_gives_what_it_says(example):
    run(example)


@pytest.mark.torch
def test_the_examples_of_the_torch_adapter_give_what_they_say():
    pytest.importorskip("torch")
    examples = examples_of(importlib.import_module("tconv.torch"))
    assert examples
    for example in examples:
        run(example)


def run(example):
    report = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)
