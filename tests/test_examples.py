"""The examples run, and what they print and draw is right."""

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.signal import correlate2d

import tconv
from tconv.commands.demo import learned

EXAMPLES = Path(__file__).parent.parent / "examples"
ZERO_INSERTION = EXAMPLES / "zero_insertion.py"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
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
        [sys.executable, "-W", "error", str(ZERO_INSERTION), "--picture", str(picture)],
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


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Import an example by its name, for the CPU; it draws into an empty folder."""
    monkeypatch.setattr(tconv.gpu, "is_available", lambda: False)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    return importlib.import_module


def colours(picture):
    """Return how many colours a picture has, of 256 at most."""
    with Image.open(picture) as drawn:
        return len(drawn.convert("RGB").quantize(256).getcolors())


# Their command lines


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        *(
            (name, ["--picture", picture], message)
            for name in ("zero_insertion", "not_an_inverse", "generate", "learn_to_upsample",
                         "segment")
            for picture, message in [
                ("none/x.png", "cannot write --picture none/x.png: No such file or directory"),
                ("out", "--picture out must end in .png, .jpg, .pdf, .svg"),
            ]
        ),
        ("segment", ["--save", "none/x.npz"],
         "cannot write --save none/x.npz: No such file or directory"),
        ("segment", ["--save", "weights"], "--save weights must end in .npz"),
        ("zero_insertion", ["a", "b", "c"], "unrecognized arguments: a b c"),
        *(
            (name, [option, "0"], f"argument {option}: '0' is not a whole number, at least 1")
            for name, option in [
                ("generate", "--images"), ("generate", "--width"), ("learn_to_upsample", "--steps"),
                ("learn_to_upsample", "--features"), ("segment", "--steps"),
            ]
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)  # fmt: skip
def test_a_wrong_argument_is_told_before_the_work(
    tmp_path, monkeypatch, capsys, name, arguments, message
):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert not list(tmp_path.iterdir())


# The layers that two examples share


def integers(rng, *shape):
    return rng.integers(-3, 4, shape).astype(np.float32)


def exact_layer(load, kind):
    """A layer whose every number is exact in float32, and an input that keeps off the kinks."""
    rng = np.random.default_rng(0)
    if kind == "conv":
        layer = load("layers").Conv(integers(rng, 4, 3, 3, 3), stride=2, padding=1)
    elif kind == "bilinear":
        layer = load("segment").BilinearConv(integers(rng, 3, 4, 4, 4), stride=2, padding=1)
    else:
        weight = integers(rng, 3, 4, 4, 4)
        layer = load("layers").TransposedConv(weight, stride=2, padding=1, relu=kind == "relu")
    layer.bias += np.float32(1 / 64)
    return layer, integers(rng, 2, 3, 6, 8), rng


@pytest.mark.parametrize("kind", ["conv", "transposed", "relu", "bilinear"])
def test_the_gradients_of_a_layer_are_the_slopes_of_its_output(load, kind):
    layer, x, rng = exact_layer(load, kind)
    y = layer.forward(x)
    assert (y > 0).any()
    weights = integers(rng, *y.shape)  # of the outputs, in the number that is differentiated
    before = (weights * y).sum(dtype=float)
    gradients = [layer.backward(weights), *layer.grads]
    h = np.float32(2**-5 if kind == "bilinear" else 2**-13)  # too small to cross a kink
    for array, gradient in zip([x, *layer.parameters()], gradients, strict=True):
        direction = integers(rng, *array.shape)
        array += h * direction
        after = (weights * layer.forward(x)).sum(dtype=float)
        array -= h * direction
        assert gradient.shape == array.shape
        assert (after - before) / h == (gradient * direction).sum(dtype=float)
        assert after != before


def test_adam_moves_by_the_rate_at_first_and_ends_in_the_minimum(load):
    layers = load("layers")
    layer = layers.TransposedConv(np.zeros((1, 2, 1, 1)))
    target = np.float32([[[[3]], [[-5]]]])
    adam = layers.Adam([layer], 0.2, 200)
    for step in range(200):
        layer.grads = [layer.weight - target, np.zeros(2, np.float32)]
        adam.step()
        if step == 0:
            np.testing.assert_allclose(layer.weight, 0.2 * np.sign(target), rtol=1e-3)
    np.testing.assert_allclose(layer.weight, target, atol=0.05)
    assert not layer.bias.any()


# not_an_inverse


def test_not_an_inverse_builds_two_matrices_that_are_each_others_transpose(load, capsys):
    example = load("not_an_inverse")
    conv, transposed = example.main(np.arange(40 * 50).reshape(40, 50) % 256)
    np.testing.assert_array_equal(transposed, conv.T)
    x = np.random.default_rng(0).integers(0, 9, (example.SIZE, example.SIZE))
    expected = correlate2d(np.pad(x, 1), example.KERNEL, mode="valid")[::2, ::2]
    np.testing.assert_array_equal(conv @ x.ravel(), expected.ravel())
    out = capsys.readouterr().out
    assert "convolved    (20, 25)" in out
    assert "and back     (40, 50)" in out
    assert f"rank {np.linalg.matrix_rank(conv.T @ conv)}; the identity has 49" in out
    with Image.open("not_an_inverse.png") as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    photographs, matrices = np.split(pixels, 2)
    assert not np.ptp(photographs, axis=2).any()
    assert len(np.unique(photographs)) > 200
    redder = matrices[..., 0] - matrices[..., 2]
    for matrix in np.split(redder, 4, axis=1)[:3]:
        assert (matrix > 50).sum() > 1000
        assert (matrix < -50).sum() > 1000


def test_not_an_inverse_says_so_if_the_matrices_differ(load, monkeypatch):
    example = load("not_an_inverse")
    back = example.back
    monkeypatch.setattr(example, "back", lambda small, size: 2 * back(small, size))
    with pytest.raises(RuntimeError, match="not the transpose"):
        example.main(np.eye(20, dtype=int))


# generate


def test_generate_makes_images_through_five_layers_and_draws_them(load, capsys):
    images = load("generate").main(images=5, width=4)
    assert images.shape == (5, 3, 64, 64)
    assert np.abs(images).max() <= 1
    assert images.std(axis=(1, 2, 3)).min() > 0.1
    out = capsys.readouterr().out
    for shapes in ("100x1x1", "32x4x4", "16x8x8", "8x16x16", "4x32x32", "3x64x64"):
        assert shapes in out
    with Image.open("generate.png") as drawn:
        assert drawn.size == (300, 200)
        sheet = np.asarray(drawn.convert("RGB")).astype(int)
    for n, image in enumerate(images):
        row, column = 100 * (n // 3), 100 * (n % 3)
        corner = sheet[row + 5 : row + 50, column + 50 : column + 95].mean(axis=(0, 1)) / 255
        expected = (image[:, :32, 32:].mean(axis=(1, 2)) + 1) / 2
        np.testing.assert_allclose(corner, expected, atol=0.04)


def test_generate_gives_what_the_reference_gives_and_repeats_it(load, monkeypatch):
    example = load("generate")
    images = example.main(images=2, width=2)
    np.testing.assert_array_equal(example.main(images=2, width=2), images)
    assert not np.array_equal(example.main(images=2, width=2, seed=1), images)
    monkeypatch.setattr(tconv, "transposed_conv2d", tconv.reference.transposed_conv2d)
    np.testing.assert_allclose(example.main(images=2, width=2), images, atol=1e-3)


# learn_to_upsample


def test_an_untrained_network_enlarges_bilinearly(load):
    example = load("learn_to_upsample")
    network = example.Network(np.random.default_rng(0), features=4)
    network.detail.weight[:] = 0
    small = np.random.default_rng(1).random((2, 1, 9, 7), np.float32)
    np.testing.assert_allclose(network.enlarge(small), example.interpolate(small, 1), atol=1e-6)


def test_shrinking_averages_squares_and_psnr_is_in_decibels(load):
    example = load("learn_to_upsample")
    planes = np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6)
    np.testing.assert_array_equal(example.shrink(planes), [[[[7, 10], [25, 28]]]])
    assert example.psnr(np.full(5, 0.6), np.full(5, 0.5)) == pytest.approx(20)


def test_no_photograph_is_both_learned_from_and_held_out(load):
    example = load("learn_to_upsample")
    names = [*example.TRAINING, *example.HELD_OUT]
    assert len(set(names)) == len(names) == 11


def test_a_few_steps_of_learning_beat_bicubic_interpolation(load, capsys):
    means = load("learn_to_upsample").main(steps=200, features=16)
    assert means["nearest"] < means["bilinear"] < means["bicubic"] < means["learned"]
    assert "astronaut" in capsys.readouterr().out
    assert colours("learn_to_upsample.png") > 100


@pytest.mark.slow
def test_learning_beats_bicubic_interpolation_by_half_a_decibel(load):
    means = load("learn_to_upsample").main()
    assert means["learned"] > means["bicubic"] + 0.5


# segment


def test_segment_learns_from_no_held_out_pixel(load):
    example = load("segment")
    shown = [
        learned.Labelled(name, np.full((120, 180), np.nan, np.float32), np.full((120, 180), 2))
        for name in "ab"
    ]
    for photograph in shown:
        assert photograph.held_out == 120
        photograph.grey[:, :120], photograph.labels[:, :120] = 0.5, 1
    for seed in range(5):
        x, labels = example.patches(np.random.default_rng(seed), shown)
        assert x.shape == (example.BATCH, 1, example.PATCH, example.PATCH)
        assert np.isfinite(x).all()
        assert (labels == 1).all()


def test_a_patch_and_its_labels_are_turned_alike(load):
    example = load("segment")
    labels = np.random.default_rng(0).integers(0, 3, (112, 160))
    shown = [learned.Labelled("a", np.float32(labels) / 2, labels)]
    x, labels = example.patches(np.random.default_rng(0), shown)
    for image, numbers in zip(x, labels, strict=True):
        levels = [image[0][numbers == number] for number in range(3)]
        assert [np.ptp(level) for level in levels] == pytest.approx([0, 0, 0], abs=1e-6)
        assert levels[0][0] < levels[1][0] < levels[2][0]


def test_cross_entropy_is_the_mean_of_minus_log_p_with_its_gradient(load):
    example = load("segment")
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(2, 3, 4, 5)), rng.integers(0, 3, (2, 4, 5))
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    loss, grad = example.cross_entropy(scores, labels)
    assert loss == pytest.approx(-np.log(np.take_along_axis(p, labels[:, None], 1)).mean())
    direction = rng.normal(size=scores.shape)
    after, _ = example.cross_entropy(scores + 1e-6 * direction, labels)
    assert (after - loss) / 1e-6 == pytest.approx((grad * direction).sum(), rel=1e-4)


def test_segment_learns_draws_and_stores_what_the_demo_reads(load, monkeypatch, capsys):
    example = load("segment")
    monkeypatch.setattr(example, "PATCH", 48)
    found, losses = example.main(steps=12, save="weights.npz")
    for name in ("bilinear", "learned"):
        assert np.mean(losses[name][-4:]) < 0.9 * losses[name][0]
        assert [result.classes.shape for result in found[name]] == [(296, 384), (184, 384)]
    out = capsys.readouterr().out
    assert f"{found['learned'][1].iou:.3f}" in out
    assert colours("segment.png") > 50

    with np.load("weights.npz") as stored:
        weights = {name: stored[name].astype(np.float32) for name in stored.files}
    assert {name: array.shape for name, array in weights.items()} == {
        name: array.shape for name, array in learned.weights().items()
    }
    (again, layers) = learned.segment(learned.photographs()[0], weights, lambda _: None)
    assert all(layer.is_right for layer in layers)
    # The same network, but for the rounding to half precision.
    assert (again.classes == found["learned"][0].classes).mean() > 0.98


@pytest.mark.slow
def test_learned_kernels_segment_better_than_bilinear_ones(load):
    found, _ = load("segment").main()
    for bilinear, better in zip(found["bilinear"], found["learned"], strict=True):
        assert better.iou > bilinear.iou
