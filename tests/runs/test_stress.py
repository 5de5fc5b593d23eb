"""Runs as processes, killed, starved and doubled at random: the same bytes or one sentence."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.common import runner
from lstm_jax.runs.directory import RunDirectory
from tests.experiments.common.test_runner import TOY, outcome
from tests.processes import wait_until
from tests.runs.test_damage import everything, flipped, halved, zeroed

pytestmark = pytest.mark.stress

ROOT = Path(__file__).parents[2]
HANG = 180  # seconds that no run takes
LONG = "--steps=200"


def process(limit: str, *arguments: str) -> None:
    """Runs the toy with a checkpoint at every chance; files have no more than `limit` bytes."""
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    RunDirectory.save_seconds = 0
    sys.exit(runner.main(TOY, ["toy", *arguments]))


def start(*arguments: str, limit: int = 0, folder: Path = ROOT) -> subprocess.Popen:
    code = "import sys; from tests.runs.test_stress import process; process(*sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(limit), *arguments],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def end(run: subprocess.Popen) -> tuple[int, str]:
    """The exit code, and the line that says why it stopped; a hang fails."""
    _, said = run.communicate(timeout=HANG)
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if not line.startswith("note: ")]
    assert len(lines) == (0 if run.returncode == 0 else 1), said
    return run.returncode, "".join(lines)


def asked(path: Path) -> list[str]:
    """How to begin or go on in a directory."""
    return [f"--resume={path}"] if (path / "config.json").exists() else [f"--workdir={path}", LONG]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """What an undisturbed run leaves."""
    path = tmp_path_factory.mktemp("whole") / "run"
    assert end(start(f"--workdir={path}", LONG)) == (0, "")
    return outcome(path)


@pytest.fixture(scope="module")
def stopped(whole, tmp_path_factory) -> Path:
    """A run that was killed in its second group, behind a checkpoint."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    run = start(f"--workdir={path}", LONG)
    wait_until(lambda: list(path.glob("checkpoints/second/*.npz")) or run.poll() is not None)
    assert run.poll() is None
    run.kill()
    run.communicate(timeout=HANG)
    return path


def lines(path: Path) -> int:
    """Records of a run; -1 before it has a directory."""
    ledger = path / "records.jsonl"
    return ledger.read_bytes().count(b"\n") if ledger.exists() else path.exists() - 1


def killed(path: Path, after: int, delay: float) -> bool:
    """Goes on with a run and kills it some time after it has so many records; whether in time."""
    run = start(*asked(path))
    wait_until(lambda: run.poll() is not None or lines(path) >= after)
    time.sleep(delay)
    run.kill()
    run.communicate(timeout=HANG)
    return run.returncode == -signal.SIGKILL


def test_fifty_kills(whole, tmp_path):
    rng, kills, total = random.Random(0), 0, whole["records.jsonl"].count(b"\n")
    for number in range(12):
        path = tmp_path / str(number)
        for after in sorted(rng.randrange(total) for _ in range(5)):
            kills += killed(path, after, rng.uniform(0, 0.1))
        assert end(start(*asked(path))) == (0, "")
        assert outcome(path) == whole
    assert kills >= 50, kills


def test_ten_full_disks(whole, tmp_path):
    """Files that cannot grow stand for a full disk, which needs no root."""
    codes = set()
    for limit in (1, 100, 500, 1500, 3000, 5000, 8000, 12000, 20000, 30000):
        path = tmp_path / str(limit)
        for _ in range(2):  # the resume meets the same disk
            code, line = end(start(*asked(path), limit=limit))
            codes.add(code)
            assert code == 0 or "File too large" in line, line
        assert end(start(*asked(path)))[0] == 0
        assert outcome(path) == whole
    assert codes >= {1, 2}


def test_twenty_damaged_directories(whole, stopped, tmp_path):
    rng, mended = random.Random(0), 0
    for number in range(20):
        path = tmp_path / str(number)
        shutil.copytree(stopped, path)
        files = sorted(f for f in path.rglob("*") if f.is_file() and "tensorboard" not in str(f))
        file = rng.choice(files)
        change = rng.choice([flipped, halved, zeroed, None])
        if change is None:
            file.unlink()
        else:
            file.write_bytes(change(file.read_bytes()))
        before = everything(path)
        code, line = end(start(f"--resume={path}"))
        assert code in (0, 2), line
        if code == 0:
            assert outcome(path) == whole, (file, change)
        else:
            assert str(path) in line and everything(path) == before, line
        mended += code == 0
    assert 0 < mended < 20


def test_ten_double_starts(whole, stopped, tmp_path):
    for number in range(10):
        path = tmp_path / str(number)
        if number % 2:
            shutil.copytree(stopped, path)
        first, second = start(*asked(path)), start(*asked(path))
        ends = sorted([end(first), end(second)])
        assert ends[0] == (0, ""), ends
        assert ends[1][0] == 0 or "in use" in ends[1][1] or "is not empty" in ends[1][1], ends
        assert outcome(path) == whole


def test_two_starts_in_one_second_have_a_directory_each(whole, tmp_path):
    runs = [start(LONG, folder=tmp_path) for _ in range(2)]
    assert [end(run) for run in runs] == [(0, "")] * 2
    paths = list((tmp_path / "runs").iterdir())
    assert len(paths) == 2 and all(outcome(path) == whole for path in paths)
