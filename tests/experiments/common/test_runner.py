"""The runner: what a run leaves behind, whenever it is killed, and what it refuses to begin."""

import csv
import dataclasses
import datetime
import errno
import json
import os
import shutil
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.common import estimate, networks, report, runner, tuning
from experiments.common.flags import Config, setting
from experiments.common.plan import Experiment
from lstm_jax import evaluate, fit, search, tasks
from lstm_jax.report import figures, ledger
from lstm_jax.runs.directory import GroupLog, Preempted, RunDirectory
from lstm_jax.runs.records import Damaged, RecordLog
from lstm_jax.search import Group, state_of
from tests.killing import Killed, mortal
from tests.products import mostly_slow

pytestmark = pytest.mark.usefixtures("standard_promotion")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Config):
    lag: int = setting(2, "steps to remember")
    rates: tuple[float, ...] = setting((1e-2, 3e-2), "the grid")


def plan(config, records):
    task = tasks.Recall(lag=config.lag, symbols=2)
    shared = task, networks.network("rnn", task, config.hidden, config.engine), config.steps, 4
    rate = tuning.chosen(config.rates, ledger.results(ledger.group(records, "first")))
    later = None if rate is None else tuning.trials(range(1, 3), [rate], 1.0)
    return [
        Group("first", *shared, tuning.trials([0], config.rates, 1.0), "validation"),
        Group("second", *shared, later, "test", measure=measured),
    ]


def measured(params, trials):
    assert trials.seed.tolist() == [1, 2]
    return [{"largest": kernel.max()} for kernel in params["head"]["kernel"]]


def summarise(config, records):
    results = ledger.results(ledger.group(records, "second"))
    return [{"seed": r["seed"], "rate": r["learning_rate"], "loss": r["loss"]} for r in results]


def draw(config, rows, records):
    figure, ((axes,),) = figures.canvas(1, 1)
    axes.plot([row["loss"] for row in rows])
    return [figures.Picture("losses", "the losses", figure)]


SMALL = Toy(seeds=2, steps=4, hidden=3, engine="reference")
SCALES = {"quick": SMALL, "small": SMALL, "paper": SMALL}
TOY = Experiment("toy", "A toy.\n\nCost: nothing", SCALES, plan, summarise, draw)


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """The tests' own jax has started, with two devices."""
    monkeypatch.setattr(runner, "start", lambda platform: None)


def run(*arguments: object) -> int:
    return runner.main(TOY, ["toy", *map(str, arguments)])


def outcome(path: Path) -> dict[str, bytes]:
    kept = ["records.jsonl", "summary.csv", *(f"params/{g}.npz" for g in ("first", "second"))]
    return {name: (path / name).read_bytes() for name in kept}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of a run that nothing disturbed."""
    path = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(runner, "start", lambda platform: None)
        assert run(f"--workdir={path}") == 0
    return path


def test_groups_wait_for_each_other_and_all_is_told(whole):
    records = [json.loads(line) for line in (whole / "records.jsonl").read_text().splitlines()]
    first = ledger.results(ledger.group(records, "first"))
    second = ledger.results(ledger.group(records, "second"))
    best = tuning.chosen(SMALL.rates, first)
    assert [(r["seed"], r["learning_rate"]) for r in first] == [(0, 0.01), (0, 0.03)]
    assert [(r["seed"], r["learning_rate"]) for r in second] == [(1, best), (2, best)]
    assert all(r["validation_n"] == 2000 for r in first)
    assert all(r["test_n"] == 2000 for r in second)
    rows = list(csv.DictReader((whole / "summary.csv").read_text().splitlines()))
    assert [float(row["loss"]) for row in rows] == [r["loss"] for r in second]


def test_a_group_is_asked_about_its_own_split(whole):
    records = [json.loads(line) for line in (whole / "records.jsonl").read_text().splitlines()]
    group = plan(SMALL, [])[0]
    assert group.trials is not None
    fitted = fit(group.task, group.model, group.trials, group.steps, batch_size=4, progress=False)
    asked = evaluate(group.task, group.model, fitted.params, group.trials, split="validation")
    told = [r["validation_correct"] for r in ledger.results(ledger.group(records, "first"))]
    assert told == asked.correct.tolist()


def test_what_a_group_measures_of_its_trained_parameters_is_in_its_results(whole):
    records = [json.loads(line) for line in (whole / "records.jsonl").read_text().splitlines()]
    first, second = (ledger.results(ledger.group(records, name)) for name in ("first", "second"))
    assert not any("largest" in r for r in first)
    kernels = np.load(whole / "params" / "second.npz")["head/kernel"]
    assert [np.float32(r["largest"]) for r in second] == [kernel.max() for kernel in kernels]


def test_the_config_says_all_that_was_asked_and_where_it_ran(whole):
    config = json.loads((whole / "config.json").read_text())
    asked = {"experiment": "toy", "scale": "small", **dataclasses.asdict(SMALL)}
    assert config["settings"] == json.loads(json.dumps(asked))
    about = config["about"]
    assert about["devices"] == ["cpu", "cpu"] and about["platform"] == "cpu"
    assert about["versions"]["jax"] and set(about["engines"]) == {"first", "second"}


def test_the_report_holds_claim_table_figure_and_settings(whole):
    page = (whole / "report.html").read_text()
    assert "A toy." in page and "data:image/png;base64," in page and "&quot;hidden&quot;: 3" in page
    assert (whole / "figures" / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_the_run_directory_is_printed_first_and_last(tmp_path, capsys):
    assert run(f"--workdir={tmp_path / 'run'}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == f"run directory: {tmp_path / 'run'}"


@pytest.mark.parametrize("moment", mostly_slow(range(12), (0, 3, 6, 9, 11)))
def test_a_run_killed_at_any_moment_ends_as_if_it_was_not(moment, whole, tmp_path, monkeypatch):
    """Dies before or after one of the things that are written, then resumes."""
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        mortal(patch, moment, (GroupLog, "progress"), (RunDirectory, "finish"), (runner, "report"))
        with pytest.raises(Killed):
            run(f"--workdir={path}")
    assert run(f"--resume={path}") == 0
    assert outcome(path) == outcome(whole)


def test_a_finished_run_is_told_again_without_training(whole, monkeypatch, capsys):
    monkeypatch.setattr(search, "train", None)
    before = outcome(whole)
    assert run(f"--resume={whole}", "--hidden=3") == 0
    assert outcome(whole) == before


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (Preempted("told"), 143)])
def test_a_stopped_run_says_how_to_go_on(stop, code, tmp_path, monkeypatch, capsys):
    def stopped(*arguments, **settings):
        raise stop

    monkeypatch.setattr(search, "train", stopped)
    assert run(f"--workdir={tmp_path}") == code
    assert capsys.readouterr().err == f"stopped; to continue: --resume={tmp_path}\n"


@pytest.mark.parametrize("moment", [1, 3])
def test_a_full_disk_is_a_clean_stop_that_a_resume_goes_on_from(
    moment, whole, tmp_path, monkeypatch, capsys
):
    """The disk is full in the middle of a line of the ledger."""
    append, calls = RecordLog.append, 0

    def full(self, records):
        nonlocal calls
        calls += 1
        if calls <= moment:
            return append(self, records)
        with open(self.path, "a") as file:
            file.write('{"kind": "pro')
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RecordLog, "append", full)
        assert run(f"--workdir={path}") == 1
    told = capsys.readouterr().err
    assert told.startswith(f"stopped: No space left on device ({path}); saved files are intact")
    assert told.endswith(f"--resume={path}\n") and told.count("\n") == 1
    assert run(f"--resume={path}") == 0
    assert outcome(path) == outcome(whole)


def test_a_disk_without_room_for_the_run_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, capsys
):
    """Three states and the parameters of the group that is ready, and what else is written."""
    group = plan(SMALL, [])[0]
    state = state_of(group)
    sizes = [x.size * x.dtype.itemsize for x in jax.tree.leaves(state)]
    params = [x.size * x.dtype.itemsize for x in jax.tree.leaves(state.params)]
    needed = 3 * sum(sizes) + sum(params) + estimate.OTHER_FILES
    asked = []

    def usage(free):
        def tell(path):
            asked.append(path)
            return types.SimpleNamespace(free=free)

        return tell

    path = tmp_path / "deep" / "run"
    monkeypatch.setattr(estimate.shutil, "disk_usage", usage(needed - 1))
    told = refused([f"--workdir={path}"], capsys)
    right = f"{needed - 1:,} bytes are free there, {needed:,} are needed"
    assert told == f"--workdir={path}: {right}"
    assert list(tmp_path.iterdir()) == [] and asked == [tmp_path]
    monkeypatch.setattr(estimate.shutil, "disk_usage", usage(needed))
    estimate.need_disk(path, [group, *plan(SMALL, [])[1:]])
    kept = group._replace(name="kept", save_state=True)
    with pytest.raises(OSError, match=f"{needed + sum(sizes) + sum(params):,} are needed"):
        estimate.need_disk(path, [group, kept])


def test_a_disk_that_others_filled_stops_a_run_before_its_next_group(
    whole, tmp_path, monkeypatch, capsys
):
    train, path = search.train, tmp_path / "run"

    def last(*arguments, **settings):
        train(*arguments, **settings)
        full = types.SimpleNamespace(free=1)
        monkeypatch.setattr(estimate.shutil, "disk_usage", lambda path: full)

    monkeypatch.setattr(search, "train", last)
    assert run(f"--workdir={path}") == 1
    told = capsys.readouterr().err
    assert told.startswith("stopped: 1 bytes are free there, 20,") and str(path) in told
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        patch.setattr(runner, "start", lambda platform: None)
        assert run(f"--resume={path}") == 0
    assert outcome(path) == outcome(whole)


def refused(arguments: list[str], capsys) -> str:
    assert run(*arguments) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    return told.err.removeprefix("toy: ").removesuffix("\n")


def test_a_resume_with_other_settings_is_refused(whole, capsys):
    before = outcome(whole)
    for flag, was in (("hidden=4", 3), ("rates=0.01", "0.01,0.03"), ("scale=paper", "small")):
        right = f"{whole} started with {was}; leave it out to resume"
        assert refused([f"--resume={whole}", f"--{flag}"], capsys) == f"--{flag}: {right}"
    assert outcome(whole) == before


def test_a_resume_of_nothing_is_refused(tmp_path, capsys):
    path = tmp_path / "nowhere"
    told = refused([f"--resume={path}"], capsys)
    right = "holds no run to resume, it has no config.json; need the directory of a run"
    assert told == f"--resume={path}: {path}: {right}"
    assert list(tmp_path.iterdir()) == []


def test_a_resume_of_another_experiment_is_refused(whole, tmp_path, capsys):
    RunDirectory.create(tmp_path, {**RunDirectory(whole).settings, "experiment": "another"})
    told = refused([f"--resume={tmp_path}"], capsys)
    assert told == f"--resume={tmp_path}: need the directory of a run of toy, not of another"


def test_a_directory_with_anything_in_it_is_refused(whole, tmp_path, capsys):
    (tmp_path / "precious").write_text("mine")
    for path in (whole, tmp_path):
        told = refused([f"--workdir={path}"], capsys)
        assert told.startswith(f"--workdir={path}: is not empty; need a new directory")
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_a_directory_that_cannot_be_made_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    told = refused([f"--workdir={tmp_path / 'file' / 'run'}"], capsys)
    assert told.startswith(f"--workdir={tmp_path / 'file' / 'run'}: ")
    assert "Not a directory" in told


@pytest.mark.parametrize(
    ("flag", "right"),
    [("--lag=0", "need 1 to 1000000"), ("--steps=x", "need a whole number")],
)
def test_bad_values_are_refused_before_anything_is_written(flag, right, tmp_path, capsys):
    assert refused([flag, f"--workdir={tmp_path / 'run'}"], capsys) == f"{flag}: {right}"
    assert list(tmp_path.iterdir()) == []


def test_help_tells_the_claim_and_the_flags(capsys):
    assert run("--help") == 0
    told = capsys.readouterr().out
    assert told.startswith("A toy.") and "--lag: steps to remember (2; 1 to 1000000)" in told


def test_the_default_directory_is_new_whoever_starts_in_the_same_second(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    second = datetime.datetime(2024, 5, 6, 7, 8, 9)
    monkeypatch.setattr(datetime, "datetime", types.SimpleNamespace(now=lambda: second))
    made = [str(runner.new_directory("toy", None)) for _ in range(3)]
    assert made == [f"runs/toy-20240506-070809{end}" for end in ("", "-2", "-3")]
    assert all(Path(path).is_dir() for path in made)


def test_what_a_start_that_was_killed_at_once_leaves_is_taken(whole, tmp_path, monkeypatch, capsys):
    """The kill comes before config.json has its name."""

    def killed(*_):
        raise Killed

    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(runner.os, "replace", killed)
        with pytest.raises(Killed):
            run(f"--workdir={path}")
    assert len(list(path.iterdir())) == 2, "the lock and half a config"
    assert refused([f"--resume={path}"], capsys).endswith("need the directory of a run")
    assert run(f"--workdir={path}") == 0
    assert outcome(path) == outcome(whole) and not list(path.glob("*.tmp"))


def test_damage_that_shows_on_the_way_is_one_line(whole, tmp_path, monkeypatch, capsys):
    def damaged(*_, **settings):
        raise Damaged(tmp_path / "states" / "first.npz", "it is missing")

    monkeypatch.setattr(search, "train", damaged)
    assert run(f"--workdir={tmp_path / 'run'}") == 1
    right = "it is missing; restore it from a copy, or begin a new run"
    assert capsys.readouterr().err == f"stopped: {tmp_path / 'states' / 'first.npz'}: {right}\n"


def test_a_directory_that_is_taken_away_is_one_line(tmp_path, monkeypatch, capsys):
    path, train = tmp_path / "run", search.train

    def robbed(*arguments, **settings):
        shutil.rmtree(path)
        train(*arguments, **settings)

    monkeypatch.setattr(search, "train", robbed)
    assert run(f"--workdir={path}") == 1
    told = capsys.readouterr().err
    assert told.startswith("note: ") and "no curves from here on" in told
    assert told.count("\n") == 2 and "restore the run's directory; then continue" in told
    assert not path.exists()


def test_a_resume_on_a_full_disk_is_one_line(whole, tmp_path, monkeypatch, capsys):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    with open(path / "records.jsonl", "ab") as file:
        file.write(b'{"kind": "result", "group": "third"}\n')  # of a group that was cut short

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runner.os, "fsync", full)
    assert run(f"--resume={path}") == 1
    right = f"saved files are intact; with free space continue: --resume={path}"
    assert capsys.readouterr().err == f"stopped: No space left on device ({path}); {right}\n"


def test_what_tensorboard_shows_stops_no_run(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("in the way")
    report.write_hparams(tmp_path / "tensorboard" / "hparams", [{"a": 1, "b": 2}], ["a"], ["b"])
    assert "hparams cannot be written (Not a directory)" in capsys.readouterr().err
