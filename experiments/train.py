"""Trains recurrent networks on your own file: every setting with every seed in one program.

The best network on validation is saved as `model/`, which `scripts/run predict` and `lj.load` read.
`report.html` compares it with the answer that ignores the input, on test rows, and shows learning
curves, errors, calibration and the hyperparameters that mattered. A killed run continues with
`--resume`. It claims nothing, so there is no verdict.

Command: scripts/run train --data=x.csv --task=classification --target=kind --id=patient --time=day
Cost: seconds to hours, by the size of the file; 20 epochs of 4 seeds by default
Expect: a first sentence that says whether the network beats the baseline
Method and all flags: docs/experiments.md#train
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import lstm_jax as lj
from experiments.common import estimate, flags, networks, own_data, own_report, runner, terminal
from experiments.common.circumstances import circumstances
from experiments.common.flags import PLATFORMS, Request, need, need_few, need_sound, setting
from experiments.common.own_data import TASKS, Source
from lstm_jax.data import Text
from lstm_jax.engines import ENGINES
from lstm_jax.runs import RunDirectory, read_config
from lstm_jax.search import Group
from lstm_jax.tasks import Task
from lstm_jax.training import BATCHINGS, DIRECTIONS, MAX_SEED

NAME = "train"
GROUP = "main"
SHARE: flags.Bounds = (0.0, 0.99)
VALIDATIONS = 20  # of a text, within its updates


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Source):
    """The file, the network and its training; lists of numbers are tried in every combination."""

    task: str = setting("classification", "the task", choices=TASKS)
    cell: str = setting("lstm", "the network", choices=(*networks.LABELS, *networks.CATALOGUE))
    hidden: int = setting(64, "hidden units of a layer")
    depth: int = setting(1, "layers")
    epochs: int = setting(20, "passes through the training rows", (1, 1_000_000))
    steps: int = setting(1000, "text: updates, in place of epochs")
    seeds: int = setting(4, "trials of each setting", (1, 10_000))
    seed: int = setting(0, "the first of the seeds, and that of the split")
    learning_rate: tuple[float, ...] = setting((1e-3, 3e-3, 1e-2), "learning rates to try")
    dropout: tuple[float, ...] = setting((0.0,), "rates of dropout to try", SHARE)
    clip: float = setting(1.0, "largest norm of a gradient")
    batch_size: int = setting(32, "rows of an update")
    optimizer: str = setting("adam", "the optimiser", choices=DIRECTIONS)
    patience: int = setting(0, "validations without progress; 0 for no limit", (0, 1_000_000))
    ensemble: bool = setting(False, "save all seeds of the best setting, to predict their mean")
    engine: str = setting("auto", "the loop over time", choices=ENGINES)
    platform: str = setting("auto", "where it runs", choices=PLATFORMS)
    batching: str = setting("auto", "the trials of one device", choices=BATCHINGS)
    out: str = setting("", "a new directory for the run; runs/train-<time> by default")
    resume: str = setting("", "the directory of the run to continue, with its settings")

    def __post_init__(self):
        need_sound(self)
        last = self.seed + self.seeds - 1
        need(last <= MAX_SEED, "seed", self.seed, f"the last one, {last}, is beyond {MAX_SEED}")
        settings = len(self.learning_rate) * len(self.dropout)
        need_few(seeds=self.seeds, learning_rate=settings)
        if self.patience:
            validation, _ = own_data.shares(self, self.task)
            need(validation > 0, "patience", self.patience, "it needs --validation above 0")
        for name, tasks in {"epochs": TASKS[:-1], "steps": TASKS[-1:]}.items():
            value, usual = getattr(self, name), type(self).__dataclass_fields__[name].default
            right = f"it is for --task={' or '.join(tasks)}"
            need(self.task in tasks or value == usual, name, value, right)


def main(argv: Sequence[str]) -> int:
    """Trains from a command line; returns the exit code, as `runner.main`."""
    return terminal.command(NAME, lambda: prepared(argv))


def prepared(argv: Sequence[str]) -> Callable[[], int]:
    """Returns the work of a command line, in the directory of its run."""
    given, help_wanted = flags.parse_fields(argv, Train)
    if help_wanted:
        return runner.show_help(str(__doc__), flags.describe({NAME: Train()}))
    config = chosen(given)
    if config.out:
        with flags.naming("out", config.out):
            runner.need_empty(Path(config.out))
    runner.start(config.platform)
    data, task = own_data.load(config)
    with flags.naming("engine", config.engine):
        network = networks.network(config.cell, task, config.hidden, config.engine, config.depth)
        about = circumstances([NAME, *argv[1:]], {GROUP: network})
    need_room(config, data, task, network)
    run = open_run(config, task, about)
    return lambda: runner.guarded(run, lambda: carry_out(config, data, task, network, run))


def chosen(given: Mapping[str, Any]) -> Train:
    """Returns the config of the given flags, or of the run to resume."""
    if not given.get("resume"):
        return Train(**given)
    path = given["resume"]
    need(not given.get("out"), "out", given.get("out"), f"leave it out, to resume in {path}")
    _, config = runner.stored(NAME, Train, path)
    asked = {n: value for n, value in given.items() if n not in ("data", "resume")}
    runner.need_unchanged(asked, vars(config), path)
    return dataclasses.replace(config, data=given.get("data", config.data), resume=path)


def open_run(config: Train, task: Task, about: Mapping[str, Any]) -> RunDirectory:
    """Makes the directory of a new run, or opens the run to resume, whose data are the same."""
    if config.resume:
        right = f"{config.resume} was trained on other data; need the same file, unchanged"
        same = read_config(Path(config.resume))["about"]["digest"] == task.digest
        need(same, "data", config.data, right)
        with flags.naming("resume", config.resume):
            return runner.resumed(config.resume, about)
    stored = {"experiment": NAME, "scale": "", **dataclasses.asdict(config)}
    stored |= {"data": str(Path(config.data).absolute()), "out": "", "resume": ""}
    if own_data.is_file(config):
        stored["test"] = str(Path(config.test).absolute())
    return runner.new_run(stored, {**about, "digest": task.digest}, config.out or None, "out")


def settings_of(config: Train) -> dict[str, Any]:
    """Returns the hyperparameters of every setting, as `fit` takes them."""
    rates, dropout = zip(*itertools.product(config.learning_rate, config.dropout), strict=True)
    found = {"learning_rate": list(rates), "clip": config.clip}
    return found | ({"dropout": list(dropout)} if any(dropout) else {})


def need_room(config: Train, data: Any, task: Task, network: Any) -> None:
    """Raises ValueError, with its flags, for a training that this machine cannot hold."""
    if isinstance(data, Text):
        start, stop = data.bounds["train"]
        most = stop - start - 1
        need(config.batch_size <= most, "batch_size", config.batch_size, f"need at most {most}")
    settings: dict[str, Any] = settings_of(config)
    settings = {n: np.repeat(v, config.seeds) for n, v in settings.items() if n != "clip"}
    trials = lj.make_trials(**settings, clip=config.clip)
    group = Group(GROUP, task, network, 1, config.batch_size, trials, "test")
    group = group._replace(optimizer=config.optimizer)
    sizes = {name: getattr(config, name) for name in ("hidden", "depth", "seeds", "batch_size")}
    request = Request(sizes, None, config.out or None, config.resume or None, False)
    estimate.need_memory([group], config.batching, request)
    with own_data.blaming("out", config.out or "runs"):
        estimate.need_disk(Path(config.out or "runs"), [group])


def carry_out(config: Train, data: Any, task: Task, network: Any, run: RunDirectory) -> None:
    """Trains, saves the model and writes the report; the results are recorded last of all."""
    if GROUP in run.finished():
        return
    length: dict[str, Any] = {"epochs": config.epochs}
    if config.task == "text":
        every = max(1, config.steps // VALIDATIONS)
        validated = {"validate_every": every} if task.split_size("validation") else {}
        length = {"steps": config.steps, "chunk": every, **validated}
    result = lj.fit(
        task, network, seeds=range(config.seed, config.seed + config.seeds), run=run, group=GROUP,
        batch_size=config.batch_size, optimizer=config.optimizer, batching=config.batching,
        patience=config.patience or None, **length, **settings_of(config),
    )  # fmt: skip
    by = "validation" if task.split_size("validation") else "train"
    try:
        best = result.best(by)
    except ValueError:
        reason = next(filter(None, result.reason), "no loss is finite")
        right = f"every trial diverged ({reason}); try a lower --learning_rate"
        raise terminal.Failed(right) from None
    together = same_setting(result, best)
    own_data.save(config, together if config.ensemble else best, run.path)
    split = "test" if task.split_size("test") else by
    records = lj.result_records(result.trials, result, **{split: result.evaluate(split)})
    found = own_report.Found(config, data, task, result, best, together, split, records)
    own_report.write(found, run)
    run.finish(GROUP, records, result.params)


def same_setting(result: lj.Result, best: lj.Predictor) -> lj.Predictor:
    """Returns the networks of all seeds of the best one's setting that did not diverge."""
    alike = np.array(result.status != "diverged")
    for name in ("learning_rate", "dropout"):
        values, own = getattr(result.trials, name), getattr(best.trials, name)
        alike &= True if values is None else values == own
    params, trials = jax.tree.map(lambda leaf: leaf[alike], (result.params, result.trials))
    return lj.Predictor(result.task, result.model, params, trials)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
