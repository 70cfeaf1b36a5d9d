"""Threads of the CPU path: how many, with whom they share, and what they leave behind."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cases
from tconv._cpu import pool

CASE = cases.Case("", "", (2, 64, 24, 24), (64, 32, 4, 4), {"stride": 2, "padding": 1})

needs_limit = pytest.mark.skipif(not pool._BLAS.found, reason="NumPy's BLAS is not OpenBLAS")


@pytest.fixture
def two_processors(monkeypatch):
    monkeypatch.delenv("TCONV_NUM_THREADS", raising=False)
    monkeypatch.setattr(pool, "_allowed", lambda: 2)


def child(code, **environment):
    """Run `code` in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(("text", "threads"), [("1", 1), ("2", 2), (" 2 ", 2), ("64", 3), ("", 3)])
def test_the_variable_limits_threads_but_never_exceeds_the_process(monkeypatch, text, threads):
    monkeypatch.setattr(pool, "_allowed", lambda: 3)
    monkeypatch.setenv("TCONV_NUM_THREADS", text)
    assert pool.num_threads() == threads


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²"])
def test_a_bad_variable_is_an_error_that_names_it(cpu, monkeypatch, text, rng):
    monkeypatch.setenv("TCONV_NUM_THREADS", text)
    x, weight, bias = CASE.reals(np.dtype("f4"), rng)
    message = f"TCONV_NUM_THREADS='{text}' must be a whole number of threads, at least 1"
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.") + "$"):
        cpu(x, weight, bias, **CASE.call)


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 1 << 16),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1 << 16),
        ({}, 1 << 16),
    ],
)
def test_the_quota_of_a_container_counts_in_whole_processors(tmp_path, files, processors):
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    assert pool._quota(tmp_path) == processors


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_no_more_threads_than_the_affinity_allows():
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from tconv._cpu import pool; print(pool.num_threads())"
    )
    assert child(code, TCONV_NUM_THREADS="8") == ["1"]


def test_the_openblas_of_any_numpy_is_found(monkeypatch):
    """NumPy 1 has no `_core`."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    if "openblas" not in blas:
        pytest.skip(f"NumPy's BLAS is {blas}")
    monkeypatch.delattr(np, "_core", raising=False)
    assert pool._Blas().found


@needs_limit
@pytest.mark.usefixtures("two_processors")
def test_several_threads_take_part_each_with_its_own_workspace():
    both = threading.Barrier(2, timeout=60)
    seen = set()

    def work(_, workspace):
        both.wait()
        seen.add((threading.get_ident(), id(workspace)))

    pool.for_each(work, range(2), list)
    assert len(seen) == len({thread for thread, _ in seen}) == len({w for _, w in seen}) == 2


@needs_limit
@pytest.mark.usefixtures("two_processors")
def test_blas_has_one_thread_during_a_call_and_as_many_as_before_after_it():
    before = pool._BLAS._get()
    pool._BLAS._set(2)
    try:
        during = []
        pool.for_each(lambda *_: during.append(pool._BLAS._get()), range(8), list)
        assert during == [1] * 8
        assert pool._BLAS._get() == 2
    finally:
        pool._BLAS._set(before)


@needs_limit
@pytest.mark.parametrize(("threads", "items"), [("1", 8), ("2", 1)])
@pytest.mark.usefixtures("two_processors")
def test_blas_has_one_thread_where_no_helper_takes_part_too(monkeypatch, threads, items):
    monkeypatch.setenv("TCONV_NUM_THREADS", threads)
    before = pool._BLAS._get()
    pool._BLAS._set(2)
    try:
        during = []
        pool.for_each(lambda *_: during.append(pool._BLAS._get()), range(items), list)
        assert during == [1] * items
    finally:
        pool._BLAS._set(before)


@needs_limit
@pytest.mark.usefixtures("two_processors")
def test_the_limit_of_blas_ends_with_the_last_of_overlapping_calls():
    before = pool._BLAS._get()
    pool._BLAS._set(2)
    try:
        with pool._BLAS.single_threaded():
            pool.for_each(lambda *_: None, range(8), list)
            assert pool._BLAS._get() == 1
        assert pool._BLAS._get() == 2
    finally:
        pool._BLAS._set(before)


@needs_limit
@pytest.mark.usefixtures("two_processors")
def test_an_error_in_any_thread_reaches_the_caller_and_stops_the_rest():
    before, done = pool._BLAS._get(), []

    def work(item, _):
        if item == 3:
            raise ZeroDivisionError("three")
        time.sleep(0.001)
        done.append(item)

    with pytest.raises(ZeroDivisionError, match="three"):
        pool.for_each(work, range(2000), list)
    assert len(done) < 1000
    assert pool._BLAS._get() == before


@needs_limit
@pytest.mark.usefixtures("two_processors")
def test_an_error_of_a_helper_alone_reaches_the_caller():
    both = threading.Barrier(2, timeout=60)

    def work(*_):
        both.wait()
        if threading.current_thread() is not threading.main_thread():
            raise ZeroDivisionError("elsewhere")

    with pytest.raises(ZeroDivisionError, match="elsewhere"):
        pool.for_each(work, range(2), list)


@pytest.mark.usefixtures("two_processors")
def test_every_item_is_worked_on_once():
    done = []
    pool.for_each(lambda item, _: done.append(item), iter(range(1000)), list)
    assert sorted(done) == list(range(1000))


@pytest.mark.usefixtures("two_processors")
def test_a_call_from_within_a_busy_pool_does_not_lock_up():
    done = []

    def outer(item, _):
        pool.for_each(lambda inner, _: done.append((item, inner)), range(4), list)

    pool.for_each(outer, range(8), list)
    assert sorted(done) == [(i, j) for i in range(8) for j in range(4)]


def test_without_a_limit_for_blas_the_caller_works_alone(cpu, monkeypatch, rng):
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    answer = cpu(x, weight, bias, **CASE.call)
    monkeypatch.setattr(pool._BLAS, "found", False)
    threads = []
    pool.for_each(lambda *_: threads.append(threading.get_ident()), range(4), list)
    assert set(threads) == {threading.get_ident()}
    np.testing.assert_array_equal(cpu(x, weight, bias, **CASE.call), answer)


def test_any_number_of_threads_computes_the_same_sums(cpu, monkeypatch, rng):
    """Of whole numbers; others are rounded as the cut into parts has it, which follows threads."""
    x, weight, bias = CASE.integers(np.dtype("f4"), rng)
    monkeypatch.setattr(pool, "_allowed", lambda: 4)
    results = []
    for threads in "1234":
        monkeypatch.setenv("TCONV_NUM_THREADS", threads)
        results.append(cpu(x, weight, bias, **CASE.call))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_many_callers_at_once_each_get_their_own_answer(cpu, rng):
    jobs = [CASE.integers(np.dtype("f4"), rng) for _ in range(12)]
    alone = [cpu(*job, **CASE.call) for job in jobs]
    with ThreadPoolExecutor(4) as callers:
        together = list(callers.map(lambda job: cpu(*job, **CASE.call), jobs))
    np.testing.assert_array_equal(together, alone)


SETUP = (
    "import os, threading, numpy as np, tconv\n"
    "from tconv._cpu import pool\n"
    "pool._allowed = lambda: 2\n"
    "x, w = np.ones((2, 64, 24, 24), 'f4'), np.ones((64, 32, 4, 4), 'f4')\n"
    "call = lambda: tconv.transposed_conv2d(x, w, stride=2)\n"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_of_a_fork_has_threads_of_its_own():
    code = SETUP + (
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
        "before = call()\n"
        "limit = pool._BLAS.single_threaded(); limit.__enter__()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    if pool._BLAS.found:\n"
        "        both = threading.Barrier(2, timeout=60)\n"
        "        pool.for_each(lambda *_: both.wait(), range(2), list)\n"
        "    os._exit(0 if pool._BLAS._calls == 0 and np.array_equal(call(), before) else 3)\n"
        "limit.__exit__(None, None, None)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), np.array_equal(call(), before))"
    )
    assert child(code) == ["0", "True"]


def test_no_thread_keeps_the_interpreter_from_ending():
    code = SETUP + "import atexit; call(); atexit.register(call); print(threading.active_count())"
    assert int(child(code)[0]) <= 2
