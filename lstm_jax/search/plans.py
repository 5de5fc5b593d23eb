"""Plans of a search: points of a space become groups of trials, and results the next points.

All functions are pure. A plan follows from its arguments and the recorded results, so the ledger is
enough to continue a search.
"""

import dataclasses
import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_jax.cells import Zoneout
from lstm_jax.nn import SequenceSpec
from lstm_jax.runs.directory import RunDirectory
from lstm_jax.search import space as spaces
from lstm_jax.search import widths
from lstm_jax.search.groups import Group, Record, continued
from lstm_jax.search.space import Int, Space
from lstm_jax.tasks.base import Task
from lstm_jax.training.fit import epoch_of
from lstm_jax.training.step import State
from lstm_jax.training.trials import Trials

METRICS = ("loss", "accuracy")
CURVE_POINTS = 20
SEQUENCES = {"validation": 500, "test": 2000}  # evaluated for each trial, where they are drawn

Results = Mapping[str, Sequence[Record]]  # by group
Sources = Mapping[tuple[int, int], tuple[Group, int]]  # (configuration, seed) -> group and row


class Candidate(NamedTuple):
    """A point of the space to try.

    Attributes:
      configuration: its number, unique within the run.
      values: the point.
      seeds: one trial for each.
      bracket: its competitors in successive halving.
    """

    configuration: int
    values: Mapping[str, Any]
    seeds: tuple[int, ...]
    bracket: int = 0


@dataclasses.dataclass(frozen=True)
class Search:
    """The common settings of all groups of a search.

    A structure is what cannot differ within one compiled program: width, depth, optimiser, batch
    size, and what else the task and the model depend on.

    Attributes:
      space: the searched space.
      given: the structure, name -> value, where the space leaves it out; "hidden", "batch_size" and
        "optimizer" are among it.
      task: (structure) -> the problem.
      model: (structure, task) -> the network.
      steps: updates, or epochs, of a complete trial.
      places: R, the most trials of one group.
      metric: the ranking metric on validation, one of `METRICS`.
      epochs: whether `steps` counts epochs, see `Group.epochs`.
    """

    space: Space
    given: Mapping[str, Any]
    task: Callable[[Mapping[str, Any]], Task]
    model: Callable[[Mapping[str, Any], Task], SequenceSpec]
    steps: int
    places: int = 1
    metric: str = "loss"
    epochs: bool = False

    def structure(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the structure of a point, with the true width."""
        return {name: values.get(name, given) for name, given in self.given.items()}

    def network(self, values: Mapping[str, Any], wide: bool = False) -> SequenceSpec:
        """Returns the network of a point, in its own width or that of its bucket."""
        structure = self.structure(values)
        if wide:
            structure["hidden"] = widths.bucket(structure["hidden"])
        task = self.task(structure)
        spec = self.model(structure, task).sized(task)
        states = [name for name in values if name.startswith(spaces.ZONEOUT)]
        rates = {name.removeprefix(spaces.ZONEOUT): 0.0 for name in states}
        return dataclasses.replace(spec, cell=Zoneout(spec.cell, rates)) if rates else spec

    def ends(self, name: str) -> tuple[Any, ...]:
        """Returns the values of a structure: all of a choice, the ends of a range."""
        return tuple(self.space[name].ends()) if name in self.space else (self.given[name],)

    def largest(self) -> Iterator[dict[str, Any]]:
        """Yields the structures with the greatest numbers, one for each combination of words."""
        each = {name: self.ends(name) for name in self.given}
        choices = [v if isinstance(v[0], str) else (max(v),) for v in each.values()]
        for combination in itertools.product(*choices):
            yield dict(zip(each, combination, strict=True))

    def check_names(self) -> None:
        """Raises ValueError for a bias or a rate of the space that one of the cells lacks."""
        names = dict(self.space.parameters)
        for structure in self.largest():
            cell = self.network(structure, wide=True).cell
            spaces.bias_blocks(names, cell)
            spaces.zoneout_states(names, cell)

    def check_rows(self) -> None:
        """Raises ValueError for a task without rows that train, validate or test."""
        for structure in self.largest():
            task = self.task(structure)
            if self.epochs:
                epoch_of(task, structure["batch_size"])
            for split in ("validation", "test"):
                if task.split_size(split) == 0:
                    raise ValueError(f"task must have rows that rank and test, got no {split} rows")

    def check_widths(self) -> None:
        """Raises ValueError for widths that one of the cells cannot have in a wider network."""
        ends = self.ends("hidden")
        ranges = "hidden" in self.space and isinstance(self.space["hidden"], Int)
        every = range(ends[0], ends[1] + 1) if ranges else ends
        odd = [width for width in every if widths.bucket(width) != width]
        for structure in self.largest() if odd else ():
            widths.check_cell(self.network(structure | {"hidden": odd[0]}).cell)


class Found(NamedTuple):
    """The progress of a search.

    Attributes:
      groups: all groups that the results so far allow, in training order.
      ranking: the candidates, best first, without diverged ones; None until the search ends.
    """

    groups: list[Group]
    ranking: list[Candidate] | None


# Results. -----------------------------------------------------------------------------------------


def results_by_group(records: Iterable[Record]) -> Results:
    """Returns the results of every finished group, in trial order."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record["kind"] == "result":
            found[record["group"]].append(record)
    return found


def furthest(results: Iterable[Record]) -> list[Record]:
    """Returns the last result of each trial, at its highest rung."""
    return list({(r["configuration"], r["seed"]): r for r in results}.values())


def tried(records: Iterable[Record]) -> list[Record]:
    """Returns the last validation result of each trial of the search."""
    return furthest(r for r in records if r["kind"] == "result" and "validation_n" in r)


def score(result: Record, metric: str) -> float:
    """Returns the score of a trial: less is better, inf if it diverged.

    The score is the validation loss, or the share of wrong validation sequences.
    """
    if result["status"] == "diverged":
        return inf
    if metric == "accuracy":
        return 1 - result["validation_correct"] / result["validation_n"]
    return inf if result["validation_loss"] is None else result["validation_loss"]


def scored(groups: Sequence[Group], results: Results, metric: str) -> dict[int, float] | None:
    """Returns each configuration's mean score over its seeds; None while a group is unfinished."""
    if any(not results.get(group.name) for group in groups):
        return None
    scores: dict[int, list[float]] = defaultdict(list)
    for group in groups:
        for result in results[group.name]:
            scores[result["configuration"]].append(score(result, metric))
    return {number: float(np.mean(values)) for number, values in scores.items()}


def best_so_far(results: Iterable[Record], metric: str) -> tuple[list[int], list[float]]:
    """Returns total updates and the best score so far, result by result."""
    done: dict[tuple[int, int], int] = {}
    x, y, total, best = [], [], 0, inf
    for record in results:
        trial = record["configuration"], record["seed"]
        total += record["step"] - done.get(trial, 0)
        done[trial] = record["step"]
        best = min(best, score(record, metric))
        x.append(total)
        y.append(best)
    return x, y


# From points to groups. ---------------------------------------------------------------------------


def waves(
    search: Search,
    phase: str,
    candidates: Sequence[Candidate],
    steps: int,
    *,
    split: str = "validation",
    sources: Sources | None = None,
    save_state: bool = False,
) -> list[Group]:
    """Returns the trials of candidates as groups of one structure and at most R trials.

    Args:
      search: the common settings.
      phase: the prefix of the groups' names.
      candidates: the points to train.
      steps: updates, or epochs, at the end.
      split: for the evaluation at the end.
      sources: the groups and rows to continue from; None for a fresh start.
      save_state: whether another phase continues from the final states.
    """
    alike: dict[str, list[tuple[Candidate, int]]] = defaultdict(list)
    for candidate in candidates:
        label = _label(search, candidate.values)
        alike[label] += [(candidate, seed) for seed in candidate.seeds]
    groups = []
    for label, pairs in alike.items():
        for wave, first in enumerate(range(0, len(pairs), search.places)):
            name = " ".join(filter(None, (phase, label, str(wave))))
            some = pairs[first : first + search.places]
            group = _group(search, name, some, steps, split, sources)
            groups.append(group._replace(save_state=save_state))
    return groups


def sources_of(groups: Sequence[Group]) -> Sources:
    """Returns the group and the row of each configuration and seed."""
    return {
        (label["configuration"], int(seed)): (group, row)
        for group in groups
        if group.trials is not None
        for row, (label, seed) in enumerate(zip(group.labels, group.trials.seed, strict=True))
    }


def ranking(candidates: Sequence[Candidate], scores: Mapping[int, float]) -> list[Candidate]:
    """Returns the candidates by their scores, best first, without diverged ones."""
    return [candidates[i] for i in spaces.ranked([scores[c.configuration] for c in candidates])]


def _group(
    search: Search,
    name: str,
    pairs: Sequence[tuple[Candidate, int]],
    steps: int,
    split: str,
    sources: Sources | None,
) -> Group:
    points, seeds = [c.values for c, _ in pairs], [seed for _, seed in pairs]
    structure, wide = search.structure(points[0]), search.network(points[0], wide=True)
    trials = spaces.trials(points, seeds, wide.cell)
    specs = [search.network(point) for point in points]
    task, initial = search.task(structure), None
    settings = {name: structure[name] for name in ("batch_size", "optimizer")}
    settings |= {"epochs": search.epochs}
    if sources is not None:
        rows = [sources[candidate.configuration, seed] for candidate, seed in pairs]
        initial = functools.partial(_gathered, rows, wide)
    elif any(spec != wide for spec in specs):
        initial = functools.partial(_drawn, task, specs, wide, trials, settings)
    labels = [
        {"configuration": c.configuration, "bracket": c.bracket, "values": dict(c.values)}
        for c, _ in pairs
    ]
    return Group(
        name, task, wide, steps, trials=trials, split=split,
        sequences=SEQUENCES[split], initial_state=initial, labels=labels,
        curve_points=CURVE_POINTS, **settings,
    )  # fmt: skip


def _label(search: Search, values: Mapping[str, Any]) -> str:
    """Returns the label of a point's structure within the space, widths by bucket."""
    structure = search.structure(values)
    structure["hidden"] = widths.bucket(structure["hidden"])
    return ",".join(f"{n}={v}" for n, v in structure.items() if n in search.space.free)


def _drawn(
    task: Task, specs: Sequence[SequenceSpec], wide: SequenceSpec, trials: Trials,
    settings: Mapping[str, Any], run: RunDirectory,
) -> State:  # fmt: skip
    """Returns the initial state of trials in their own widths."""
    del run
    return widths.begin(task, specs, wide, trials, **settings)


def _gathered(rows: Sequence[tuple[Group, int]], wide: SequenceSpec, run: RunDirectory) -> State:
    """Returns the final states of survivors, from rows of saved groups."""
    states: dict[str, State] = {}
    for group, _ in rows:
        if group.name not in states:
            states[group.name] = continued(group._replace(model=wide), run)
    picked = [widths.pick(states[group.name], row) for group, row in rows]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *picked)
