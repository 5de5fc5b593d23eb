"""A sweep trains thousands of settings of one recurrent network, in a space given on one line.

Settings that differ in numbers alone share one compiled program. Widths share programs in buckets
of powers of two; every other structure has its own. Strategies are `grid`, `random`, `halving` and
`optuna`. Validation ranks the configurations; the best train again from fresh seeds and are
reported on test sequences. Of your own file the networks of the best one are saved as `model/`.

Command: scripts/run sweep --space="learning_rate=log:1e-4:1e-1 forget_bias=uniform:-2:6 clip=1"
Cost: --quick a minute, by default a minute, both on two cores; --scale=paper is for a GPU
Expect: on adding at T = 50, learning rates of the three best configurations between 1e-2 and 1e-1
Method and the language of spaces: docs/experiments.md#sweep
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import lstm_jax as lj
from experiments.common import networks, own_data, runner
from experiments.common.flags import (
    ETA,
    RUNGS,
    TRIALS,
    Config,
    naming,
    need,
    need_few,
    need_rungs,
    setting,
    spread,
    whole,
)
from experiments.common.own_data import Source
from experiments.common.plan import Experiment, Group, Picture, Record, Row
from lstm_jax.report import statistics, sweeps
from lstm_jax.report.statistics import is_solved
from lstm_jax.runs import RunDirectory, hosts
from lstm_jax.search import Found, Search, Space, Strategy, importance, plans
from lstm_jax.tasks import Task, base
from lstm_jax.training import DIRECTIONS

SPACE = "learning_rate=log:1e-4:1e-1 forget_bias=uniform:-2:6 clip=1"
OPTIMIZERS = tuple(DIRECTIONS)
NETWORKS = (*networks.LABELS, *networks.CATALOGUE)
TASKS: Mapping[str, Callable[[int], Task]] = {
    "adding": lambda lag: lj.tasks.Adding(length=lag),
    "recall": lambda lag: lj.tasks.Recall(lag=lag),
    "copy_memory": lambda lag: lj.tasks.CopyMemory(lag=lag),
    "digits": lambda lag: lj.tasks.Digits(),
}
STRUCTURE = ("cell", "hidden", "depth", "optimizer", "batch_size", "lag")


@functools.cache
def _task(name: str, metric: str, lag: int) -> Task:
    """Returns the problem; a ranking by loss trains each trial to its last step."""
    task = TASKS[name](lag)
    return base.never_solved(task) if metric == "loss" else task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own(Source):
    """A problem over a file."""

    task: str = setting("classification", "the task", choices=own_data.TASKS)
    seed: int = setting(0, "of the split")


@functools.cache
def _own_task(problem: Own) -> Task:
    return own_data.load(problem)[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(Source, Config):
    """The space of a search, its strategy, and its budget; the problem may be your own file."""

    seeds: int = setting(5, "fresh seeds of each reported configuration")
    space: str = setting(SPACE, "the searched space")
    strategy: str = setting("random", "how", choices=lj.search.STRATEGIES)
    trials: int = setting(60, "configurations to try; a grid tries all of its own")
    tuning_seeds: int = setting(1, "seeds of each configuration, before those that are reported")
    epochs: int = setting(0, "your file: passes through the rows; 0 for --steps", (0, 1_000_000))
    metric: str = setting("loss", "ranking metric on validation", choices=lj.search.METRICS)
    batch: str = setting("auto", "trials trained at once (R), auto: as many as fit the memory")
    points: int = setting(5, "grid: values of each range", (2, 10_000))
    eta: int = setting(3, "halving: one in this many continues", ETA)
    rungs: int = setting(4, "halving: rungs, the last at the end", RUNGS)
    sampler: str = setting("tpe", "optuna", choices=lj.search.studies.SAMPLERS)
    best: int = setting(3, "configurations to report", TRIALS)
    task: str = setting("adding", "the task", choices=(*TASKS, *own_data.TASKS))
    digest: str = setting("", "the hash of your data, which a run keeps; it need not be given")
    lag: int = setting(50, "steps to remember, or the length, where a task has one")
    cell: str = setting("lstm", "the network", choices=NETWORKS)
    depth: int = setting(1, "layers")
    optimizer: str = setting("adam", "the optimiser", choices=OPTIMIZERS)
    batch_size: int = setting(16, "sequences an update")

    def __post_init__(self):
        super().__post_init__()
        known = self.batch.isdecimal() and TRIALS[0] <= int(self.batch) <= TRIALS[1]
        right = f"need {spread(TRIALS)}, or auto"
        need(known or self.batch == "auto", "batch", self.batch, right)
        own = " or ".join(own_data.TASKS)
        need(self.is_own or not self.data, "data", self.data, f"it is for --task={own}")
        rows = own_data.TASKS[:-1]
        right = f"it is for --task={' or '.join(rows)}"
        need(self.task in rows or not self.epochs, "epochs", self.epochs, right)
        numbers = self.task in ("regression", "forecast")
        right = f"--task={self.task} predicts numbers; need loss"
        need(self.metric == "loss" or not numbers, "metric", self.metric, right)
        with naming("space"):
            search = search_of(self)
        if self.is_own:
            task = search.task({"lag": self.lag})
            right = "the data have changed since the run started; need the same"
            need(self.digest in ("", task.digest), "data", self.data, right)
            with naming("data", self.data):
                search.check_rows()
        else:
            self._check_lags(search)
        with naming("space"):
            search.check_names()
        if self.strategy == "halving":
            length = "epochs" if self.epochs else "steps"
            need_rungs(self.trials, length, getattr(self, length), self.eta, self.rungs)
        with naming("sampler", self.sampler):
            count = strategy_of(self).count(search)
        right = f"a grid of {count} configurations, need at most {TRIALS[1]}"
        need(count <= TRIALS[1] or self.strategy != "grid", "points", self.points, right)
        need_few(trials=count, tuning_seeds=self.tuning_seeds)
        need_few(best=self.best, seeds=self.seeds)
        right = f"need at most {count}, as --trials or --points"
        need(self.best <= count, "best", self.best, right)

    def _check_lags(self, search: Search) -> None:
        with naming("space") if "lag" in search.space else naming("lag", self.lag):
            for lag in search.ends("lag"):
                TASKS[self.task](lag)

    @property
    def is_own(self) -> bool:
        """Whether the problem is a file."""
        return self.task in own_data.TASKS

    @property
    def own(self) -> Own:
        """The problem over a file."""
        names = (field.name for field in dataclasses.fields(Own))
        return Own(**{name: getattr(self, name) for name in names})


def space_of(config: Sweep) -> Space:
    """Returns the searched space."""
    words: dict[str, Any] = {"cell": NETWORKS, "optimizer": OPTIMIZERS}
    structure = {name: words.get(name) or whole(Sweep, name) for name in STRUCTURE}
    if config.task == "digits" or config.is_own:
        del structure["lag"]
    return lj.search.parse(config.space, structure)


def search_of(config: Sweep) -> Search:
    """Returns the common settings of all groups."""
    given = {name: getattr(config, name) for name in STRUCTURE}
    task = functools.partial(_task, config.task, config.metric)
    if config.is_own:
        task = lambda lag: _own_task(config.own)  # noqa: E731
    places = int(config.batch) if config.batch.isdecimal() else 1
    return Search(
        space_of(config), given, lambda s: task(s["lag"]),
        lambda s, task: networks.network(s["cell"], task, s["hidden"], config.engine, s["depth"]),
        config.epochs or config.steps, places, config.metric, config.epochs > 0,
    )  # fmt: skip


def strategy_of(config: Sweep) -> Strategy:
    """Returns the choice of configurations."""
    names = (field.name for field in dataclasses.fields(Strategy) if field.name != "name")
    return Strategy(config.strategy, **{name: getattr(config, name) for name in names})


SCALES = {
    "quick": Sweep(trials=16, steps=200, lag=20, hidden=16, best=2, seeds=3),
    "small": Sweep(),
    "paper": Sweep(trials=1000, steps=10_000, lag=200, hidden=128, batch_size=64, seeds=10),
}


def find(config: Sweep, records: Sequence[Record]) -> tuple[Found, list[Group]]:
    """Returns the progress of the search, and all groups that the results so far allow."""
    search = search_of(config)
    with naming("space") if "hidden" in search.space else naming("hidden", config.hidden):
        search.check_widths()
    tuned, fresh = tuple(config.tuned), tuple(config.reported)
    return lj.search.sweeps.plan(search, strategy_of(config), tuned, fresh, config.best, records)


def plan(config: Sweep, records: Sequence[Record]) -> list[Group]:
    """Returns the search so far, then the best configurations on fresh seeds."""
    return find(config, records)[1]


def adapt(config: Sweep) -> Sweep:
    """Returns the config with R set to the trials that fit this machine, and the hash of data."""
    if config.is_own:
        config = dataclasses.replace(config, digest=_own_task(config.own).digest)
    if config.batch != "auto":
        return config
    with naming("batch", config.batch):
        places = lj.search.sweeps.fitting(
            search_of(config), strategy_of(config), config.tuning_seeds,
            config.best * config.seeds, config.batching,
        )  # fmt: skip
    return dataclasses.replace(config, batch=str(places))


def every(config: Sweep, records: Sequence[Record]) -> list[Row]:
    """Returns every trial's hyperparameters and last result."""
    trials: dict[tuple[bool, int, int], Record] = {}
    for record in records:
        if record["kind"] == "result":
            reported = "test_n" in record
            trials[reported, record["configuration"], record["seed"]] = record
    return [_line(record, config) for _, record in sorted(trials.items(), key=lambda item: item[0])]


def _line(record: Record, config: Sweep) -> Row:
    split = "test" if "test_n" in record else "validation"
    return {
        "configuration": record["configuration"],
        "seed": record["seed"],
        **{name: record["values"][name] for name, _ in space_of(config).parameters},
        **{name: record[name] for name in ("status", "step", "solved_at", "loss", "metric")},
        "reason": record.get("reason", ""),
        "split": split,
        "split_loss": record[f"{split}_loss"],
        "split_metric": record[f"{split}_metric"],
        "split_accuracy": record[f"{split}_correct"] / record[f"{split}_n"],
    }


def columns(config: Sweep) -> tuple[list[str], list[str]]:
    """Returns the hyperparameters and metrics for TensorBoard."""
    return list(space_of(config).free), ["split_loss", "split_accuracy"]


def summarise(config: Sweep, records: Sequence[Record]) -> list[Row]:
    """Returns the best configurations and the spread of their fresh seeds."""
    found, _ = find(config, records)
    ranked = lj.search.sweeps.ranked(search_of(config), found, config.best, records)
    return [_best(rank, one, config) for rank, one in enumerate(ranked, start=1)]


def _best(rank: int, one: lj.search.Ranked, config: Sweep) -> Row:
    losses = [math.inf if r["test_loss"] is None else r["test_loss"] for r in one.results]
    return {
        "rank": rank,
        "configuration": one.configuration,
        **{name: one.values[name] for name in space_of(config).free},
        "validation": one.validation,
        **_answers(one.results, config),
        "median_loss": float(np.median(losses)),
        "worst_loss": max(losses),
        "diverged": sum(r["status"] == "diverged" for r in one.results),
    }


def _answers(results: Sequence[Record], config: Sweep) -> Row:
    """Returns the metric of your file; for other tasks the right answers, and solved trials."""
    if config.is_own:
        task = search_of(config).task({"lag": config.lag})
        within = (-math.inf, 1.0) if task.higher_is_better else (0.0, math.inf)
        return {task.metric_name: statistics.interval([r["test_metric"] for r in results], within)}
    answers = [(r["test_correct"], r["test_n"]) for r in results]
    return {
        "accuracy": statistics.t_interval([c / n for c, n in answers], within=(0, 1)),
        "solved": statistics.wilson(sum(is_solved(*a) for a in answers), len(answers)),
    }


def draw(config: Sweep, rows: Sequence[Row], records: Sequence[Record]) -> list[Picture]:
    """Draws scores against parameters, the best score so far, and importances."""
    results = [r for r in records if r["kind"] == "result" and "validation_n" in r]
    updates, best = plans.best_so_far(results, config.metric)
    shown = [importance.response(value, config.metric) for value in best]
    so_far = updates, [math.nan if value is None else value for value in shown]
    searched = importance.searched(space_of(config), config.metric, records)
    return sweeps.pictures(searched, {r["configuration"] for r in rows}, so_far)


def save(config: Sweep, run: RunDirectory) -> None:
    """Writes the networks of the best configuration on your file, unless all diverged."""
    if not config.is_own:
        return
    records, search = run.read(), search_of(config)
    found, groups = find(config, records)
    rows = lj.search.sweeps.ranked(search, found, 1, records)
    for network in lj.search.sweeps.networks(search, rows, groups, run):
        if network is not None and hosts.leads():
            own_data.save(config, network, run.path)


EXPERIMENT = Experiment(
    "sweep", str(__doc__), SCALES, plan, summarise, draw, adapt=adapt, every=every, columns=columns,
    save=save,
)  # fmt: skip

if __name__ == "__main__":
    runner.script(EXPERIMENT)
