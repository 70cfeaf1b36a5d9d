"""What is read from machine code and geometry: `benchmarks/static/`."""

import math
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

from static import chosen, limits, occupancy, record, sass, traffic
from tconv import gpu
from tconv.gpu import compile
from tconv.gpu.call import Call, Strides, contiguous
from tconv.gpu.choice import Specialisation
from tconv.gpu.select import select

ROOT = Path(__file__).parent.parent


def program(text):
    """Return the instructions of a listing, as nvdisasm's JSON has them: a number, then a line."""
    lines = (line.split(maxsplit=1) for line in text.strip().splitlines())
    listed = [{"opcode": line[0], "operands": line[1] if line[1:] else ""} for line in lines]
    header = {"SM": {"version": {"major": 9, "minor": 0}}}
    return sass.parse([header, [{"function-name": "k", "sass-instructions": listed}]])


def address(number):
    return f"{number * sass.BYTES:#x}"


# A matrix product as the compiler writes it.  Its step loop (1 to 14) brings data with copies,
# seeks the next tap in a loop of its own (3 to 5), multiplies in another (7 to 11), and ends at a
# barrier.
NESTED = program(f"""
    S2R R0,SR_TID.X
    LDGSTS.E.BYPASS.LTC128B.128 [R4],desc[UR4][R2.64]
    HFMA2.MMA R9,-RZ,RZ,0,0
    IADD3 R6,R6,0x1,RZ
    ISETP.GE.AND P0,PT,R6,R7,PT
    BRA {address(3)}
    LDGDEPBAR
    LDS.128 R12,[R10]
    FFMA R20,R12,R16,R20
    FFMA R21,R12,R17,R21
    FFMA R22,R12,R18,R22
    BRA.U !UP0,{address(7)}
    BAR.SYNC.DEFER_BLOCKING 0x0
    ISETP.NE.AND P1,PT,R8,RZ,PT
    BRA P1,{address(1)}
    FFMA R20,R12,R16,R20
    STG.E desc[UR4][R2.64],R20
    BRA {address(18)}
    EXIT
    BRA {address(19)}
    NOP
""")


@pytest.mark.parametrize(
    ("opcode", "width"),
    [
        ("LDG.E", 4),
        ("LDG.E.CONSTANT", 4),
        ("LDG.E.128.CONSTANT", 16),
        ("LDG.E.64", 8),
        ("LDG.E.U16.CONSTANT", 2),
        ("LDS.U8", 1),
        ("STG.E.128", 16),
        ("LDGSTS.E.LTC128B", 4),
        ("LDGSTS.E.BYPASS.LTC128B.128", 16),
        ("LDG.E.ENL2.256", 32),
    ],
)
def test_the_width_of_an_access_is_what_its_modifier_says(opcode, width):
    assert sass.Instruction(opcode).width == width


@pytest.mark.parametrize(
    ("opcode", "operands", "products"),
    [
        ("FFMA", "R0,R1,R2,R0", 1),
        ("FFMA2", "R0,R2.F32x2,R4.F32x2,R0", 2),
        ("DFMA", "R0,R2,R4,R0", 1),
        ("HFMA2", "R0,R1,R2,R0", 2),
        ("HFMA2", "R9,-RZ,RZ,0,0", 0),
        ("HFMA2.MMA", "R9,-RZ,RZ,0,0", 0),
        ("HMMA.16816.F32", "R0,R4,R8,R0", 64),
        ("HMMA.1688.F32.TF32", "R0,R4,R8,R0", 32),
        ("HGMMA.64x128x16.F32.BF16", "R24,gdesc[UR4],R24", 64 * 128 * 16 // 128),
        ("FADD", "R0,R1,R2", 0),
        ("IMAD", "R0,R1,R2,R3", 0),
    ],
)
def test_only_what_multiplies_elements_counts_as_products(opcode, operands, products):
    assert sass.Instruction(opcode, operands).products == products


def test_a_loop_is_a_branch_that_goes_back():
    found = [(loop.first, loop.last) for loop in sass.loops(NESTED)]
    assert found == [(3, 5), (7, 11), (1, 14)]


def test_the_main_loop_is_the_one_with_most_products_of_its_own():
    loop = sass.main_loop(NESTED)
    assert (loop.first, loop.last) == (7, 11)
    share = sass.main_share(NESTED)
    assert (share.instructions, share.multiplications, share.products) == (5, 3, 3)
    assert share.fraction == 3 / 5


def test_of_loops_with_as_many_products_the_main_one_loads_vectors():
    code = program(f"""
        LDG.E R1,[R2]
        FFMA R0,R1,R2,R0
        BRA {address(0)}
        LDG.E.128 R4,[R2]
        IADD3 R6,R6,0x1,RZ
        FFMA R0,R4,R2,R0
        BRA {address(3)}
    """)
    loop = sass.main_loop(code)
    assert (loop.first, loop.last) == (3, 6)


def test_a_loop_without_products_inside_the_main_loop_does_not_take_its_place():
    unrolled = program(f"""
        FFMA R0,R1,R2,R0
        IADD3 R6,R6,0x1,RZ
        BRA {address(1)}
        FFMA R0,R1,R2,R0
        BRA {address(0)}
    """)
    share = sass.main_share(unrolled)
    assert (share.instructions, share.multiplications) == (5, 2)


def test_the_main_loop_is_not_the_loop_around_it_that_multiplies_a_little():
    code = program(f"""
        FFMA R0,R1,R2,R0
        FFMA R0,R1,R2,R0
        FFMA R0,R1,R2,R0
        BRA {address(1)}
        BRA {address(0)}
    """)
    assert sass.main_share(code) == sass.Share(3, 2, 2)


def test_a_kernel_without_a_loop_is_its_own_main_loop():
    straight = program("""
        LDG.E.128 R0,desc[UR4][R2.64]
        FFMA R0,R1,R2,R0
        EXIT
    """)
    assert sass.main_loop(straight) is None
    assert sass.round_share(straight) == sass.Share(3, 1, 1)
    assert sass.main_share(straight) == sass.Share(3, 1, 1)
    assert sass.step_share(straight, 16) == sass.Share(3, 1, 1)


def test_the_shortest_round_multiplies_and_moves_everything_and_skips_the_rest():
    looking = program(f"""
        IADD3 R6,R6,0x1,RZ
        BRA P0,{address(3)}
        LDGSTS.E.BYPASS.LTC128B.128 [R4],desc[UR4][R2.64]
        HMMA.16816.F32 R0,R4,R8,R0
        BRA P1,{address(11)}
        STS.128 [R4],R8
        BRA P2,{address(10)}
        LDS R5,[R4]
        BRA P3,{address(7)}
        IADD3 R6,R6,0x1,RZ
        BRA P4,{address(0)}
        EXIT
    """)
    # Only what lies between the branch at 6 and its target is skipped.
    assert sass.main_share(looking) == sass.Share(11, 1, 64)
    assert sass.round_share(looking) == sass.Share(8, 1, 64)


def test_results_leave_by_the_loop_that_issues_least_for_a_byte():
    storing = program(f"""
        LDS R5,[R4]
        FFMA R0,RZ,R5,R0
        BRA P0,{address(4)}
        STG.E.64 desc[UR4][R2.64],R4
        IADD3 R6,R6,0x1,RZ
        BRA P1,{address(0)}
        LDS R5,[R4]
        BRA P2,{address(6)}
        STG.E desc[UR4][R2.64],R5
        BRA P3,{address(6)}
        BRA P4,{address(0)}
        LDG.E R5,desc[UR4][R2.64]
        STG.E.64 desc[UR4][R2.64],R4
        BRA P3,{address(11)}
        EXIT
    """)
    # 8 bytes with 6 instructions; the second loop takes 4 for 4 bytes, the last one loads.
    assert sass.way_out(storing) == {8: 6}
    assert sass.way_out(program("STG.E desc[UR4][R2.64],R5\nEXIT")) == {}


def test_the_shortest_round_jumps_where_it_must():
    either = program(f"""
        BRA P0,{address(3)}
        HMMA.16816.F32 R0,R4,R8,R0
        BRA {address(4)}
        HMMA.16816.F32 R0,R4,R8,R0
        BRA P1,{address(0)}
    """)
    assert sass.round_share(either) == sass.Share(3, 1, 64)
    predicated = [sass.Instruction(i.opcode, i.operands, "@P0") for i in either]
    assert sass.round_share(predicated) == sass.Share(5, 2, 128)


def test_a_step_is_the_loop_around_with_as_many_rounds_of_the_main_loop_as_its_products_take():
    # 12 products are 4 rounds of 5 instructions, and there are 9 around them.
    assert sass.step_share(NESTED, 12) == sass.Share(4 * 5 + 9, 12, 12)
    assert sass.step_share(NESTED, None) == sass.main_share(NESTED)


def test_a_step_is_the_innermost_loop_that_both_multiplies_and_loads():
    step = sass.step(NESTED)
    assert (step.first, step.last) == (1, 14)
    loading = program(f"""
        IADD3 R6,R6,0x1,RZ
        LDG.E R1,desc[UR4][R2.64]
        FFMA R0,R1,R2,R0
        BRA {address(1)}
        BRA {address(0)}
    """)
    assert sass.step(loading) == sass.main_loop(loading)
    assert len(sass.step_code(loading)) == 3
    preloaded = program(f"""
        LDG.E R1,desc[UR4][R2.64]
        FFMA R0,R1,R2,R0
        BRA {address(1)}
    """)
    assert sass.step(preloaded) is None
    assert sass.step_code(preloaded) == preloaded
    other_warps_load = [*preloaded, sass.Instruction("UTMALDG.4D", "[UR8],[UR4]")]
    assert sass.step(other_warps_load) == sass.main_loop(preloaded)
    with_other_loads_around = [*loading, sass.Instruction("UTMALDG.4D", "[UR8],[UR4]")]
    assert sass.step(with_other_loads_around) == sass.main_loop(loading)


def test_accesses_are_counted_by_width_from_wide_to_narrow():
    code = program("""
        LDG.E.U16 R0,desc[UR4][R2.64]
        LDG.E.128 R4,desc[UR4][R2.64]
        LDG.E.128 R8,desc[UR4][R2.64]
        LDGSTS.E [R4],desc[UR4][R2.64]
        STL [R1],R0
    """)
    assert list(sass.widths(code, "LDG").items()) == [(16, 2), (2, 1)]
    assert sass.widths(code, "LDGSTS") == {4: 1}
    assert sass.count(code, *sass.SPILLS) == 1


@pytest.mark.parametrize(
    ("capability", "threads", "registers", "shared", "blocks", "because"),
    [
        (90, 128, 32, 0, 16, "2048 threads"),
        (86, 128, 32, 0, 12, "1536 threads"),
        (75, 32, 32, 0, 16, "16 blocks"),
        (89, 32, 32, 0, 24, "24 blocks"),
        (90, 256, 168, 0, 1, "a warp of 168 takes 5376 registers, a fourth of them holds 3"),
        (90, 128, 168, 0, 3, "the same, and a block is 4 warps"),
        (80, 128, 32, 23 << 10, 6, "164 KiB of shared memory, and 24 for a block"),
        (75, 128, 32, 32 << 10, 2, "64 KiB of shared memory, and none is reserved"),
        (90, 128, 255, 227 << 10, 1, "all of it"),
    ],
)
def test_a_multiprocessor_holds_blocks_until_something_runs_out(
    capability, threads, registers, shared, blocks, because
):
    assert occupancy.blocks(capability, threads, registers, shared) == blocks, because
    share = blocks * threads / occupancy.LIMITS[capability].threads
    assert occupancy.occupancy(capability, threads, registers, shared) == share


def a_call(x, weight, **options):
    g = gpu.plan(x, weight, **options).geometry
    strides = Strides(contiguous(x), contiguous(weight), 1, contiguous(g.out_shape))
    return Call(g, "float32", strides)


def test_gather_moves_two_elements_for_each_product_and_its_outputs():
    call = a_call((1, 1, 3), (1, 1, 3), stride=2)  # 9 products make 7 outputs
    work = traffic.traffic(call, select(call, kernel="gather"))
    assert work == traffic.Traffic(fetched=18 * 4, stored=7 * 4, products=9)
    assert work.moved == 25 * 4


def test_the_tensor_core_kernel_fills_up_channels_to_16_bytes_only():
    call = replace(a_call((1, 40, 9), (40, 32, 2), stride=2), dtype="float16")
    choice = select(call, kernel="mma")
    assert choice.column_blocks == 1
    fetched = 2 * 40 * (choice.tile.rows + choice.tile.columns)
    assert traffic.traffic(call, choice).fetched == fetched


def test_the_hopper_kernel_fetches_boxes_of_rows_and_whole_steps_of_channels():
    shape, weight = (5, 40, 6, 6), (40, 64, 2, 2)
    g = gpu.plan(shape, weight, stride=2).geometry
    strides = Strides((1440, 1, 240, 40), (64, 1, 2 * 2560, 2560), 1, (9216, 1, 768, 64))
    choice = select(Call(g, "float16", strides, capability=90), kernel="hopper")
    # Boxes of three images, 36 rows in each: 2 of them for each of the 4 phases, all with one tap.
    assert (choice.boxes.images, choice.boxes.sizes) == (3, (6, 6))
    work = traffic.traffic(Call(g, "float16", strides, capability=90), choice)
    assert work.fetched == 2 * 4 * 2 * 64 * (3 * 36 + 64)


def test_copies_that_are_made_first_are_read_and_written():
    g = gpu.plan((5, 40, 6, 6), (40, 64, 2, 2), stride=2).geometry
    out = contiguous(g.out_shape)
    plain = Strides(contiguous(g.x_shape), contiguous(g.weight_shape), 1, out)
    wanted = Strides((1440, 1, 240, 40), (64, 1, 2 * 2560, 2560), 1, out)
    with_copies, without = (
        traffic.traffic(call, select(call, kernel="hopper"))
        for call in (Call(g, "float16", strides, capability=90) for strides in (plain, wanted))
    )
    copied = 2 * (5 * 40 * 36 + 40 * 64 * 4)
    assert with_copies.fetched - without.fetched == copied
    assert with_copies.stored - without.stored == copied


def test_a_cluster_fetches_its_weights_once_and_no_rows_for_a_block_that_has_none():
    g = gpu.plan((3, 64, 128), (64, 256, 2), stride=2).geometry
    strides = Strides((8192, 1, 64), (256, 1, 64 * 256), 1, (65536, 1, 256))
    call = Call(g, "float16", strides, capability=90)
    choice = select(call, kernel="hopper")
    # A box for each of the 3 images, in two clusters; 2 phases, all with one tap.
    assert (choice.specialisation["CLUSTER"], choice.blocks) == (2, 2 * 4)
    work = traffic.traffic(call, choice)
    assert work.fetched == 2 * 2 * 64 * (3 * 128 + 2 * 256)
    assert work.products == 2 * 64 * 4 * 128 * 256


def test_a_run_of_the_depthwise_kernel_moves_the_vectors_that_its_window_spans():
    call = a_call((1, 2, 4, 8), (2, 1, 4, 4), stride=2, padding=1, groups=2)
    choice = select(call)
    assert choice.specialisation.kernel == "depthwise"
    # 8 outputs of 2 rows are one run: 2 runs in 16 columns, and 5 in 8 rows after a padding of 1.
    # A run needs 6 neighbours in 2 rows; 3 elements past a multiple of 4, they lie in 3 vectors.
    runs, elements, weights = 2 * 2 * 5, 2 * 3 * 4, 2 * 4 * 4
    assert traffic.traffic(call, choice).fetched == 4 * (runs * elements + weights)


def test_a_run_of_few_output_channels_moves_as_much_of_every_channel():
    call = a_call((2, 12, 4, 8), (12, 3, 4, 4), stride=2, padding=1)
    choice = select(call)
    s = choice.specialisation
    assert (s.kernel, s["RUN_Q"], s["PHASES_Y"], s["OUT_CHANNELS"]) == ("direct", 4, 2, 3)
    # As above; 2 x 2 x 5 runs are one block, which brings in all weights.
    runs, elements, weights = 2 * 2 * 5, 12 * 2 * 3 * 4, 12 * 3 * 4 * 4
    assert traffic.traffic(call, choice).fetched == 4 * (runs * elements + weights)


def test_a_walk_in_channels_last_memory_moves_each_input_once_a_row_and_those_before_the_first():
    g = gpu.plan((1, 8, 4, 20), (8, 1, 4, 4), stride=2, padding=1, groups=8).geometry
    strides = Strides((640, 1, 160, 8), (16, 16, 4, 1), 1, (2560, 1, 320, 8))
    call = Call(g, "float32", strides)
    choice = select(call)
    assert choice.specialisation.kernel == "depthwise_channels_last"
    # 40 columns after a padding of 1 are 21 q, three walks of 7; 8 rows are 5 q of two phases each.
    assert choice.row_runs == 3
    inputs = 8 * 5 * 2 * (21 + 3 * 1)
    # 15 walks of two threads each are one block of 128 threads.
    assert choice.blocks == 1
    assert traffic.traffic(call, choice).fetched == 4 * (inputs + 8 * 16)


def counted(g, choice):
    """Count the elements that a tiled grid fetches, block by block and shift by shift."""
    tile = choice.tile
    q_sizes = [(p % s + n - 1) // s + 1 for p, s, n in zip(g.pad_begin, g.stride, g.out_size,
                                                          strict=True)]  # fmt: skip
    columns = [
        tuple((phase + p) % s for phase, p, s in zip(phases, g.pad_begin, g.stride, strict=True))
        for phases in product(*map(range, g.stride))
        for _ in range(choice.phase_columns)
    ]
    # The last step of a shift begins early enough to be whole.
    steps = math.ceil(g.in_channels // g.groups / tile.depth)
    fetched = 0
    for first in range(0, len(columns), tile.columns):
        visited = {
            tuple(shift for _, shift in taps)
            for r in columns[first : first + tile.columns]
            for taps in product(*(g.taps(a).get(r[a], ()) for a in range(g.ndim)))
        }
        rows = math.ceil(g.batch * math.prod(q_sizes) / tile.rows)
        fetched += rows * len(visited) * steps * tile.depth * (tile.rows + tile.columns)
    return g.groups * fetched


@pytest.mark.parametrize(
    ("x", "weight", "options"),
    [
        ((2, 42, 9, 9), (42, 64, 3, 3), {"stride": 2, "padding": 1}),  # each phase its own blocks
        ((2, 40, 9, 9), (40, 3, 4, 4), {"stride": 2, "padding": 1}),  # phases share a block
        ((1, 64, 9, 9), (64, 32, 2, 2), {"stride": 2, "groups": 2}),
        ((1, 32, 99), (32, 4, 9), {"stride": 8}),  # one phase in eight has a second tap
    ],
    ids=["by phase", "phases together", "groups", "some skip"],
)
def test_a_grid_of_gemm_moves_a_tile_of_each_operand_for_every_shift_of_every_block(
    x, weight, options
):
    call = a_call(x, weight, **options)
    choice = select(call, kernel="gemm")
    assert traffic.traffic(call, choice).fetched == 4 * counted(call.geometry, choice)


def test_the_adjoint_is_a_kernel_of_its_own_though_its_constants_are_those_of_the_layer():
    rows = chosen.rows(("float32",), (90,), ("linknet-up",))
    of_gemm = [row.one for row in rows if row.one.kernel == "gemm"]
    (adjoint,) = [one for one in of_gemm if one.adjoint]
    assert replace(adjoint, adjoint=False) in of_gemm


CODE = record.Code(
    spills=0, global_loads={16: 8, 4: 8}, global_stores={16: 4}, copies={}, tensor_copies=0,
    shared_loads={16: 16}, main=sass.Share(100, 92, 92), step=sass.Share(100, 92, 92),
)  # fmt: skip
GOOD = record.Measurement("gemm", 128, 20480, 0, 0, 0.5, CODE)
GEMM = Specialisation(
    "gemm", "float32", 32, threads=256,
    constants=(("COLUMNS", 128), ("X_CHANNELS_LAST", False), ("X_VECTOR", 1), ("WEIGHT_VECTOR", 4)),
)  # fmt: skip


def test_a_kernel_within_the_limits_is_not_complained_of():
    assert limits.complaints(GEMM, 90, GOOD) == []


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (replace(GOOD, spilled_bytes=8), "spills"),
        (replace(GOOD, code=replace(CODE, spills=1)), "spills"),
        (replace(GOOD, code=None, spilled_bytes=8), "spills"),
        (replace(GOOD, warnings=1), "compiles with a warning"),
        (replace(GOOD, shared_bytes=(227 << 10) + 1), "of shared memory, and has 232448"),
        (replace(GOOD, code=replace(CODE, main=sass.Share(100, 89, 89))), "less than 90.0%"),
    ],
    ids=["bytes", "instructions", "only compiled", "warning", "shared memory", "share"],
)
def test_a_broken_limit_is_named(bad, complaint):
    (found,) = limits.complaints(GEMM, 90, bad)
    assert complaint in found
    assert "on sm_90a" in found


@pytest.mark.parametrize("adjoint", [False, True])
def test_a_matrix_product_keeps_its_share(adjoint):
    kernel = replace(GEMM, adjoint=adjoint)
    for products, count in ((900, 0), (899, 1)):
        code = replace(CODE, main=sass.Share(1000, products, products))
        assert len(limits.complaints(kernel, 90, replace(GOOD, code=code))) == count


@pytest.mark.parametrize(("way_out", "complaints"), [({4: 22}, 0), ({8: 44}, 0), ({4: 23}, 1)])
def test_a_matrix_product_hands_out_its_results_with_few_instructions(way_out, complaints):
    found = limits.complaints(GEMM, 90, replace(GOOD, code=replace(CODE, way_out=way_out)))
    assert len(found) == complaints
    assert all("23.0 instructions for each output" in text for text in found)


@pytest.mark.parametrize(("dtype", "complaints"), [("float32", [0, 1]), ("float64", [0, 0])])
def test_few_output_channels_keep_their_share(dtype, complaints):
    kernel = replace(GEMM, kernel="direct", dtype=dtype, constants=())
    codes = [replace(CODE, main=sass.Share(100, percent, percent)) for percent in (68, 67)]
    found = [limits.complaints(kernel, 90, replace(GOOD, code=code)) for code in codes]
    assert [len(texts) for texts in found] == complaints


@pytest.mark.parametrize(
    ("kernel", "constants", "least"),
    [
        ("mma", {"MMA": "BF16", "COLUMNS": 128, "X_VECTOR": 8, "WEIGHT_VECTOR": 8}, 290),
        ("mma", {"MMA": "F16", "COLUMNS": 64, "X_VECTOR": 1, "WEIGHT_VECTOR": 8}, 70),
        ("mma", {"MMA": "F16", "COLUMNS": 64, "X_VECTOR": 4, "WEIGHT_VECTOR": 4}, 70),
        ("hopper", {"COLUMNS": 256}, 77),
        ("hopper", {"COLUMNS": 64}, 54),
    ],
)
def test_tensor_cores_keep_their_share_by_instruction_tile_and_copies(kernel, constants, least):
    kernel = replace(GEMM, kernel=kernel, dtype="bfloat16", constants=tuple(constants.items()))
    for count, complaints in ((least, 0), (least - 1, 1)):
        loads = {2: 1, 8: 1, 16: 1}
        code = replace(CODE, main=sass.Share(1000, count, count), global_loads=loads)
        assert len(limits.complaints(kernel, 90, replace(GOOD, code=code))) == complaints


@pytest.mark.parametrize(
    ("sizes", "adjoint", "loads", "stores", "complaints"),
    [
        ((1, 1, 4, 2), False, {16: 1}, {16: 1}, []),
        ((1, 1, 4, 2), False, {8: 1}, {16: 1}, ["loads nothing by 16 bytes"]),
        ((1, 1, 4, 2), False, {16: 1}, {8: 1, 4: 1}, ["stores nothing by 16 bytes"]),
        ((1, 1, 4, 7), True, {16: 1}, {8: 1}, ["stores nothing by 16 bytes"]),
        ((1, 1, 4, 8), True, {16: 1}, {8: 1}, []),  # twice as many would need 64 inputs or more
        ((1, 1, 4, 8), False, {8: 1}, {16: 1}, ["loads nothing by 16 bytes"]),
        ((1, 1, 4, 8), False, {16: 1}, {8: 1}, ["stores nothing by 16 bytes"]),
        ((8, 8, 4, 2), False, {8: 1}, {8: 1}, []),
    ],
)
def test_single_channels_move_by_16_bytes(sizes, adjoint, loads, stores, complaints):
    names = ("CHANNELS", "OUT_CHANNELS", "RUN_Q", "STRIDE_X")
    constants = tuple(zip(names, sizes, strict=True))
    kernel = replace(GEMM, kernel="depthwise", constants=constants, adjoint=adjoint)
    code = replace(CODE, global_loads=loads, global_stores=stores)
    found = limits.complaints(kernel, 90, replace(GOOD, code=code))
    assert [text.split(" on sm_90a ")[1] for text in found] == complaints


def test_channels_that_are_nearest_move_by_16_bytes_unless_they_are_odd_in_number():
    for vector, width, count in ((4, 8, 2), (8, 16, 0), (1, 2, 0)):
        constants = (("X_VECTOR", vector), ("OUT_VECTOR", vector))
        kernel = Specialisation("depthwise_channels_last", "float16", 32, 128, constants)
        code = replace(CODE, global_loads={width: 1}, global_stores={width: 1})
        assert len(limits.complaints(kernel, 90, replace(GOOD, code=code))) == count


@pytest.mark.parametrize(
    ("constant", "complaint"),
    [
        (("X_VECTOR", 4), None),
        (("X_VECTOR", 2), "moves nothing 2 elements wide, in spite of X_VECTOR"),
        (("WEIGHT_VECTOR", 1), None),
        (("OUT_VECTOR", 4), None),
        (("OUT_VECTOR", 1), "moves nothing 1 elements wide, in spite of OUT_VECTOR"),
    ],
)
def test_a_kernel_moves_as_many_elements_at_once_as_it_is_specialised_for(constant, complaint):
    kernel = replace(GEMM, kernel="weight_gradient", constants=(constant,))
    code = replace(CODE, global_loads={16: 8}, copies={4: 2}, global_stores={16: 4, 8: 1})
    found = limits.complaints(kernel, 90, replace(GOOD, code=code))
    assert [text.split(" on sm_90a ")[1] for text in found] == [complaint] * bool(complaint)


def test_whole_tiles_have_no_width():
    constants = (("COLUMNS", 64), ("X_VECTOR", 8), ("OUT_VECTOR", 4))
    kernel = replace(GEMM, kernel="hopper", constants=constants)
    code = replace(CODE, tensor_copies=3, tensor_stores=2, global_stores={})
    assert limits.complaints(kernel, 90, replace(GOOD, code=code)) == []
    by_threads = replace(GOOD, code=replace(code, tensor_stores=0))
    assert len(limits.complaints(kernel, 90, by_threads)) == 1


def test_a_key_depends_on_the_source_but_not_on_comments_and_unused_enumerations(monkeypatch):
    def key(text, capability=90, nvrtc="13.5"):
        record.key.cache_clear()
        monkeypatch.setattr(record, "source", lambda _: text)
        return record.key(GEMM, capability, nvrtc)

    text = "int a;\nint b;\n"
    assert key("// Why.\nint a;  // Because.\n\n    // And so on.\nint b;\n") == key(text)
    enumeration = "enum class Tool { SAW, AXE };\n"
    assert key(f"{enumeration}{text}") == key(text)
    used = [key(f"{e}Tool t;\n{text}") for e in (enumeration, enumeration.replace("AXE", "ADZE"))]
    assert used[0] != used[1]
    others = [key("int a;\nint c;\n"), key(text, capability=80), key(text, nvrtc="13.6")]
    assert len({key(text), *others}) == 4
    record.key.cache_clear()


@pytest.fixture(scope="module")
def rows():
    return chosen.rows(("float32", "float16"), layers=("unet-top", "centernet-up"))


@pytest.fixture
def table(rows, monkeypatch, tmp_path):
    """The command with files of its own and with measurements that cost nothing."""
    import static_table

    class Pool:
        map = staticmethod(map)

    def measure(specialisation, capability):
        any_width = {2**n: 1 for n in range(5)}
        code = replace(CODE, global_loads=any_width, global_stores=any_width)
        code = code if capability in chosen.READ else None
        return replace(GOOD, kernel=specialisation.kernel, code=code)

    monkeypatch.setattr(record, "FILE", tmp_path / "record.json")
    monkeypatch.setattr(static_table, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(record, "measure", measure)
    monkeypatch.setattr(compile, "version", lambda: "13.5")
    record.key.cache_clear()
    assert static_table.write(rows, Pool) == []
    yield SimpleNamespace(
        page=static_table.PAGE,
        check=lambda: static_table.check(rows, Pool),
        write=lambda: static_table.write(rows, Pool),
    )
    record.key.cache_clear()


def test_what_was_just_written_passes_the_check(table):
    assert table.check() == []


def test_a_changed_source_is_noticed_without_a_compiler(table, monkeypatch):
    source = record.source
    monkeypatch.setattr(record, "source", lambda s: source(s) + "int changed;\n")
    monkeypatch.setattr(record, "measure", None)
    record.key.cache_clear()
    (complaint,) = table.check()
    assert "the record lacks kernels or has old ones" in complaint


def test_an_edited_page_is_noticed(table):
    table.page.write_text(table.page.read_text().replace("16x1", "16x2", 1))
    (complaint,) = table.check()
    assert "page.md is not what the record gives" in complaint


def test_a_sample_that_measures_otherwise_is_noticed(table, monkeypatch):
    measure = record.measure
    monkeypatch.setattr(record, "measure", lambda s, c: replace(measure(s, c), registers=129))
    complaints = table.check()
    assert complaints
    assert all("registers=129" in complaint for complaint in complaints)


def test_the_time_of_a_compilation_is_no_difference(table, monkeypatch):
    measure = record.measure
    monkeypatch.setattr(record, "measure", lambda s, c: replace(measure(s, c), seconds=9.0))
    assert table.check() == []


def test_with_another_compiler_a_sample_need_only_keep_the_limits(table, monkeypatch):
    measure = record.measure
    monkeypatch.setattr(compile, "version", lambda: "14.0")
    monkeypatch.setattr(record, "measure", lambda s, c: replace(measure(s, c), registers=129))
    assert table.check() == []
    monkeypatch.setattr(record, "measure", lambda s, c: replace(measure(s, c), spilled_bytes=8))
    complaints = table.check()
    assert complaints
    assert all("spills 8 bytes" in complaint for complaint in complaints)


def test_a_kernel_that_is_in_the_record_is_not_compiled_again(table, monkeypatch):
    monkeypatch.setattr(record, "measure", None)
    assert table.write() == []


def test_what_was_measured_before_an_error_is_kept(table, monkeypatch):
    measure, source = record.measure, record.source
    monkeypatch.setattr(record, "source", lambda s: source(s) + "int changed;\n")
    record.key.cache_clear()
    done = []

    def refuse(specialisation, capability):
        done.append(specialisation)
        if len(done) == 5:
            raise RuntimeError("NVRTC refuses a kernel")
        return measure(specialisation, capability)

    monkeypatch.setattr(record, "measure", refuse)
    with pytest.raises(RuntimeError, match="refuses"):
        table.write()
    assert len(record.Record.read().measurements) == 4


def test_what_the_assembler_only_remarks_on_wgmma_is_a_warning_too(monkeypatch):
    log = """
        ptxas info    : 0 bytes gmem
        ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async is serialized
        ptxas warning : (C7508) setmaxnreg is ignored
        ptxas warning : Registers are spilled to local memory
        ptxas info    : 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
        ptxas info    : Used 168 registers, used 1 barriers, 64 bytes smem
    """
    monkeypatch.setattr(record, "READ", ())
    monkeypatch.setattr(compile, "architecture", lambda _: "sm_90a")
    monkeypatch.setattr(compile, "compiled", lambda *_: (b"", log))
    assert record.measure(GEMM, 90).warnings == 3


@pytest.mark.nvrtc
def test_the_machine_code_of_a_copy_kernel_is_read_as_it_was_written():
    text = """
        extern "C" __global__ void copy(const float4* __restrict__ from, float4* to)
        {
            to[threadIdx.x] = from[threadIdx.x];
        }
    """
    for architecture in ("sm_75", "sm_80", "sm_90a", "sm_100"):
        code = sass.disassemble(compile.compiled(text, architecture)[0])
        assert sass.widths(code, "LDG") == sass.widths(code, "STG") == {16: 1}
        assert sass.main_loop(code) is None


@pytest.mark.slow
@pytest.mark.nvrtc
def test_the_page_of_kernel_resources_belongs_to_the_sources_and_keeps_the_limits():
    done = subprocess.run(
        [sys.executable, "benchmarks/static_table.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
