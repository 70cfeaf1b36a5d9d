"""``make gpu``, on a machine where everything fails: no part keeps the others from running."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")

pytestmark = pytest.mark.skipif(
    not (shutil.which("make") and shutil.which("timeout")), reason="needs make and timeout"
)


@pytest.fixture
def make(tmp_path):
    """Return a function that runs make: what fails, and what was called with which arguments."""
    log = tmp_path / "log"
    log.touch()
    for name in ("python", "compute-sanitizer"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $@" >> "{log}"\nexit 1\n')
        program.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "MAKEFLAGS": ""}

    def run(*goals):
        command = ["make", "-C", str(ROOT), "PYTHON=python", *goals]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        return done, log.read_text().splitlines()

    return run


def test_tests_that_fail_keep_neither_the_sanitizers_nor_the_benchmark_from_running(make):
    done, calls = make("gpu")
    assert done.returncode != 0
    assert any(call.startswith("python -m pytest") for call in calls)
    tools = [call.split()[2] for call in calls if call.startswith("compute-sanitizer --tool")]
    assert tuple(tools) == TOOLS
    assert f"not clean: {' '.join(TOOLS)}" in done.stdout
    assert calls[-1].startswith("python -m tconv bench --gpu")


def test_every_test_on_a_gpu_ends_in_time_and_takes_no_warning_of_a_library_for_a_fault(make):
    done, _ = make("--dry-run", "gpu")
    lines = done.stdout.replace("\\\n", "").splitlines()
    runs = [line for line in lines if "-m pytest" in line]
    assert len(runs) == 2
    for line, times in zip(runs, (1, len(TOOLS)), strict=True):
        limit = re.search(r"--kill-after \d+ (?:--foreground )?(\d+) ", line)
        assert times * int(limit[1]) < 600
        assert "-m pytest -W default" in line


def test_a_part_may_be_given_less_time(make):
    done, _ = make("--dry-run", "gpu", "TEST_SECONDS=77", "TOOL_SECONDS=33", "BENCH_SECONDS=88")
    assert re.search(r"timeout .* 77 python -m pytest", done.stdout)
    assert re.search(r"timeout .* 33 compute-sanitizer", done.stdout)
    assert "--seconds 88" in done.stdout
