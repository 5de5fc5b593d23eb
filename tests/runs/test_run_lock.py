"""One run, one process: the lock of a directory, and directories made at once."""

import errno
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lstm_jax.runs import lock as run_lock
from lstm_jax.runs.directory import RunDirectory
from lstm_jax.runs.lock import LOCK, lock_run

ROOT = Path(__file__).parents[2]


def elsewhere(code: str, path: Path) -> str:
    """What another process that runs the code with the path says."""
    code = f"import sys; from pathlib import Path; path = Path(sys.argv[1]); {code}"
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stderr


TAKE = "from lstm_jax.runs.lock import lock_run; lock_run(path)"


def test_a_lock_keeps_other_processes_out_and_names_its_holder(tmp_path):
    first, second = lock_run(tmp_path), lock_run(tmp_path)
    assert first is second, "one process is one holder"
    said = elsewhere(TAKE, tmp_path)
    assert f"ValueError: {tmp_path} is in use by process {os.getpid()} on " in said
    assert said.endswith("; wait until it ends, or end it first\n")
    del first
    assert "is in use" in elsewhere(TAKE, tmp_path)
    del second
    gc.collect()
    assert elsewhere(TAKE, tmp_path) == ""


def test_a_killed_process_holds_nothing(tmp_path):
    kill = f"{TAKE}; import os; held = lock_run(path); os.kill(os.getpid(), 9)"
    assert elsewhere(kill, tmp_path) == ""
    assert (tmp_path / LOCK).read_text().startswith("process ")
    lock_run(tmp_path)


def test_a_file_system_without_locks_takes_runs(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    RunDirectory.create(tmp_path, {})


@pytest.mark.parametrize("begin", ["create(path, {})", "resume(path)"])
def test_a_run_belongs_to_one_process(begin, tmp_path):
    run = RunDirectory.create(tmp_path, {})
    code = f"from lstm_jax.runs.directory import RunDirectory; RunDirectory.{begin}"
    assert f"{tmp_path} is in use by process" in elsewhere(code, tmp_path)
    again = RunDirectory.resume(tmp_path)
    del run, again
    gc.collect()
    assert "is in use" not in elsewhere(code, tmp_path)
