"""Terminals that do not read, lack characters or interrupt: a line, an exit code, no traceback."""

import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

import jax
import pytest

from experiments import all as everything
from experiments.common import runner, terminal
from tests.experiments.common.test_runner import TOY

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture
def closed() -> Iterator[TextIO]:
    """A pipe whose reader is gone, as of `| head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as output:
        yield output


@pytest.fixture
def full() -> Iterator[TextIO]:
    """A disk that is full."""
    with open("/dev/full", "w") as output:
        yield output


MAINS = {"toy": lambda line: runner.main(TOY, line), "all": everything.main}


@pytest.mark.parametrize("name", MAINS)
@pytest.mark.parametrize(("where", "code", "reason"), [
    ("closed", 141, "Broken pipe"), ("full", 1, "No space left on device"),
])  # fmt: skip
def test_help_that_nothing_reads_ends_in_a_line(
    name, where, code, reason, request, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", request.getfixturevalue(where))
        assert MAINS[name]([name, "--help"]) == code
        sys.stdout.flush()  # as Python does in the end
    assert capsys.readouterr().err == f"{name}: standard output: {reason}\n"


def test_a_run_that_nothing_reads_says_how_to_go_on(closed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        assert runner.main(TOY, ["toy", f"--workdir={path}"]) == 141
    said = f"stopped: standard output: Broken pipe; to continue: --resume={path}\n"
    assert capsys.readouterr().err == said
    assert runner.main(TOY, ["toy", f"--resume={path}"]) == 0


def test_characters_that_a_terminal_lacks_are_escaped(monkeypatch):
    written = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
        assert terminal.command("toy", lambda: lambda: terminal.write("a × b") or 0) == 0
        assert written.getvalue() == b"a \\xd7 b\n"


def test_an_interruption_while_planning_leaves_nothing(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "start", lambda platform: None)
    toy = TOY._replace(plan=interrupted)
    assert runner.main(toy, ["toy", f"--workdir={tmp_path / 'run'}"]) == 130
    assert capsys.readouterr().err == "toy: interrupted before anything was made\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("line", "named"), [
    (["toy"], "JAX_PLATFORMS=cuda"), (["toy", "--platform=gpu"], "--platform=gpu"),
])  # fmt: skip
def test_a_platform_that_is_not_here_is_named(line, named, monkeypatch, capsys):
    def none():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", none)
    monkeypatch.setattr(jax.config, "update", lambda *told: None)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert runner.main(TOY, line) == 2
    assert capsys.readouterr().err == f"toy: {named}: jax finds none here (it is not installed)\n"
