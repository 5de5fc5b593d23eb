"""A run on the disk: whatever stops it, going on leaves the bytes of a run that nothing stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lstm_jax import evaluate, fit, make_trials, result_records
from lstm_jax.runs.checkpoints import load
from lstm_jax.runs.directory import GroupLog, Preempted, RunDirectory
from lstm_jax.runs.records import RecordLog
from lstm_jax.tasks import Recall
from lstm_jax.training import loop
from tests import processes
from tests.processes import wait_until
from tests.toys import Eager, Elman, Line, Slope

pytestmark = pytest.mark.usefixtures("standard_promotion")

ROOT = Path(__file__).parents[2]
TRIALS = make_trials(seed=[0, 1, 2], learning_rate=[0.05, 0.01, 1e30], gate_bias={"f": 1})
TASK, NETWORK = Recall(lag=1, symbols=3), Elman(4, 3)
GROUPS = {"lag=1, elman/a": 60, "b": 18}  # steps


def carry_out(run):
    """A run of two groups; goes on where it stopped."""
    for group in [name for name in GROUPS if name not in run.finished()]:
        result = train_group(group, run=run, group=group)
        asked = evaluate(TASK, NETWORK, result.params, TRIALS, sequences=200)
        run.finish(group, result_records(TRIALS, result, test=asked), result.params)


def train_group(name, **where):
    steps = GROUPS[name]
    return fit(TASK, NETWORK, TRIALS, steps, batch_size=50, chunk=4, progress=False, **where)


def begin_or_resume(path):
    if (path / "config.json").exists():
        return Eager.resume(path, {"who": "x"})
    return Eager.create(path, {"who": "x"})


def left(path):
    """The bytes that must not depend on what happened on the way."""
    files = [path / "records.jsonl", *sorted((path / "params").iterdir())]
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed")
    with jax.numpy_dtype_promotion("standard"):
        carry_out(begin_or_resume(path))
    return path


def test_a_run_leaves_records_parameters_and_curves_and_no_checkpoints(undisturbed):
    run = RunDirectory.resume(undisturbed)
    assert run.finished() == set(GROUPS)
    records = run.records.read()
    first = [r for r in records if r["group"] == "lag=1, elman/a"]
    kinds = [r["kind"] for r in first]
    assert kinds == ["progress"] * (len(kinds) - 4) + ["result"] * 3 + ["finished"]
    curve = [r for r in first if r["kind"] == "progress" and r["trial"] == 1]
    assert [r["step"] for r in curve] == [*range(4, 60, 4), 60][: len(curve)] and curve
    results = [r for r in first if r["kind"] == "result"]
    assert [r["learning_rate"] for r in results] == [0.05, 0.01, 1e30]
    assert [r["seed"] for r in results] == [0, 1, 2] and results[0]["gate_bias_f"] == 1
    assert results[0]["status"] == "solved" and results[0]["solved_at"] == results[0]["step"]
    assert results[0]["test_n"] == 200 and results[0]["test_correct"] >= 180
    last = [r for r in first if r["kind"] == "progress" and r["trial"] == 0][-1]
    assert last["step"] < results[0]["step"] <= last["step"] + 4
    with np.load(run.params_path("lag=1, elman/a")) as params:
        assert params["w_h"].shape == (3, 8, 8)
    assert os.listdir(undisturbed / "checkpoints") == []
    assert all(list((undisturbed / "tensorboard").glob("*/events*")))
    assert not any("second" in key for record in records for key in record)
    assert {"group", "seconds"} == set(RecordLog(undisturbed / "timing.jsonl").read()[0])


def test_the_directory_gives_back_the_numbers_of_the_result(undisturbed):
    result = train_group("b")
    run = RunDirectory.resume(undisturbed)
    told = [r for r in run.records.read() if r["group"] == "b" and r["kind"] == "result"]
    assert [np.float32(r["loss"]) for r in told] == result.loss.tolist()
    params = load(run.params_path("b"), result.params)
    jax.tree.map(np.testing.assert_array_equal, params, result.params)


class Stop(BaseException):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize(
    ("method", "calls"),
    [("progress", 0), ("checkpoint", 0), ("curves", 1), ("checkpoint", 5), ("progress", 17)],
)
def test_going_on_after_an_interruption_leaves_the_same_bytes(
    undisturbed, tmp_path, monkeypatch, method, calls
):
    original, count = getattr(GroupLog, method), iter(range(1000))

    def interrupted(self, *args, **kwargs):
        if next(count) == calls:
            raise Stop
        return original(self, *args, **kwargs)

    monkeypatch.setattr(GroupLog, method, interrupted)
    with pytest.raises(Stop):
        carry_out(begin_or_resume(tmp_path))
    monkeypatch.undo()
    with open(tmp_path / "records.jsonl", "ab") as file:
        file.write(b'{"kind": "progress", "gro')
    carry_out(begin_or_resume(tmp_path))
    assert left(tmp_path) == left(undisturbed)


def test_the_same_process_goes_on_after_an_interruption(undisturbed, tmp_path, monkeypatch):
    """As in a notebook; records are ahead of the checkpoint."""
    original, count = GroupLog.progress, iter(range(1000))

    def interrupted(self, records):
        original(self, records)
        if next(count) == 3:
            raise Stop

    monkeypatch.setattr(GroupLog, "progress", interrupted)
    run = begin_or_resume(tmp_path)
    with pytest.raises(Stop):
        carry_out(run)
    carry_out(run)
    assert left(tmp_path) == left(undisturbed)


@pytest.mark.parametrize("cut", [0, 2, 3])
def test_results_count_only_when_all_of_a_group_are_written(
    undisturbed, tmp_path, monkeypatch, cut
):
    original = RecordLog.append

    def torn(self, records):
        records = list(records)
        if records[-1].get("kind") == "finished":
            original(self, records[:cut])
            raise Stop
        original(self, records)

    monkeypatch.setattr(RecordLog, "append", torn)
    with pytest.raises(Stop):
        carry_out(begin_or_resume(tmp_path))
    monkeypatch.undo()
    assert RunDirectory(tmp_path).finished() == set()
    run = begin_or_resume(tmp_path)
    assert not [r for r in run.records.read() if r["kind"] == "result"]
    carry_out(run)
    assert left(tmp_path) == left(undisturbed)


def test_sigterm_saves_and_stops(undisturbed, tmp_path, monkeypatch):
    original, count = GroupLog.progress, iter(range(1000))

    def terminated(self, records):
        original(self, records)
        if next(count) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    run = RunDirectory.create(tmp_path, {"who": "x"})
    monkeypatch.setattr(GroupLog, "progress", terminated)
    with pytest.raises(Preempted, match="step 24 of 'lag=1, elman"):
        carry_out(run)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) == before
    assert list(run.room("checkpoints", "lag=1, elman/a").glob("24.*.npz"))
    lines = run.records.path.read_bytes()
    monkeypatch.setattr(loop, "PATIENCE", 0.0)
    carry_out(RunDirectory.resume(tmp_path))
    assert left(tmp_path) == left(undisturbed)
    assert left(tmp_path)["records.jsonl"].startswith(lines)


def killed(path, after_lines, delay):
    """Carries a run out in a process of its own and kills it; whether it was killed in time."""
    code = "import sys; from tests.runs import test_run_directory as t; t.in_a_process(sys.argv[1])"
    ledger = path / "records.jsonl"

    def far_enough():
        written = ledger.exists() and ledger.read_bytes().count(b"\n") >= after_lines
        return written or process.poll() is not None

    with subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT) as process:
        try:
            wait_until(far_enough)
            time.sleep(delay)
        finally:
            process.kill()
    return process.returncode == -signal.SIGKILL


def in_a_process(path):
    jax.config.update("jax_num_cpu_devices", 2)
    carry_out(begin_or_resume(Path(path)))


def test_a_killed_run_goes_on_to_the_same_bytes(undisturbed, tmp_path):
    assert killed(tmp_path, after_lines=30, delay=0.02)
    carry_out(begin_or_resume(tmp_path))
    assert left(tmp_path) == left(undisturbed)


@pytest.mark.slow
def test_a_run_killed_again_and_again_goes_on_to_the_same_bytes(undisturbed, tmp_path):
    rng = np.random.default_rng(0)
    lines = left(undisturbed)["records.jsonl"].count(b"\n")
    kills = sum(killed(tmp_path, at, rng.uniform(0, 0.1)) for at in range(1, lines, lines // 3))
    assert kills >= 2
    carry_out(begin_or_resume(tmp_path))
    assert left(tmp_path) == left(undisturbed)


def test_a_group_goes_on_only_with_the_settings_it_was_begun_with(tmp_path):
    run = RunDirectory.create(tmp_path, {})
    fit(Line(), Slope(), TRIALS, 5, run=run, progress=False)
    ledger = run.records.path.read_bytes()

    begun: Any = dict(task=Line(), model=Slope(), trials=TRIALS, steps=5)
    for name, value, said in (
        ("steps", 6, "= 6: group 'main' says 5"),
        ("batch_size", 8, "= 8: group 'main' says 16"),
        ("optimizer", "sgd", "= 'sgd': group 'main' says 'adam'"),
        ("task", Line(solvable=True), "= .Line.solvable=True"),
        ("model", Slope("bfloat16"), "= .Slope.dtype=.*bfloat16.*float32"),
    ):
        with pytest.raises(ValueError, match=f"cannot resume with {name} {said}"):
            fit(**begun | {name: value}, run=run, progress=False)
    others = TRIALS._replace(seed=np.full(3, 3, np.uint32))
    with pytest.raises(ValueError, match=r"cannot resume with seed = .3, 3, 3.: .* .0, 1, 2."):
        fit(**begun | {"trials": others}, run=run, progress=False)
    assert run.records.path.read_bytes() == ledger
    result = fit(Line(), Slope(), TRIALS, 5, run=run, progress=False)  # all done: nothing to do
    run.finish("main", result_records(TRIALS, result), result.params)
    with pytest.raises(ValueError, match="group 'main' is finished"):
        run.finish("main", [], result.params)
    with pytest.raises(ValueError, match="group 'main' is finished"):
        fit(Line(), Slope(), TRIALS, 5, run=run, progress=False)
    with pytest.raises(ValueError, match=r"group must be a name, got '\.\.'"):
        fit(Line(), Slope(), TRIALS, 5, run=run, group="..", progress=False)


def test_a_run_is_begun_once_and_resumed_as_it_was_begun(tmp_path):
    settings = {"steps": 1000, "rates": (1e-3, np.inf), "task": "recall"}
    run = RunDirectory.create(tmp_path / "a", settings, {"jax": "0.10"})
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["about"] == {"jax": "0.10"} and config["settings"]["steps"] == 1000
    assert RunDirectory.resume(tmp_path / "a", settings).settings == run.settings
    RunDirectory.resume(tmp_path / "a", {"steps": 1000})
    with pytest.raises(ValueError, match=r"with steps = 2000: .*config.json says 1000"):
        RunDirectory.resume(tmp_path / "a", {"steps": 2000})
    with pytest.raises(ValueError, match=r"cannot resume with lag = 3: .* says None"):
        RunDirectory.resume(tmp_path / "a", {"lag": 3})
    with pytest.raises(ValueError, match="already holds a run"):
        RunDirectory.create(tmp_path / "a", settings)
    with pytest.raises(ValueError, match="holds no run to resume"):
        RunDirectory.resume(tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert RunDirectory.create(tmp_path / "c").settings == {}


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="file/run cannot be written: Not a directory"):
        RunDirectory.create(tmp_path / "file" / "run", {})


def test_group_names_are_file_names_whatever_they_hold(tmp_path):
    run = RunDirectory.create(tmp_path, {})
    for group in ("a/b", "../up", "ünder score", "lag=3,lr=1e-3"):
        assert run.params_path(group).parent == tmp_path / "params"
    assert len({run.params_path(group) for group in ("a/b", "a b", "a%2Fb")}) == 3


def test_a_second_sigterm_ends_the_process_at_once(tmp_path):
    code = """
import os, pathlib, sys
from lstm_jax.runs.directory import RunDirectory
with RunDirectory.create(pathlib.Path(sys.argv[1]), {}).open_group("a", {}):
    for line in ("first", "second"):
        os.kill(os.getpid(), 15)
        print(line, flush=True)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    ended = processes.run(command)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "first\n")
