"""The examples run, and what they print and draw is right."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
ZERO_INSERTION = EXAMPLES / "zero_insertion.py"


@pytest.fixture
def example():
    return runpy.run_path(str(ZERO_INSERTION))


def arrays(printed):
    """Return the arrays that were printed, by the title above each."""
    found, title, rows = {}, "", []
    for line in printed.splitlines():
        if line.startswith("  "):
            rows.append([int(number) for number in line.strip(" []").split()])
        else:
            if rows:
                found[title] = np.array(rows)
            title, rows = (line, []) if line else (title, [])
    return found


def test_zero_insertion_prints_every_step_and_what_the_listing_gets(tmp_path):
    picture = tmp_path / "steps.png"
    run = subprocess.run(
        [sys.executable, "-W", "error", str(ZERO_INSERTION), str(picture)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stderr == ""
    steps = list(arrays(run.stdout).values())
    x, kernel, canvas, flipped, full, result, wrong, difference = steps
    assert x.shape == kernel.shape == flipped.shape == (3, 3)
    np.testing.assert_array_equal(kernel, [[1, 0, -1]] * 3)
    np.testing.assert_array_equal(flipped, [[-1, 0, 1]] * 3)
    np.testing.assert_array_equal(canvas[2:7:2, 2:7:2], x)
    assert canvas.shape == (9, 9)
    assert canvas.sum() == x.sum()
    # What a stride of 2 makes of a vertical edge kernel: differences of neighbours along a row.
    np.testing.assert_array_equal(full[1:-1, 1:-1], result)
    np.testing.assert_array_equal(result[::2, 1::2], np.diff(x))
    np.testing.assert_array_equal(result[1::2, 1::2], np.diff(x[:-1] + x[1:]))
    assert not result[:, ::2].any()
    np.testing.assert_array_equal(wrong, -result)
    np.testing.assert_array_equal(difference, -2 * result)
    assert run.stdout.count("The same by ") == 3


def test_zero_insertion_draws_its_numbers(tmp_path, example, capsys):
    picture = tmp_path / "steps.png"
    example["main"](str(picture))
    assert f"{picture} is written." in capsys.readouterr().out
    with Image.open(picture) as drawn:
        assert drawn.size == (1700, 740)
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    red, blue = (pixels[..., 0] - pixels[..., 2]), (pixels[..., 2] - pixels[..., 0])
    assert (red > 100).sum() > 20_000
    assert (blue > 100).sum() > 20_000
    assert (pixels == 0).all(axis=-1).sum() > 5_000


@pytest.mark.parametrize("way", ["by_scattering", "by_tconv", "convolution_matrix"])
def test_zero_insertion_says_so_if_one_way_differs(tmp_path, example, way):
    right = example[way]
    example["main"].__globals__[way] = lambda *arguments: right(*arguments) * 2
    with pytest.raises(RuntimeError, match="differs from the definition"):
        example["main"](str(tmp_path / "steps.png"))


def test_zero_insertion_says_so_if_the_listing_is_not_what_it_says(tmp_path, example):
    example["main"].__globals__["by_listing"] = example["by_tconv"]
    with pytest.raises(RuntimeError, match="mirrored"):
        example["main"](str(tmp_path / "steps.png"))
