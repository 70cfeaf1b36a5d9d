"""The ConvTranspose cases of the ONNX standard, through padding pairs."""

import warnings

import numpy as np
import pytest

pytestmark = pytest.mark.onnx

NAMES = [
    "test_convtranspose",
    "test_convtranspose_1d",
    "test_convtranspose_3d",
    "test_convtranspose_autopad_same",
    "test_convtranspose_dilations",
    "test_convtranspose_group_2",
    "test_convtranspose_group_2_image_3",
    "test_convtranspose_kernel_shape",
    "test_convtranspose_output_shape",
    "test_convtranspose_pad",
    "test_convtranspose_pads",
]


@pytest.fixture(scope="module")
def standard():
    """The standard's cases by name."""
    pytest.importorskip("onnx")
    with warnings.catch_warnings():
        # Other operators' cases overflow while they are made.
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        loaded = load_model_tests(kind="node")
    return {
        case.name: case
        for case in loaded
        if any(node.op_type == "ConvTranspose" for node in case.model.graph.node)
    }


def arguments(node, x, weight):
    """Translate the attributes of a ConvTranspose node."""
    from onnx.helper import get_attribute_value

    ndim = x.ndim - 2
    given = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
    auto_pad = given.get("auto_pad", b"NOTSET").decode()
    stride = given.get("strides", [1] * ndim)
    dilation = given.get("dilations", [1] * ndim)
    extra = given.get("output_padding", [0] * ndim)
    call = {"stride": stride, "dilation": dilation, "groups": given.get("group", 1)}
    if "output_shape" in given:
        pads = []
        for axis, wanted in enumerate(given["output_shape"][-ndim:]):
            natural = (
                (x.shape[2 + axis] - 1) * stride[axis]
                + (weight.shape[2 + axis] - 1) * dilation[axis] + 1 + extra[axis]
            )  # fmt: skip
            total = natural - wanted
            # The odd element goes to the end for SAME_UPPER only; what is missing is appended.
            begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            pads.append((begin, total - begin) if total > 0 else (0, total))
        # The extra elements are part of the natural size: take them back from the end.
        return call | {"padding": [(b, e - x) for (b, e), x in zip(pads, extra, strict=True)]}
    if auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        return call | {"padding": auto_pad.lower()}
    pads = given.get("pads", [0] * 2 * ndim)
    pairs = list(zip(pads[:ndim], pads[ndim:], strict=True))
    return call | {"padding": pairs, "output_padding": extra}


def test_these_are_all_cases_of_the_standard(standard):
    assert sorted(standard) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_case_of_the_standard_has_its_answer(conv, standard, name):
    case = standard[name]
    (node,) = case.model.graph.node
    assert len(case.data_sets) >= 1
    for inputs, (expected,) in case.data_sets:
        y = conv(*inputs, **arguments(node, *inputs[:2]))
        assert y.dtype == expected.dtype
        np.testing.assert_array_equal(y, expected)
