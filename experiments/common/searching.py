"""A search as a plan: points of a space become groups of trials, results become the next points.

All functions are pure: a plan follows from its arguments and the recorded results, so the ledger
alone continues a search.
"""

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.common import networks
from experiments.common.flags import TRIALS, need
from experiments.common.plan import Group, continued
from lstm_jax.cells import Zoneout
from lstm_jax.nn import SequenceSpec
from lstm_jax.report.ledger import Record
from lstm_jax.runs.directory import RunDirectory
from lstm_jax.search import space as search
from lstm_jax.search import studies, widths
from lstm_jax.search.space import Space
from lstm_jax.tasks import Task
from lstm_jax.training.fit import State
from lstm_jax.training.trials import Trials

METRICS = ("loss", "accuracy")
STRUCTURE = ("cell", "hidden", "depth", "optimizer", "batch_size", "lag")
POINTS = 20  # of a learning curve
QUESTIONS = 500  # asked of a trial on validation, where they are drawn
ETA, RUNGS = (2, TRIALS[1]), (1, 30)  # bounds of the flags
REACH = 1_000_000  # apart, the sampler's seeds of two runs


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

    Attributes:
      space: the searched space.
      given: the structure that the space leaves out, see `STRUCTURE`.
      task: lag -> the problem.
      steps: updates of a complete trial.
      engine: runs the loop over time.
      places: R, the most trials of one group.
      metric: the ranking metric on validation, one of `METRICS`.
    """

    space: Space
    given: Mapping[str, Any]
    task: Callable[[int], Task]
    steps: int
    engine: str
    places: int
    metric: str

    def structure(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the structure of a point, with the true width."""
        return {name: values.get(name, self.given[name]) for name in STRUCTURE}

    def network(self, values: Mapping[str, Any], wide: bool = False) -> SequenceSpec:
        """Returns the network of a point, in its own width or that of its bucket."""
        s = self.structure(values)
        hidden = widths.bucket(s["hidden"]) if wide else s["hidden"]
        task, states = self.task(s["lag"]), [n for n in values if n.startswith(search.ZONEOUT)]
        spec = networks.network(s["cell"], task, hidden, self.engine, s["depth"])
        rates = {name.removeprefix(search.ZONEOUT): 0.0 for name in states}
        return dataclasses.replace(spec, cell=Zoneout(spec.cell, rates)) if rates else spec


class Found(NamedTuple):
    """The progress of a search.

    Attributes:
      groups: all groups that the results so far allow, in training order.
      ranking: the candidates, best first, without diverged ones; None until the search ends.
    """

    groups: list[Group]
    ranking: list[Candidate] | None


Results = Mapping[str, Sequence[Record]]
Sources = Mapping[tuple[int, int], tuple[Group, int]]  # (configuration, seed) -> group and row


def results_by_group(records: Iterable[Record]) -> Results:
    """Returns the results of every finished group, in trial order."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record["kind"] == "result":
            found[record["group"]].append(record)
    return found


def furthest(records: Iterable[Record]) -> list[Record]:
    """Returns the last result of each trial, at its highest rung."""
    return list({(r["configuration"], r["seed"]): r for r in records}.values())


def score(result: Record, metric: str) -> float:
    """Returns the score of a trial: less is better, inf if it diverged.

    The score is the validation loss, or the share of wrong validation sequences.
    """
    if result["status"] == "diverged":
        return inf
    if metric == "accuracy":
        return 1 - result["validation_correct"] / result["validation_n"]
    return inf if result["validation_loss"] is None else result["validation_loss"]


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


# Strategies. --------------------------------------------------------------------------------------


def try_all(search_: Search, candidates: Sequence[Candidate], results: Results) -> Found:
    """Trains every candidate to its end, for grid and random search."""
    groups = waves(search_, "search", candidates, search_.steps)
    scores = scored(groups, results, search_.metric)
    return Found(groups, None if scores is None else _ranking(candidates, scores))


def halve(
    search_: Search, candidates: Sequence[Candidate], eta: int, count: int, results: Results
) -> Found:
    """Plans successive halving: the best of each bracket continue at the next rung.

    Brackets are of equal size; their trials share groups.
    """
    brackets: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        brackets[candidate.bracket].append(candidate)
    plan = search.rungs(len(candidates) // len(brackets), search_.steps, eta, count)
    groups, behind, sources = [], [], None
    for rung, (_, steps) in enumerate(plan):
        alive = [candidate for these in brackets.values() for candidate in these]
        keep, name = rung + 1 < count, f"rung {rung}"
        of_rung = waves(search_, name, alive, steps, sources=sources, keep=keep)
        groups, sources = groups + of_rung, _places(of_rung)
        scores = scored(of_rung, results, search_.metric)
        if scores is None:
            return Found(groups, None)
        ranking = {b: _ranking(these, scores) for b, these in brackets.items()}
        ahead = plan[rung + 1][0] if keep else len(candidates)
        brackets = {b: ranked[:ahead] for b, ranked in ranking.items()}
        behind = [c for ranked in ranking.values() for c in ranked[ahead:]] + behind
    return Found(groups, [c for these in brackets.values() for c in these] + behind)


def need_rungs(trials: int, steps: int, eta: int, count: int) -> None:
    """Raises ValueError, with the flag, for too few trials or steps for the rungs."""
    least = eta ** (count - 1)
    for name, value in (("trials", trials), ("steps", steps)):
        need(value >= least, name, value, f"--rungs={count} by --eta={eta} need {least} or more")


def ask(
    search_: Search,
    seed: int,
    sampler: str,
    count: int,
    seeds: tuple[int, ...],
    results: Results,
) -> Found:
    """Plans batches of at most R trials; optuna chooses each from earlier results."""
    known = {r["configuration"]: r["values"] for some in results.values() for r in some}
    per = max(1, search_.places // len(seeds))
    groups, tried, told = [], [], []
    for batch, first in enumerate(range(0, count, per)):
        numbers = range(first, min(first + per, count))
        if all(number in known for number in numbers):
            points = [known[number] for number in numbers]
        else:
            points = studies.ask(
                search_.space, told, len(numbers), seed=(seed * REACH + batch) % 2**32,
                sampler=sampler,
            )  # fmt: skip
        asked = [Candidate(n, p, seeds) for n, p in zip(numbers, points, strict=True)]
        batch_groups = waves(search_, f"batch {batch}", asked, search_.steps)
        groups += batch_groups
        scores = scored(batch_groups, results, search_.metric)
        if scores is None:
            return Found(groups, None)
        tried += asked
        told += [(c.values, scores[c.configuration]) for c in asked]
    order = search.ranked([score for _, score in told])
    return Found(groups, [tried[i] for i in order])


# From points to groups and back. ------------------------------------------------------------------


def waves(
    search_: Search,
    phase: str,
    candidates: Sequence[Candidate],
    steps: int,
    *,
    split: str = "validation",
    sources: Sources | None = None,
    keep: bool = False,
) -> list[Group]:
    """Returns the trials of candidates as groups of one structure and at most R trials.

    Args:
      search_: the common settings.
      phase: the prefix of the groups' names.
      candidates: the points to train.
      steps: updates at the end.
      split: for the evaluation at the end.
      sources: the groups and rows to continue from; None for a fresh start.
      keep: whether another phase continues from the final states.
    """
    alike: dict[str, list[tuple[Candidate, int]]] = defaultdict(list)
    for candidate in candidates:
        label = _label(search_, candidate.values)
        alike[label] += [(candidate, seed) for seed in candidate.seeds]
    groups = []
    for label, pairs in alike.items():
        for wave, first in enumerate(range(0, len(pairs), search_.places)):
            name = " ".join(filter(None, (phase, label, str(wave))))
            some = pairs[first : first + search_.places]
            groups.append(_group(search_, name, some, steps, split, sources, keep))
    return groups


def scored(groups: Sequence[Group], results: Results, metric: str) -> dict[int, float] | None:
    """Returns each configuration's mean score over its seeds; None while a group is unfinished."""
    if any(not results.get(group.name) for group in groups):
        return None
    scores: dict[int, list[float]] = defaultdict(list)
    for group in groups:
        for result in results[group.name]:
            scores[result["configuration"]].append(score(result, metric))
    return {number: float(np.mean(values)) for number, values in scores.items()}


def _group(
    search_: Search,
    name: str,
    pairs: Sequence[tuple[Candidate, int]],
    steps: int,
    split: str,
    sources: Sources | None,
    keep: bool,
) -> Group:
    points, seeds = [c.values for c, _ in pairs], [seed for _, seed in pairs]
    structure, wide = search_.structure(points[0]), search_.network(points[0], wide=True)
    trials = search.trials(points, seeds, wide.cell)
    specs = [search_.network(point) for point in points]
    task, begin = search_.task(structure["lag"]), None
    if sources is not None:
        rows = [sources[candidate.configuration, seed] for candidate, seed in pairs]
        begin = functools.partial(_gathered, rows, wide)
    elif any(spec != wide for spec in specs):
        begin = functools.partial(_drawn, structure, task, specs, wide, trials)
    labels = [
        {"configuration": c.configuration, "bracket": c.bracket, "values": dict(c.values)}
        for c, _ in pairs
    ]
    return Group(
        name, task, wide, steps, structure["batch_size"], trials, split,
        sequences=QUESTIONS if split == "validation" else 2000, optimizer=structure["optimizer"],
        initial_state=begin, save_state=keep, labels=labels, curve_points=POINTS,
    )  # fmt: skip


def _label(search_: Search, values: Mapping[str, Any]) -> str:
    """Returns the label of a point's structure within the space, widths by bucket."""
    structure = search_.structure(values)
    structure["hidden"] = widths.bucket(structure["hidden"])
    return ",".join(f"{n}={v}" for n, v in structure.items() if n in search_.space.free)


def _ranking(candidates: Sequence[Candidate], scores: Mapping[int, float]) -> list[Candidate]:
    return [candidates[i] for i in search.ranked([scores[c.configuration] for c in candidates])]


def _places(groups: Sequence[Group]) -> Sources:
    return {
        (label["configuration"], int(seed)): (group, row)
        for group in groups
        if group.trials is not None
        for row, (label, seed) in enumerate(zip(group.labels, group.trials.seed, strict=True))
    }


def _drawn(
    structure: Mapping[str, Any],
    task: Task,
    specs: Sequence[SequenceSpec],
    wide: SequenceSpec,
    trials: Trials,
    run: RunDirectory,
) -> State:
    """Returns the initial state of trials in their own widths."""
    del run
    batch_size, optimizer = structure["batch_size"], structure["optimizer"]
    return widths.begin(task, specs, wide, trials, batch_size=batch_size, optimizer=optimizer)


def _gathered(rows: Sequence[tuple[Group, int]], wide: SequenceSpec, run: RunDirectory) -> State:
    """Returns the final states of survivors, from rows of saved groups."""
    states: dict[str, State] = {}
    for group, _ in rows:
        if group.name not in states:
            states[group.name] = continued(group._replace(model=wide), run)
    picked = [widths.pick(states[group.name], row) for group, row in rows]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *picked)
