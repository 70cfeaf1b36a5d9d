"""The command line: what it prints where, and its exit status."""

import os
import subprocess
import sys

import pytest

import tconv
from tconv.__main__ import main
from tconv.commands import CommandError, info

MODULE = [sys.executable, "-m", "tconv"]


@pytest.fixture
def info_raises(monkeypatch):
    """Let ``tconv info`` raise what it is given."""

    def arrange(error):
        def run(_):
            raise error

        monkeypatch.setattr(info, "run", run)

    return arrange


def test_version_is_that_of_the_package():
    run = subprocess.run([*MODULE, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"tconv {tconv.__version__}\n"


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    output = capsys.readouterr().out
    assert all(f"\n    {command} " in output for command in ("info", "demo", "bench"))


@pytest.mark.parametrize("command", ["info", "demo", "bench"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: tconv {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["paint"], ["info", "--loud"], ["bench", "--rounds", "0"]]
)
def test_what_cannot_be_parsed_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: tconv" in capsys.readouterr().err


def test_an_error_is_one_line_on_stderr_and_status_2(info_raises, capsys):
    info_raises(CommandError("there is no lamp 'x'; the lamps are a, b"))
    assert main(["info"]) == 2
    assert capsys.readouterr() == ("", "tconv: there is no lamp 'x'; the lamps are a, b\n")


def test_a_mistake_of_ours_keeps_its_traceback(info_raises):
    info_raises(KeyError("a bug"))
    with pytest.raises(KeyError, match="a bug"):
        main(["info"])


def test_ctrl_c_ends_quietly_with_status_130(info_raises, capsys):
    info_raises(KeyboardInterrupt)
    assert main(["info"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_has_gone_is_no_traceback(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # so that Python writes at exit too
    read_end, write_end = os.pipe()
    os.close(read_end)
    run = subprocess.run([*MODULE, "info"], stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert run.stderr == ""
    assert run.returncode == 1


def test_without_an_output_nothing_is_printed_and_nothing_is_wrong():
    run = subprocess.run([*MODULE, "info"], preexec_fn=lambda: os.close(1), stderr=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_that_is_full_is_one_line_on_stderr_and_status_2(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # so that Python writes at exit too
    with open("/dev/full", "w") as full:
        run = subprocess.run([*MODULE, "info"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.stderr == "tconv: [Errno 28] No space left on device\n"
    assert run.returncode == 2


def test_starting_loads_no_library_that_only_a_command_needs():
    code = (
        "import sys, tconv.__main__\n"
        "print({'rich', 'matplotlib', 'skimage', 'torch', 'onnx', 'onnxruntime', 'cupy'}"
        " & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
