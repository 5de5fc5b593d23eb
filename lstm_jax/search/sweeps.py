"""A sweep: search a space of hyperparameters, then train the best again from fresh seeds."""

import dataclasses
import inspect
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from lstm_jax.checks import check_names, check_size
from lstm_jax.nn import SequenceSpec
from lstm_jax.runs import hosts
from lstm_jax.runs.checkpoints import load
from lstm_jax.runs.directory import RunDirectory
from lstm_jax.search import importance, widths
from lstm_jax.search.groups import Group, Record, state_of, train
from lstm_jax.search.plans import Found, Search, Sources, score, sources_of, tried, waves
from lstm_jax.search.space import Space, parse
from lstm_jax.search.strategies import Strategy
from lstm_jax.tasks.base import Task, never_solved
from lstm_jax.training import footprint, optimizers
from lstm_jax.training.predictor import Predictor
from lstm_jax.training.results import Table
from lstm_jax.training.trials import Trials

if TYPE_CHECKING:
    from lstm_jax.report.importance import Searched

ON_A_CPU = 32  # places of a device: with map more are no faster, and results come later
MEMORY_SHARE = 0.8  # of a device's memory
BATCHES = 10  # the least batches of optuna
COUNTS = range(1, 1_000_000)
STEPS = 1000  # of a trial, by default

Structure = Mapping[str, Any]


class Ranked(NamedTuple):
    """One of the best configurations.

    Attributes:
      configuration: its number.
      values: the point.
      validation: its mean score in the search; less is better.
      results: of its fresh seeds, on test.
    """

    configuration: int
    values: Mapping[str, Any]
    validation: float
    results: Sequence[Record]

    def __repr__(self) -> str:
        point, trials = dict(self.values), len(self.results)
        return f"Ranked({self.configuration}, {point}, {self.validation:.4g}, {trials} results)"


class SweepResult(NamedTuple):
    """The results of a sweep.

    Attributes:
      best: the best configurations, the best first.
      records: of the run: the results of all trials, and their progress.
      networks: of each of the best, those of its fresh seeds; None if all diverged.
      search: the space, the ranking metric, and what else its trials have in common.
      ranking: the numbers of the configurations, the best first, without diverged ones.
    """

    best: list[Ranked]
    records: Sequence[Record]
    networks: list[Predictor | None]
    search: Search
    ranking: Sequence[int]

    def __repr__(self) -> str:
        table, count = self.table(), len(self.best)
        best = "\n".join(str(table).splitlines()[: 1 + count])
        return f"SweepResult(the best {count} of {len(table)} configurations\n{best}\n)"

    def table(self) -> Table:
        """Returns one row a configuration, the best first, the diverged last.

        A row has its hyperparameters, the number of its `trials` in the search and of those that
        `diverged`, the updates of the longest as `step`, and the mean `validation_loss`, inf where
        a trial diverged; in a ranking by accuracy also the mean `validation_accuracy`.
        """
        results: dict[int, list[Record]] = defaultdict(list)
        for result in tried(self.records):
            results[result["configuration"]].append(result)
        order = [*self.ranking, *sorted(results.keys() - set(self.ranking))]
        return Table(_row(results[number], self.search.metric) for number in order)

    def importance(self) -> dict[str, float]:
        """Returns hyperparameter -> its share of the variance of the score, the greatest first.

        Main effects of a functional ANOVA of a random forest on all trials of the search. They sum
        to less than 1 where hyperparameters interact. Needs scikit-learn.

        Raises:
          ValueError: the trials are too few, or a forest on them does not predict new ones.
          ImportError: scikit-learn is not installed.
        """
        return importance.shares(self.searched())

    def searched(self) -> "Searched":
        """Returns the trials of the search as `lstm_jax.report.importance` takes them."""
        return importance.searched(self.search.space, self.search.metric, self.records)

    def predictor(self, rank: int = 0) -> Predictor:
        """Returns the networks of one of the best, one for each fresh seed that did not diverge.

        Args:
          rank: its place, 0 for the best.

        Raises:
          ValueError: there is no such place, or all seeds diverged.
        """
        if not 0 <= rank < len(self.networks):
            raise ValueError(f"rank must be in [0, {len(self.networks)}), got {rank}")
        network = self.networks[rank]
        if network is None:
            raise ValueError(f"rank must be of a configuration that learns, {rank} diverged")
        return network


def sweep(
    task: Task | Callable[[Structure], Task],
    space: str | Space,
    model: SequenceSpec | Callable[[Structure, Task], SequenceSpec],
    *,
    strategy: str | Strategy = "random",
    trials: int = 60,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int = 16,
    optimizer: str = "adam",
    metric: str = "loss",
    seed: int = 0,
    tuning_seeds: int = 1,
    best: int = 3,
    seeds: int = 5,
    structure: Mapping[str, Any] | None = None,
    places: int | None = None,
    batching: str = "auto",
    run: RunDirectory | None = None,
    progress: bool = True,
    **unknown: Any,
) -> SweepResult:
    """Searches a space, then trains the best configurations again from fresh seeds.

    Configurations that differ in numbers alone share one compiled program. Widths share programs in
    buckets of powers of two. A ranking by loss trains each trial to its last step, even where its
    task counts it as solved.

    Args:
      task: the problem, or a function of the structure.
      space: one line such as "learning_rate=log:1e-4:1e-1 hidden=logint:8:64", or a `Space`.
      model: the network, whose width ("hidden") and depth may be in the space; or a function of the
        structure and the task.
      strategy: "grid", "random", "halving", "optuna", or a `Strategy` with its settings.
      trials: configurations to try; a `Strategy` has its own.
      steps: updates of a complete trial, 1,000 by default; without validations in between.
      epochs: passes through the training rows of a complete trial, in place of steps: with a
        validation after each, and the parameters with the least validation loss.
      batch_size: sequences an update.
      optimizer: as in `fit`.
      metric: ranks on validation: "loss" or "accuracy".
      seed: the first seed; it also draws the points.
      tuning_seeds: trials of each configuration.
      best: configurations to train again.
      seeds: their trials, from fresh seeds, evaluated on test.
      structure: further names of the space for functions `task` and `model`, such as
        {"cell": ("lstm", "gru")}; a `range` of whole numbers or words. The first value is used
        where the space leaves a name out.
      places: the most trials of one program; by default as many as fit the machine.
      batching: as in `fit`.
      run: the run to record in, or to continue; a temporary one by default.
      progress: as in `fit`.
      **unknown: refused by name.

    Raises:
      ValueError: for a bad space, and as `fit`; TypeError: the space is neither, or an argument is
        unknown.
    """
    _check_names(unknown)
    if not isinstance(task, Task) and not callable(task):
        right = "a task such as Classification(split), or a function of the structure"
        raise TypeError(f"task must be {right}, got {type(task).__name__}")
    sizes = {"trials": trials, "tuning_seeds": tuning_seeds, "best": best, "seeds": seeds}
    for name, value in (sizes if places is None else sizes | {"places": places}).items():
        check_size(name, value)
    if steps is not None and epochs is not None:
        raise ValueError(f"one of steps and epochs must be given, got {steps=}, {epochs=}")
    length = next(value for value in (epochs, steps, STEPS) if value is not None)
    check_size("steps" if epochs is None else "epochs", length)
    if not isinstance(space, str | Space):
        right = "a line such as 'learning_rate=log:1e-4:1e-1 hidden=8,16', or a Space"
        raise TypeError(f"space must be {right}, got {space!r:.60}")
    how = strategy if isinstance(strategy, Strategy) else Strategy(strategy, trials)
    given = {"batch_size": batch_size, "optimizer": optimizer}
    allowed = {"batch_size": COUNTS, "optimizer": tuple(optimizers.DIRECTIONS), "hidden": COUNTS}
    if isinstance(model, SequenceSpec):
        given |= {"hidden": model.cell.hidden, "depth": model.depth}
        allowed["depth"] = COUNTS
    more = dict(structure or {})
    given = {"hidden": 1} | given | {name: values[0] for name, values in more.items()}
    search = Search(
        parse(space, allowed | more) if isinstance(space, str) else space, given,
        _problem(task, metric), _network(model), length, metric=metric, epochs=epochs is not None,
    )  # fmt: skip
    search.check_rows()
    search.check_names()
    search.check_widths()
    tuned = tuple(range(seed, seed + tuning_seeds))
    fresh = tuple(range(tuned[-1] + 1, tuned[-1] + 1 + seeds))
    most = places or fitting(search, how, tuning_seeds, best * seeds, batching)
    search = dataclasses.replace(search, places=most)
    with tempfile.TemporaryDirectory() as folder:
        run = run or RunDirectory.create(f"{folder}/run", {"space": str(search.space)})
        while True:
            records, finished = run.read(), run.finished()
            found, groups = plan(search, how, tuned, fresh, best, records)
            left = [group for group in groups if group.name not in finished]
            if not left:
                rows = ranked(search, found, best, records)
                order = [candidate.configuration for candidate in found.ranking or []]
                trained = networks(search, rows, groups, run)
                return SweepResult(rows, records, trained, search, order)
            train(left[0], run, batching=batching, progress=progress)


def _check_names(unknown: Mapping[str, Any]) -> None:
    """Raises TypeError for any of these, with the place of hyperparameters and of budgets."""
    budget = "each trial trains for steps= updates, or for epochs= with a validation after each"
    point = "write it in the space, such as 'hidden=4,8 clip=1'"
    budgets = ("patience", "plateau", "validate_every", "factor", "window")
    advice = dict.fromkeys(budgets, budget)
    advice |= dict.fromkeys((*Trials._fields, "hidden", "depth"), point)
    check_names("sweep", unknown, tuple(inspect.signature(sweep).parameters)[:-1], advice)


def plan(
    search: Search, strategy: Strategy, tuned: tuple[int, ...], fresh: tuple[int, ...], best: int,
    records: Sequence[Record],
) -> tuple[Found, list[Group]]:  # fmt: skip
    """Returns the progress of the search, and its groups with those of the best on fresh seeds."""
    found = strategy.find(search, tuned, records)
    again = [c._replace(seeds=fresh) for c in (found.ranking or [])[:best]]
    return found, found.groups + waves(search, "best", again, search.steps, split="test")


def ranked(search: Search, found: Found, best: int, records: Sequence[Record]) -> list[Ranked]:
    """Returns the best configurations with their results; none until the search ends."""
    rows = []
    for candidate in (found.ranking or [])[:best]:
        mine = [
            r for r in records
            if r["kind"] == "result" and r["configuration"] == candidate.configuration
        ]  # fmt: skip
        mean = float(np.mean([score(r, search.metric) for r in tried(mine)]))
        tested = [r for r in mine if "test_n" in r]
        rows.append(Ranked(candidate.configuration, candidate.values, mean, tested))
    return rows


def _row(results: Sequence[Record], metric: str) -> dict[str, Any]:
    """Returns the row of a configuration in the table, from the results of its trials."""
    first = results[0]
    row = {"configuration": first["configuration"], **first["values"], "trials": len(results)}
    row["diverged"] = sum(r["status"] == "diverged" for r in results)
    row["step"] = max(r["step"] for r in results)
    row["validation_loss"] = float(np.mean([score(r, "loss") for r in results]))
    if metric == "accuracy":
        right = [r["validation_correct"] / r["validation_n"] for r in results]
        row["validation_accuracy"] = float(np.mean(right))
    return row


def networks(
    search: Search, rows: Sequence[Ranked], groups: Sequence[Group], run: RunDirectory
) -> list[Predictor | None]:
    """Returns, of each of the best configurations, the networks of its fresh seeds.

    The networks are in the run, saved by those of the sweep's groups that test.
    """
    tested = [group for group in groups if group.split == "test"]
    sources, params = sources_of(tested), {group.name: _params(group, run) for group in tested}
    return [_networks(search, row, sources, params) for row in rows]


def _params(group: Group, run: RunDirectory) -> Any:
    """Returns the parameters of the trials of a finished group."""
    return hosts.lead(lambda: load(run.params_path(group.name), state_of(group).params))


def _networks(
    search: Search, row: Ranked, sources: Sources, params: Mapping[str, Any]
) -> Predictor | None:
    """Returns the networks of a configuration's fresh seeds, in their own width."""
    seeds = [r["seed"] for r in row.results if r["status"] != "diverged"]
    if not seeds:
        return None
    spec = search.network(row.values)
    shapes = jax.eval_shape(lambda: spec.init(jax.random.key(0)))

    def trained(group, place):
        wide, trial = (widths.pick(tree, place) for tree in (params[group.name], group.trials))
        return widths.narrow(wide, shapes, spec.cell.hidden, group.model.cell.hidden), trial

    each = [trained(*sources[row.configuration, seed]) for seed in seeds]
    narrow, trials = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    return Predictor(search.task(search.structure(row.values)), spec, narrow, trials)


def fitting(
    search: Search, strategy: Strategy, tuning_seeds: int, reported: int, batching: str
) -> int:
    """Returns R: the trials of one program that fit this machine, or all of them.

    A CPU trains one trial at a time on each core, so a trial's memory does not matter. On other
    devices the compiler reports the needs of the largest network of the space.

    Raises:
      ValueError: if not even one trial fits, or the device does not report its memory.
    """
    wanted = tuning_seeds * strategy.count(search)
    if strategy.name == "optuna":
        wanted = tuning_seeds * math.ceil(strategy.trials / BATCHES)
    device = jax.local_devices()[0]
    fit = ON_A_CPU
    if device.platform != "cpu":
        fit = int(MEMORY_SHARE * _free(device) // _bytes_a_trial(search, batching))
    if fit < 1:
        raise ValueError("not even one trial fits the memory of this device")
    return min(max(wanted, reported), fit * jax.device_count())


def _problem(task: Task | Callable[[Structure], Task], metric: str) -> Callable[[Structure], Task]:
    def made(structure):
        one = task if isinstance(task, Task) else task(structure)
        return never_solved(one) if metric == "loss" else one

    return made


def _network(model: Any) -> Callable[[Structure, Task], SequenceSpec]:
    if not isinstance(model, SequenceSpec):
        return model

    def made(structure, task):
        del task
        hidden, depth = structure["hidden"], structure["depth"]
        if (hidden, depth) == (model.cell.hidden, model.depth):
            return model
        cell = dataclasses.replace(model.cell, hidden=hidden)
        return dataclasses.replace(model, cell=cell, depth=depth)

    return made


def _free(device: Any) -> int:
    """Returns the free bytes of a device."""
    stats = device.memory_stats()
    if not stats or "bytes_limit" not in stats:
        raise ValueError(f"{device} does not report its memory; need a number of places")
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def _bytes_a_trial(search: Search, batching: str) -> float:
    """Returns the device bytes of a trial of the largest structure."""
    count = 8
    return max(
        footprint(
            search.task(structure),
            search.network(search.space.draw(0, 0) | structure, wide=True),
            batch_size=structure["batch_size"], optimizer=structure["optimizer"],
            batching=batching, places=count,
        ) / count
        for structure in search.largest()
    )  # fmt: skip
