"""The demo: an FCN-8s decoder on pictures of any kind and size, and a learned decoder on two."""

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tconv import __main__, transposed_conv2d
from tconv.commands.demo import drawing, fcn8s, layer, learned, pictures, scores

RED, BLUE = (200, 30, 30), (20, 40, 180)


def halves(height=64, width=128):
    """A picture whose left half is red and whose right half is blue."""
    image = np.empty((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = RED, BLUE
    return image


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def picture(image, name="picture"):
    return pictures.Picture(name, np.float32(image) / np.float32(255))


def segment(*images, classes=4):
    return fcn8s.segment([picture(image) for image in images], classes, lambda _: None)


@pytest.fixture
def demo(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; return its exit status and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = __main__.main(["demo", *arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def save(name, image, **options):
    Image.fromarray(image).save(name, **options)


# The command


def test_without_arguments_it_draws_the_sample_photographs_and_what_was_learned(demo):
    status, out, err = demo()
    assert (status, err) == (0, "")
    assert out.count("equal\n") + out.count("equal ") == 3 * (len(pictures.SAMPLES) + 2)
    assert out.count("equal within rounding") == 3 * 2
    assert "1x48x37x48" in out
    for photograph in learned.photographs():
        assert f"in the held-out part of {photograph.name}" in out
    assert "1x8x64x64" in out
    assert "1x8x512x512" in out
    assert "without a trained" in out
    with Image.open("demo.png") as drawn:
        assert drawn.width == 1600
        assert drawn.height > 1300
        # A drawing of two photographs is not a few flat panels.
        assert len(drawn.convert("RGB").quantize(256).getcolors()) > 100


def test_the_drawing_shows_photograph_coarse_classes_mask_and_outlines(demo):
    save("halves.png", halves())
    assert demo("halves.png", "--output", "drawn.png")[0] == 0
    with Image.open("drawn.png") as drawn:
        middle = np.asarray(drawn.convert("RGB"))[drawn.height // 2]
    for panel in range(4):
        row = middle[400 * panel : 400 * (panel + 1)].astype(int)
        for colour in (RED, BLUE):
            near = np.abs(row - colour).max(axis=1) <= 2
            assert near.sum() > 150, f"panel {panel} lacks {colour}"
    white = (middle[1200:] == 255).all(axis=1)
    assert white[150:250].any(), "no outline between the halves"


def test_the_mask_is_drawn_in_as_many_colours_as_it_has_classes(demo):
    save("noise.png", halves(64, 128) // 2 + noise(64, 128) // 4)
    assert demo("noise.png", "--classes", "3")[0] == 0
    with Image.open("demo.png") as drawn:
        middle = np.asarray(drawn.convert("RGB"))[drawn.height // 2]
    photograph, coarse, mask, _ = (
        len(np.unique(panel[20:-20], axis=0)) for panel in np.split(middle, 4)
    )
    assert photograph > 50
    assert 1 <= coarse <= 3
    assert 2 <= mask <= 3


def test_pictures_of_one_padded_size_are_one_batch_and_each_keeps_its_row(demo):
    colours = {"a.png": (250, 0, 0), "b.png": (0, 250, 0), "c.png": (0, 0, 250)}
    for (name, colour), size in zip(colours.items(), [(40, 40), (90, 20), (64, 33)], strict=True):
        save(name, np.full((*size, 3), colour, np.uint8))
    status, out, _ = demo(*colours)
    assert status == 0
    assert "2 pictures, one batch" in out
    assert "2x8x64x64" in out
    assert out.count("equal") == 6
    assert "learned" not in out
    with Image.open("demo.png") as drawn:
        panels = np.split(np.asarray(drawn.convert("RGB")), 4, axis=1)
    for panel in panels:
        down = panel[:, 200].tolist()
        rows = [
            np.mean([i for i, pixel in enumerate(down) if np.allclose(pixel, colour, atol=3)])
            for colour in colours.values()
        ]
        assert rows == sorted(rows), "the pictures are not in the order they were named"


def test_a_wrong_layer_is_named_and_the_exit_status_is_1(demo, monkeypatch):
    def wrong(x, weight, **arguments):
        y = transposed_conv2d(x, weight, **arguments)
        if arguments["stride"] == 8:
            y[0, 2, 5, 7] += 2**-18
        return y

    monkeypatch.setattr(fcn8s, "transposed_conv2d", wrong)
    save("a.png", noise(40, 40))
    status, out, _ = demo("a.png")
    assert status == 1
    assert out.count("equal") == 2
    assert "DIFFERS" in out
    assert "upscore8 is not what tconv.reference computes" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png"], "none.png is not a file; check its name"),
        (["folder"], "folder is a folder; name the pictures in it"),
        (["empty.png"], "empty.png is empty; give a picture"),
        (
            ["text.png"],
            "text.png cannot be read as a picture (cannot identify image file 'text.png'); "
            "convert it to PNG or JPEG",
        ),
        (
            ["cut.png"],
            "cut.png cannot be read as a picture (image file is truncated); "
            "convert it to PNG or JPEG",
        ),
        (["good.png", "none.png"], "none.png is not a file; check its name"),
        (["good.png"] * 51, "51 pictures are too many for one drawing; give 50"),
        (["good.png", "--classes", "1"], "--classes 1 must be between 2 and 64"),
        (["good.png", "--classes", "65"], "--classes 65 must be between 2 and 64"),
        (
            ["--output", "none/demo.png"],
            "cannot write --output none/demo.png: No such file or directory",
        ),
        (["--output", "folder.png"], "cannot write --output folder.png: Is a directory"),
        (["--output", "demo"], "--output demo must end in .png, .jpg, .pdf, .svg"),
        (
            ["good.png", "--output", "./good.png"],
            "--output ./good.png would overwrite a picture; choose another name",
        ),
    ],
)
def test_a_mistake_is_one_line_with_exit_status_2(demo, arguments, message):
    Path("folder").mkdir()
    Path("folder.png").mkdir()
    Path("empty.png").touch()
    Path("text.png").write_text("no picture")
    save("good.png", noise(40, 40))
    Path("cut.png").write_bytes(Path("good.png").read_bytes()[:2000])
    before = sorted(os.listdir())
    assert demo(*arguments) == (2, "", f"tconv: {message}\n")
    assert sorted(os.listdir()) == before


def test_an_unwritable_output_is_noticed_before_the_work(demo, monkeypatch):
    monkeypatch.setattr(pictures, "samples", lambda: pytest.fail("the work has begun"))
    assert demo("--output", "none/demo.png")[0] == 2


def test_a_wrong_number_of_threads_is_noticed_before_the_work(demo, monkeypatch):
    monkeypatch.setattr(pictures, "samples", lambda: pytest.fail("the work has begun"))
    monkeypatch.setenv("TCONV_NUM_THREADS", "abc")
    message = "TCONV_NUM_THREADS='abc' must be a whole number of threads, at least 1"
    assert demo() == (2, "", f"tconv: {message}\n")


def test_a_mistake_leaves_an_older_drawing_as_it_is(demo):
    Path("demo.png").write_bytes(b"older")
    assert demo("none.png")[0] == 2
    assert Path("demo.png").read_bytes() == b"older"


@pytest.mark.parametrize(
    ("library", "name"),
    [("matplotlib", "matplotlib"), ("rich", "rich"), ("skimage", "scikit-image")],
)
def test_a_missing_library_is_named_with_what_to_install(demo, monkeypatch, library, name):
    monkeypatch.setitem(sys.modules, library, None)
    assert demo() == (2, "", f"tconv: demo needs {name}; pip install 'tconv[demo]'\n")


def test_the_command_line_loads_the_demos_libraries_only_for_the_demo():
    code = (
        "import sys, tconv.__main__\n"
        "print(sorted({'matplotlib', 'skimage', 'rich', 'PIL'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_a_file_name_is_shown_as_it_is_spelt(demo):
    name = "$\\frac$ [red] 猫.png"
    save(name, noise(40, 40))
    status, out, err = demo(name)
    assert (status, err) == (0, "")
    assert name in out


# Segments


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (64, 64), (3, 200), (97, 1)])
def test_the_mask_has_the_size_of_the_picture(size):
    (found,), layers = segment(noise(*size))
    assert found.mask.shape == size
    assert found.coarse.shape == tuple(-(-n // 32) for n in size)
    assert found.mask.max() < len(found.palette) == 4
    assert [layer.out_shape[2] / layer.x_shape[2] for layer in layers] == [2, 2, 8]
    assert all(layer.is_right and layer.is_whole for layer in layers)


def test_two_colours_are_two_classes_with_the_border_where_it_is():
    (found,), _ = segment(halves(96, 128))
    left, right = found.mask[0, 0], found.mask[0, -1]
    assert left != right
    assert (found.mask[:, :60] == left).all()
    assert (found.mask[:, 68:] == right).all()
    np.testing.assert_allclose(found.palette[[left, right]] * 255, [RED, BLUE], atol=1)


def test_texture_alone_makes_two_classes():
    image = np.full((64, 64, 3), 128, np.uint8)
    image[:, ::2], image[:, 1::2] = 100, 156
    image[:, :32] = 128
    (found,), _ = segment(image, classes=2)
    assert (found.mask[:, :28] == found.mask[0, 0]).all()
    assert (found.mask[:, 36:] == 1 - found.mask[0, 0]).all()


def test_a_flat_picture_is_one_class():
    (found,), _ = segment(np.full((70, 90, 3), 77, np.uint8), classes=8)
    assert not found.mask.any()


def test_a_picture_gets_the_same_segments_alone_and_in_a_batch():
    images = [noise(50, 60, seed=seed) for seed in range(3)]
    batch, layers = segment(*images)
    assert layers[0].x_shape[0] == 3
    for image, found in zip(images, batch, strict=True):
        (alone,), _ = segment(image)
        np.testing.assert_array_equal(found.mask, alone.mask)
        np.testing.assert_array_equal(found.coarse, alone.coarse)
        np.testing.assert_array_equal(found.palette, alone.palette)


def test_scores_are_whole_quarters_from_minus_8_to_0_and_the_best_is_0():
    levels, palette = scores.scores(np.float32(noise(64, 96)) / np.float32(255), 5)
    assert [level.shape for level in levels] == [(5, 2, 3), (5, 4, 6), (5, 8, 12)]
    assert palette.shape == (5, 3)
    for level in levels:
        assert level.dtype == np.float32
        assert (level * 4 == np.rint(level * 4)).all()
        assert level.min() >= -8
        assert (level.max(axis=0) == 0).all()


# The decoder


def interpolate(maps, times):
    """Upsample bilinearly, one output at a time: zero beyond the border, as a decoder has it."""
    count, height, width = maps.shape
    out = np.zeros((count, height * times, width * times))
    for row, column in np.ndindex(out.shape[1:]):
        # The position of the output's centre on the grid of the inputs' centres.
        y, x = (row + 0.5) / times - 0.5, (column + 0.5) / times - 0.5
        for i, j in np.ndindex(height, width):
            near = max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j))
            out[:, row, column] += near * maps[:, i, j]
    return out


def test_the_decoder_fuses_three_resolutions_and_interpolates_between():
    rng = np.random.default_rng(3)
    score32, score16, score8 = (
        np.float32(rng.integers(-32, 1, (1, 4, 2 * n, n)) / 4) for n in (1, 2, 4)
    )
    fused = interpolate(score32[0], 2) + score16[0]
    fused = interpolate(fused, 2) + score8[0]
    expected = interpolate(fused, 8).argmax(axis=0)
    mask, layers = fcn8s.decode(score32, score16, score8, lambda _: None)
    np.testing.assert_array_equal(mask, expected[None])
    assert [layer.name for layer in layers] == ["upscore2", "upscore_pool4", "upscore8"]
    assert len(np.unique(mask)) == 4


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize(("kernel_size", "stride"), [(4, 2), (16, 8)])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 5), (9, 3)])
def test_the_check_finds_one_output_that_is_wrong_by_the_smallest_step(
    monkeypatch, classes, kernel_size, stride, size
):
    monkeypatch.setattr(fcn8s, "WINDOW", 2)
    rng = np.random.default_rng(0)
    x = np.float32(rng.integers(-32, 1, (2, classes, *size)) / 4)
    weight = fcn8s.bilinear(classes, (kernel_size, kernel_size), groups=classes)
    y = np.stack([interpolate(maps, stride) for maps in x]).astype(np.float32)
    assert fcn8s.equals_reference(y, x, weight, stride)
    for n, c in np.ndindex(y.shape[:2]):
        for row, column in [(0, 0), (0, -1), (-1, 0), (-1, -1), (stride - 1, stride - 1)]:
            y[n, c, row, column] += 2**-18
            assert not fcn8s.equals_reference(y, x, weight, stride)
            y[n, c, row, column] -= 2**-18
    y[1, -1, -1, -1] = np.nan
    assert not fcn8s.equals_reference(y, x, weight, stride)


def test_a_large_map_is_said_to_be_checked_in_its_corners(monkeypatch):
    monkeypatch.setattr(fcn8s, "WINDOW", 2)
    _, layers = segment(noise(64, 90))
    assert [layer.is_whole for layer in layers] == [True, False, False]
    assert all(layer.is_right for layer in layers)


def test_the_table_says_what_computed_a_layer(monkeypatch):
    x, weight = np.ones((1, 64, 16, 16), "f4"), np.ones((64, 64, 4, 4), "f4")
    assert layer.path(x, weight, stride=2) == "CPU, NumPy"
    monkeypatch.setattr(layer.gpu, "is_available", lambda: True)
    monkeypatch.setattr(layer.gpu.planning, "_current", lambda: ("NVIDIA H200", 90))
    kernel = layer.gpu.plan(x.shape, weight.shape, stride=2).choice.specialisation.kernel
    assert layer.path(x, weight, stride=2) == f"GPU, {kernel}"


@pytest.mark.gpu
def test_the_decoder_gives_the_same_on_the_gpu(monkeypatch):
    (found,), _ = segment(noise(100, 150))
    monkeypatch.setattr(layer.gpu, "is_available", lambda: False)
    (expected,), _ = segment(noise(100, 150))
    np.testing.assert_array_equal(found.mask, expected.mask)


# The learned decoder


def test_the_learned_weights_find_coins_and_writing_that_were_held_out():
    weights = learned.weights()
    found = [learned.segment(p, weights, lambda _: None)[0] for p in learned.photographs()]
    assert [result.labelled.classes for result in found] == [
        ["background", "coin"],
        ["background", "writing"],
    ]
    assert found[0].iou > 0.97
    assert found[1].iou > 0.72


def test_the_learned_weights_are_a_small_file():
    path = Path(learned.__file__).with_name("weights.npz")
    assert 10_000 < path.stat().st_size < 200_000


def test_iou_is_the_mean_over_the_classes_of_the_labels():
    labels = np.array([[0, 0, 1, 1]])
    assert learned.iou(labels, labels) == 1
    # Of class 0: one of three; of class 1: one of two.
    assert learned.iou(np.array([[0, 2, 0, 1]]), labels) == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_the_labels_are_the_coins_and_the_ink():
    coins, page = learned.photographs()
    assert ndimage.label(coins.labels)[1] == 24
    assert 0.3 < coins.labels.mean() < 0.36
    assert page.grey[page.labels == 2].mean() < page.grey[page.labels == 0].mean() - 0.3


@pytest.mark.parametrize("wrong", [0, 1e-3, np.nan])
def test_the_learned_layers_are_compared_within_rounding(wrong):
    rng = np.random.default_rng(0)
    x, weight, bias = (
        rng.normal(size=shape).astype(np.float32) for shape in [(1, 5, 4, 6), (5, 3, 4, 4), 3]
    )
    y = transposed_conv2d(x, weight, bias, stride=2, padding=1)
    for m in range(3):
        y[0, m, -1, -1] += wrong
        assert learned.agrees(y, x, weight, bias, 2) == (wrong == 0)
        y[0, m, -1, -1] -= wrong


def test_learned_layers_that_exchange_two_channels_are_found():
    rng = np.random.default_rng(0)
    x, weight, bias = (
        rng.normal(size=shape).astype(np.float32) for shape in [(1, 5, 4, 6), (5, 4, 4, 4), 4]
    )
    y = transposed_conv2d(x, weight, bias, stride=2, padding=1)
    for a, b in combinations(range(4), 2):
        exchanged = y.copy()
        exchanged[:, [a, b]] = y[:, [b, a]]
        assert not learned.agrees(exchanged, x, weight, bias, 2)


def test_a_wrong_learned_layer_is_named_and_the_exit_status_is_1(demo, monkeypatch):
    def wrong(x, weight, bias, **arguments):
        y = transposed_conv2d(x, weight, bias, **arguments)
        if weight.shape[:2] == (32, 16):
            y[0, 3, 20, 30] += 1e-2
        return y

    monkeypatch.setattr(learned, "transposed_conv2d", wrong)
    page = learned.photographs()[1:]
    monkeypatch.setattr(learned, "photographs", lambda: page)
    status, out, _ = demo()
    assert status == 1
    assert out.count("DIFFERS") == 1
    assert "up2 is not what tconv.reference computes" in out


# Reading


def read(name, image, **options):
    save(name, image, **options)
    return pictures.read(name).rgb


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
class TestRead:
    def test_colours_are_kept(self):
        np.testing.assert_array_equal(
            read("a.png", noise(5, 7)), noise(5, 7) / np.float32(255), strict=True
        )

    def test_grey_becomes_three_equal_channels(self):
        grey = noise(5, 7, 1)[..., 0]
        np.testing.assert_allclose(read("a.png", grey), grey[..., None].repeat(3, 2) / 255, 1e-6)

    def test_what_is_transparent_lies_on_white(self):
        image = np.zeros((2, 2, 4), np.uint8)
        image[0, 0] = (255, 0, 0, 255)
        np.testing.assert_array_equal(
            read("a.png", image), [[[1, 0, 0], [1, 1, 1]], [[1, 1, 1], [1, 1, 1]]]
        )

    def test_16_bits_are_stretched_to_their_own_range(self):
        image = np.array([[1000, 2000, 3000]], np.uint16)
        np.testing.assert_allclose(read("a.png", image)[0, :, 0], [0, 0.5, 1], atol=1 / 255)

    def test_16_bits_without_a_range_are_black(self):
        assert not read("a.png", np.full((2, 2), 1000, np.uint16)).any()

    def test_a_float_picture_may_have_nan_and_infinity(self):
        image = np.array([[np.nan, np.inf, 2.0, -np.inf, 1.0]], np.float32)
        np.testing.assert_allclose(read("a.tif", image)[0, :, 1], [0, 0, 1, 0, 0.5], atol=1 / 255)

    def test_a_palette_and_a_bitmap_are_pictures_too(self):
        Image.fromarray(halves(4, 4)).convert("P").save("a.gif")
        assert pictures.read("a.gif").rgb[0, 0] == pytest.approx(np.array(RED) / 255, abs=0.1)
        Image.fromarray(noise(4, 4, 1)[..., 0] > 127).save("b.png")
        assert set(pictures.read("b.png").rgb.ravel()) == {0, 1}

    def test_a_camera_held_upright_makes_an_upright_picture(self):
        orientation = Image.Exif()
        orientation[0x0112] = 6  # to be turned by 90 degrees clockwise
        assert read("a.png", halves(10, 20), exif=orientation).shape == (20, 10, 3)

    def test_a_larger_picture_is_shrunk(self, monkeypatch):
        monkeypatch.setattr(pictures, "LONGEST_SIDE", 50)
        save("a.png", halves(40, 100))
        shrunk = pictures.read("a.png")
        assert (shrunk.size, shrunk.is_shrunk) == ((20, 50), True)
        save("a.png", halves(40, 50))
        kept = pictures.read("a.png")
        assert (kept.size, kept.is_shrunk) == ((40, 50), False)

    def test_a_size_that_pillow_warns_of_is_read_without_a_word(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        assert read("a.png", halves(30, 40)).shape == (30, 40, 3)


def test_padding_mirrors_the_last_rows_and_columns():
    image = noise(3, 40)
    padded = picture(image).padded()
    assert padded.shape == (32, 64, 3)
    np.testing.assert_array_equal(padded[:3, :40], picture(image).rgb)
    np.testing.assert_array_equal(padded[3:6, :40], picture(image).rgb[::-1])
    np.testing.assert_array_equal(padded[:3, 40:], picture(image).rgb[:, :15:-1])


def test_a_batch_holds_no_more_pixels_than_the_largest_picture(monkeypatch):
    monkeypatch.setattr(pictures, "LONGEST_SIDE", 64)
    sizes = [(32, 32)] * 5 + [(64, 64), (20, 30), (60, 60)]
    batches = pictures.batches([picture(noise(*size)) for size in sizes])
    assert batches == [[0, 1, 2, 3], [4, 6], [5], [7]]


def test_a_tall_and_a_thin_picture_can_be_drawn_together(tmp_path):
    found = [segment(noise(*size))[0][0] for size in [(400, 2), (2, 400)]]
    drawing.draw(found, [], str(tmp_path / "drawn.png"))
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.width == 1600
        assert 1200 < drawn.height < 1600
