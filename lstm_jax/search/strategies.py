"""Strategies of a search: all candidates, successive halving, or optuna's proposals."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence

from lstm_jax.checks import check_choice
from lstm_jax.search import space as spaces
from lstm_jax.search import studies
from lstm_jax.search.groups import Record
from lstm_jax.search.plans import (
    Candidate,
    Found,
    Results,
    Search,
    ranking,
    results_by_group,
    scored,
    sources_of,
    waves,
)

STRATEGIES = ("grid", "random", "halving", "optuna")
SEEDS_APART = 1_000_000  # between the samplers of two runs


@dataclasses.dataclass(frozen=True)
class Strategy:
    """The choice of configurations.

    Attributes:
      name: "grid", "random", "halving" or "optuna".
      trials: configurations to try; a grid tries all of its own.
      points: grid: values of each range.
      eta: halving: one configuration in this many continues.
      rungs: halving: rungs, the last at the end.
      sampler: optuna's.

    Raises:
      ValueError: if the name is unknown, or optuna's sampler is not installed.
    """

    name: str = "random"
    trials: int = 60
    points: int = 5
    eta: int = 3
    rungs: int = 4
    sampler: str = "tpe"

    def __post_init__(self):
        check_choice("strategy", self.name, STRATEGIES)
        if self.name == "optuna":
            studies.check(self.sampler)

    def count(self, search: Search) -> int:
        """Returns the number of configurations."""
        return search.space.grid_size(self.points) if self.name == "grid" else self.trials

    def candidates(self, search: Search, seeds: tuple[int, ...]) -> list[Candidate]:
        """Returns the configurations of a grid, of random search, or of the first rung."""
        if self.name == "grid":
            points = search.space.grid(self.points)
        else:
            points = [search.space.draw(seeds[0], i) for i in range(self.trials)]
        return [Candidate(i, point, seeds) for i, point in enumerate(points)]

    def find(self, search: Search, seeds: tuple[int, ...], records: Iterable[Record]) -> Found:
        """Returns the progress of a search, from the records of its finished groups.

        `seeds` are those of each configuration; the first also draws the points.
        """
        results = results_by_group(records)
        if self.name == "optuna":
            return propose(search, self.sampler, self.trials, seeds, results)
        first = self.candidates(search, seeds)
        if self.name == "halving":
            return halve(search, first, self.eta, self.rungs, results)
        return try_all(search, first, results)


def try_all(search: Search, candidates: Sequence[Candidate], results: Results) -> Found:
    """Trains every candidate to its end, for grid and random search."""
    groups = waves(search, "search", candidates, search.steps)
    scores = scored(groups, results, search.metric)
    return Found(groups, None if scores is None else ranking(candidates, scores))


def halve(
    search: Search, candidates: Sequence[Candidate], eta: int, count: int, results: Results
) -> Found:
    """Plans successive halving: the best of each bracket continue at the next rung.

    Brackets are of equal size; their trials share groups.
    """
    brackets: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        brackets[candidate.bracket].append(candidate)
    unit = "epochs" if search.epochs else "updates"
    plan = spaces.rungs(len(candidates) // len(brackets), search.steps, eta, count, unit)
    groups, behind, sources = [], [], None
    for rung, (_, steps) in enumerate(plan):
        alive = [candidate for these in brackets.values() for candidate in these]
        more = rung + 1 < count
        mine = waves(search, f"rung {rung}", alive, steps, sources=sources, save_state=more)
        groups, sources = groups + mine, sources_of(mine)
        scores = scored(mine, results, search.metric)
        if scores is None:
            return Found(groups, None)
        ranked = {b: ranking(these, scores) for b, these in brackets.items()}
        ahead = plan[rung + 1][0] if more else len(candidates)
        brackets = {b: some[:ahead] for b, some in ranked.items()}
        behind = [c for some in ranked.values() for c in some[ahead:]] + behind
    return Found(groups, [c for these in brackets.values() for c in these] + behind)


def propose(
    search: Search, sampler: str, count: int, seeds: tuple[int, ...], results: Results
) -> Found:
    """Plans batches of at most R trials; optuna chooses each from earlier results."""
    known = {r["configuration"]: r["values"] for some in results.values() for r in some}
    per_batch = max(1, search.places // len(seeds))
    groups, tried, scores = [], [], []
    for batch, first in enumerate(range(0, count, per_batch)):
        numbers = range(first, min(first + per_batch, count))
        if all(number in known for number in numbers):
            points = [known[number] for number in numbers]
        else:
            points = studies.propose(
                search.space, [(c.values, s) for c, s in zip(tried, scores, strict=True)],
                len(numbers), seed=(seeds[0] * SEEDS_APART + batch) % 2**32, sampler=sampler,
            )  # fmt: skip
        mine = [Candidate(n, p, seeds) for n, p in zip(numbers, points, strict=True)]
        of_batch = waves(search, f"batch {batch}", mine, search.steps)
        groups += of_batch
        found = scored(of_batch, results, search.metric)
        if found is None:
            return Found(groups, None)
        tried += mine
        scores += [found[c.configuration] for c in mine]
    return Found(groups, [tried[i] for i in spaces.ranked(scores)])
