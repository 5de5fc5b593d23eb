"""One run, one process: the lock of a directory, and directories made at once."""

import errno
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lstm_jax.runs import lock as run_lock
from lstm_jax.runs.directory import RunDirectory
from lstm_jax.runs.lock import LOCK, lock_run
from tests.processes import LIMIT, run


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Callable[[Callable[[Path], Any], Path], str]]:
    """The error of a call with a path in another process, which holds nothing afterwards."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:

        def call(function: Callable[[Path], Any], path: Path) -> str:
            return other.submit(error_of, function, path).result(LIMIT)

        yield call


def error_of(function: Callable[[Path], Any], path: Path) -> str:
    try:
        function(path)
    except ValueError as error:
        return str(error)
    finally:
        gc.collect()
    return ""


def create(path: Path) -> None:
    RunDirectory.create(path, {})


def test_a_lock_keeps_other_processes_out_and_names_its_holder(tmp_path, elsewhere):
    first, second = lock_run(tmp_path), lock_run(tmp_path)
    assert first is second, "one process is one holder"
    said = elsewhere(lock_run, tmp_path)
    assert said.startswith(f"{tmp_path} is in use by process {os.getpid()} on ")
    assert said.endswith("; wait until it ends, or end it first")
    del first
    assert "is in use" in elsewhere(lock_run, tmp_path)
    del second
    gc.collect()
    assert elsewhere(lock_run, tmp_path) == ""


def test_a_killed_process_holds_nothing(tmp_path):
    """The module alone is loaded there: it needs no jax."""
    code = """
import os, pathlib, runpy, sys
held = runpy.run_path(sys.argv[1])["lock_run"](pathlib.Path(sys.argv[2]))
os.kill(os.getpid(), 9)
"""
    command = [sys.executable, "-c", code, run_lock.__file__, str(tmp_path)]
    assert run(command).returncode == -signal.SIGKILL
    assert (tmp_path / LOCK).read_text().startswith("process ")
    lock_run(tmp_path)


def test_a_file_system_without_locks_takes_runs(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    RunDirectory.create(tmp_path, {})


@pytest.mark.parametrize("begin", [create, RunDirectory.resume])
def test_a_run_belongs_to_one_process(begin, tmp_path, elsewhere):
    run = RunDirectory.create(tmp_path, {})
    assert elsewhere(begin, tmp_path).startswith(f"{tmp_path} is in use by process")
    again = RunDirectory.resume(tmp_path)
    del run, again
    gc.collect()
    assert "is in use" not in elsewhere(begin, tmp_path)
