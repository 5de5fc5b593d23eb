"""sweep: what a run leaves behind, also one that was killed; your own file."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import lstm_jax as lj
from experiments import predict, sweep
from experiments.common import runner
from experiments.sweep import EXPERIMENT, Sweep
from lstm_jax import fit
from lstm_jax.runs.directory import GroupLog, RunDirectory
from tests.compiling import CHEAP
from tests.killing import Killed, mortal
from tests.processes import LIMIT
from tests.products import mostly_slow

ROOT = Path(__file__).parents[2]
TINY = [
    "--space=learning_rate=0.01,0.03,1e30 hidden=3,4 clip=1", "--cell=rnn", "--strategy=halving",
    "--trials=6", "--eta=2", "--rungs=2", "--steps=6", "--lag=3", "--engine=reference",
    "--batch=3", "--best=1", "--seeds=2", "--batch_size=4",
]  # fmt: skip
KEPT = ("records.jsonl", "summary.csv")


def run(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(runner, "start", lambda platform: None)
        return runner.main(EXPERIMENT, ["sweep", *map(str, arguments)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of a small sweep that nothing disturbed."""
    path = tmp_path_factory.mktemp("sweep") / "run"
    assert run(*TINY, f"--workdir={path}") == 0
    return path


def outcome(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in KEPT} | {
        file.name: file.read_bytes() for file in (path / "params").iterdir()
    }


def results(path: Path) -> list[dict]:
    lines = map(json.loads, (path / "records.jsonl").read_text().splitlines())
    return [record for record in lines if record["kind"] == "result"]


def test_tensorboard_has_a_session_for_every_line_of_the_summary(whole):
    with (whole / "summary.csv").open() as lines:
        count = len(list(csv.DictReader(lines)))
    sessions = {path.name for path in (whole / "tensorboard" / "hparams").iterdir()}
    assert sessions == set(map(str, range(count)))
    assert "Interactive" in (whole / "report.html").read_text(encoding="utf-8")


def test_survivors_of_a_run_are_the_trials_trained_straight_through(whole, standard_promotion):
    """Bit for bit, from their own width's draw, through the disk and a smaller batch."""
    last = [r for r in results(whole) if r["group"].startswith("rung 1")]
    assert {r["values"]["learning_rate"] for r in last} <= {0.01, 0.03} and len(last) == 3
    run_directory = RunDirectory(whole)
    config = Sweep(**{k: v for k, v in run_directory.settings.items() if hasattr(Sweep, k)})
    groups = {g.name: g for g in sweep.plan(config, run_directory.records.read())}
    for record in last:
        name = next(
            r["group"] for r in results(whole)
            if r["group"].startswith("rung 0") and r["configuration"] == record["configuration"]
        )  # fmt: skip
        group = groups[name]
        assert group.trials is not None
        rows = [label["configuration"] for label in group.labels]
        begin = group.initial_state(run_directory) if group.initial_state else None
        straight = fit(
            group.task, group.model, group.trials, 6, batch_size=4, begin_from=begin,
            progress=False,
        )  # fmt: skip
        row = rows.index(record["configuration"])
        with np.load(run_directory.params_path(record["group"])) as params:
            for at, leaf in jax.tree_util.tree_leaves_with_path(straight.params):
                key = jax.tree_util.keystr(at, simple=True, separator="/")
                np.testing.assert_array_equal(params[key][record["trial"]], leaf[row])


def test_a_diverging_trial_is_isolated_and_last(whole):
    first = [r for r in results(whole) if r["group"].startswith("rung 0")]
    gone = [r for r in first if r["status"] == "diverged"]
    assert gone and all(r["values"]["learning_rate"] == 1e30 for r in gone)
    assert all(np.isfinite(r["validation_loss"]) for r in first if r not in gone)
    lines = list(csv.DictReader((whole / "summary.csv").read_text().splitlines()))
    searched = [(line["configuration"], line["seed"]) for line in lines if line["split"] != "test"]
    assert sorted(searched) == sorted((str(i), "0") for i in range(6))
    assert {line["status"] for line in lines} == {"finished", "diverged"}


@pytest.mark.parametrize("moment", mostly_slow([1, 4, 5, 8], [1, 5]))
def test_a_sweep_killed_between_or_within_rungs_ends_as_if_it_was_not(moment, whole, tmp_path):
    """Dies before or after one of the things that are written, then resumes."""
    path = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        mortal(patch, moment, (GroupLog, "progress"), (RunDirectory, "finish"))
        with pytest.raises(Killed):
            run(*TINY, f"--workdir={path}")
    assert run(f"--resume={path}") == 0
    assert outcome(path) == outcome(whole)


@pytest.mark.parametrize("moment", mostly_slow([1, 3], [3]))
def test_a_sweep_that_is_told_to_stop_saves_and_goes_on(moment, whole, tmp_path, capsys):
    """SIGTERM in the first rung, and in the second."""
    progress, count = GroupLog.progress, 0

    def told(self, records):
        nonlocal count
        progress(self, records)
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGTERM)

    path = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GroupLog, "progress", told)
        assert run(*TINY, f"--workdir={path}") == 143
    assert count == moment and f"to continue: --resume={path}" in capsys.readouterr().err
    assert list((path / "checkpoints").glob("*/*"))
    assert run(f"--resume={path}") == 0
    assert outcome(path) == outcome(whole)


def program(*arguments: object) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": CHEAP}
    command = [sys.executable, "-m", "experiments.sweep", *map(str, arguments)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)


@pytest.mark.slow
def test_a_sweep_killed_again_and_again_equals_one_that_was_not(tmp_path):
    """kill -9 of the program at random moments, resumed each time."""
    asked = [
        "--space=learning_rate=log:1e-3:1e-1 hidden=int:5:8 clip=1", "--cell=rnn",
        "--strategy=halving", "--trials=60", "--steps=60", "--lag=6", "--rungs=3",
        "--batch=32", "--best=2", "--seeds=2",
    ]  # fmt: skip
    began = time.monotonic()
    assert program(*asked, f"--workdir={tmp_path / 'whole'}").wait(LIMIT) == 0
    took, moments = time.monotonic() - began, random.Random(0)
    arguments = [*asked, f"--workdir={tmp_path / 'killed'}"]
    for _ in range(2):
        process = program(*arguments)
        time.sleep(moments.uniform(0.15, 0.6) * took)
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT)
        if (tmp_path / "killed" / "config.json").exists():
            arguments = [f"--resume={tmp_path / 'killed'}"]
    assert program(*arguments).wait(LIMIT) == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    searched = [r for r in results(tmp_path / "killed") if "validation_n" in r]
    assert len(searched) == len({(r["group"], r["trial"]) for r in searched})
    assert {r["configuration"] for r in searched} == set(range(60))


OWN = ("--task=classification", "--target=kind", "--id=id", "--hidden=2", "--cell=rnn")
FEW = ("--trials=2", "--epochs=2", "--best=1", "--seeds=2", "--space=learning_rate=log:1e-3:1e-1")


def own_file(folder: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    lines = [f"p{i},{rng.normal():.3f},{'ab'[i % 2]}" for i in range(20) for _ in range(3)]
    (folder / "rows.csv").write_text("\n".join(["id,x,kind", *lines]))
    return folder / "rows.csv"


def test_a_sweep_searches_on_a_file_and_refuses_to_go_on_with_another(
    tmp_path, monkeypatch, capsys, standard_promotion
):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    path, out = own_file(tmp_path), tmp_path / "run"
    command = ["sweep", f"--data={path}", *OWN, *FEW, f"--workdir={out}"]
    assert runner.main(EXPERIMENT, command) == 0
    with open(out / "summary.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["validation"] * 2 + ["test"] * 2
    assert [row["step"] for row in rows] == ["2"] * 4  # an update has 16 rows, 14 train
    metrics = [float(row["split_metric"]) for row in rows[2:]]
    header, _, line = capsys.readouterr().out.split("\n\n")[1].splitlines()[:3]
    at = header.split().index("accuracy")
    assert float(line.split()[at]) == pytest.approx(np.mean(metrics), abs=6e-3)
    new = tmp_path / "new.csv"
    assert predict.main(["predict", f"--model={out}/model", f"--data={path}", f"--out={new}"]) == 0
    assert len(new.read_text().splitlines()) == 21 and len(lj.load(out / "model")) == 2
    sweep._own_task.cache_clear()
    own_file(tmp_path, seed=1)
    assert runner.main(EXPERIMENT, ["sweep", f"--resume={out}"]) == 2
    assert "the data have changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--data=rows.csv"], "--data=rows.csv: it is for --task=classification"),
        (["--task=regression"], "--data=: need a file"),
        (["--data=rows.csv", *OWN, "--id=who"], "--id=who: rows.csv has no such column"),
        (["--data=rows.csv", *OWN, "--space=lag=1,2"], "--space: "),
        (
            ["--data=rows.csv", "--task=regression", "--metric=accuracy"],
            "--metric=accuracy: --task=regression predicts numbers; need loss",
        ),
        (["--epochs=3"], "--epochs=3: it is for --task=classification or"),
        (
            ["--data=rows.csv", *OWN, *FEW, "--epochs=8", "--strategy=halving", "--trials=27"],
            "--epochs=8: --rungs=4 by --eta=3 need 27",
        ),
        (
            ["--data=rows.csv", *OWN, "--test=0"],
            "--data=rows.csv: task must have rows that rank and test, got no test",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused(line, words, tmp_path, monkeypatch, capsys):
    own_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "start", lambda platform: None)
    assert runner.main(EXPERIMENT, ["sweep", *line]) == 2
    assert capsys.readouterr().err.startswith(f"sweep: {words}")
