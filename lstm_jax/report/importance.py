"""Which parameters matter: functional ANOVA of a random forest fitted to the trials of a sweep.

A response f over the space of settings is the sum of one part for each set U of parameters,

    f(x) = f_0 + sum_p f_p(x_p) + sum_pq f_pq(x_p, x_q) + ...,    every f_U of mean 0 along each
                                                                  of its parameters,

and its variance is the sum of the parts' variances V_U. V_U / V is the importance of U: the main
effect of a parameter, or what an interaction adds to the main effects. f is a random forest, so
marginals are sums over the boxes of its leaves, exact, by the measure of the space
(Hutter, Hoos & Leyton-Brown 2014, An Efficient Approach for Assessing Hyperparameter Importance).

In one respect this is not theirs. They decompose each tree and average the shares; but a tree is
rough, and its roughness counts as interaction: at 200 trials of an XOR of two parameters among
four, the pair gets 0.6 of the variance where the truth is 1. Here the mean of the trees is
decomposed: V_U is the covariance of two different trees' parts, in which their private roughness
cancels, and the pair gets 0.97.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy import special
from sklearn.ensemble import RandomForestRegressor

from lstm_jax.report import space as spaces
from lstm_jax.report.ledger import Record
from lstm_jax.report.space import Parameter
from lstm_jax.report.statistics import CONFIDENCE, Estimate, impute

SMALL = 16  # trees of a forest that is there for its scatter only
LEAST_TRIALS = 20  # of a forest on a search


class Interval(NamedTuple):
    """The leaves' extent along a number: shares of the space from `low` to `high`, [L] each."""

    low: np.ndarray
    high: np.ndarray

    def size(self) -> np.ndarray:
        """Share of the space in each leaf, [L]."""
        return self.high - self.low

    def overlap(self, other: "Interval") -> np.ndarray:
        """Share of the space that each leaf has in common with each of another tree, [L, L']."""
        high = np.minimum.outer(self.high, other.high)
        return np.maximum(high - np.maximum.outer(self.low, other.low), 0.0)

    def holds(self, positions: np.ndarray) -> np.ndarray:
        """Whether each leaf holds each position, [L, n]."""
        return (self.low[:, None] < positions) & (positions <= self.high[:, None])


class Subset(NamedTuple):
    """The leaves' extent along a choice: 1 where a leaf holds it, `members` [L, choices]."""

    members: np.ndarray

    def size(self) -> np.ndarray:
        """Share of the choices in each leaf, [L]."""
        return self.members.mean(1)

    def overlap(self, other: "Subset") -> np.ndarray:
        """Share of the choices that each leaf has in common with each of another tree, [L, L']."""
        return self.members @ other.members.T / self.members.shape[1]

    def holds(self, positions: np.ndarray) -> np.ndarray:
        """Whether each leaf holds the choice at each position, [L, n]."""
        count = self.members.shape[1]
        return self.members[:, np.minimum(positions * count, count - 1).astype(int)] > 0


class Tree(NamedTuple):
    """The leaves of a tree: their values [L], an Interval or a Subset for each parameter."""

    values: np.ndarray
    sides: tuple[Any, ...]

    def integrated(self, kept: Sequence[int]) -> np.ndarray:
        """Each leaf's value times its size along all parameters but `kept`, [L]."""
        sizes = [side.size() for p, side in enumerate(self.sides) if p not in kept]
        return self.values * np.prod(sizes, axis=0)


class Forest(NamedTuple):
    """A response as a function of the space, with forests on resampled trials for its scatter.

    Attributes:
      space: the parameters.
      trees: the forest on all trials.
      resampled: forests on bootstrap samples of the trials.
      explained: 1 - (squared error on trials out of a tree's bag) / variance: what the forest knows
        of a trial that it has not seen. Shares of a forest near 0 mean nothing.
    """

    space: tuple[Parameter, ...]
    trees: list[Tree]
    resampled: list[list[Tree]]
    explained: float


class Effect(NamedTuple):
    """Share of the variance that parameters have together, and no fewer of them."""

    parameters: tuple[str, ...]
    share: Estimate


class Curve(NamedTuple):
    """The response over one parameter, the mean over all others."""

    parameter: Parameter
    values: list[Any]
    response: list[Estimate]


class Surface(NamedTuple):
    """The response over two parameters, the mean over all others.

    Attributes:
      parameters: the two.
      positions: where along each, [n] and [m] in [0, 1].
      response: [n, m].
      error: [n, m] half width of its interval.
    """

    parameters: tuple[Parameter, Parameter]
    positions: tuple[np.ndarray, np.ndarray]
    response: np.ndarray
    error: np.ndarray


class Searched(NamedTuple):
    """The trials of a search.

    Attributes:
      parameters: the free parameters.
      trials: a record for each trial, with its parameters, "configuration" and the response.
      response: the field that ranks trials, less is better; None where a trial diverged.
    """

    parameters: Sequence[Parameter]
    trials: Sequence[Record]
    response: str

    @property
    def forest(self) -> Forest | None:
        """A forest on the trials; None for too few or too equal ones."""
        values = {trial[self.response] for trial in self.trials} - {None}
        if not self.parameters or len(self.trials) < LEAST_TRIALS or len(values) < 2:
            return None
        settings: dict[str, Any] = {"goal": "min", "divergent": "worst"}
        forest = fit(self.parameters, self.trials, self.response, **settings)
        return forest if forest.explained > 0 else None


def fit(
    space: Sequence[Parameter],
    records: Sequence[Record],
    response: str,
    *,
    goal: str,
    divergent: str,
    trees: int = 64,
    resamples: int = 20,
    seed: int = 0,
) -> Forest:
    """Fits forests to a response over a space; the same arguments give the same forests.

    Args:
      space: the parameters, all others being noise.
      records: one a trial, a field for each parameter and one for the response.
      response: the name of that field.
      goal: "min" or "max", what is good in a response.
      divergent: "worst", "rank", "drop" or "refuse": see `statistics.impute`.
      trees: how many the forest has, two or more.
      resamples: bootstrap samples of the trials, with a small forest each, for intervals.
      seed: of the trees and of the resampling.

    Raises:
      ValueError: a record that is no point of the space, a response that does not vary, too few
        trees or resamples; the message names it.
    """
    if trees < 2 or resamples < 2:
        raise ValueError(f"trees {trees}, resamples {resamples}: need two or more of each")
    y, kept = impute(spaces.column(records, response), goal=goal, divergent=divergent)
    x = spaces.points(space, [records[trial] for trial in kept])
    if np.ptp(y) == 0:
        raise ValueError(f"{response} is {y[0]:g} in all {len(y)} trials: nothing to explain")
    rng = np.random.default_rng(seed)
    grown = _grown(space, x, y, trees, rng)
    scatter = [
        _leaves(space, _grown(space, x[some], y[some], min(trees, SMALL), rng))
        for some in (_resampled(y, rng) for _ in range(resamples))
    ]
    explained = _explained(grown, _columns(space, x), y)
    return Forest(tuple(space), _leaves(space, grown), scatter, explained)


def effects(forest: Forest, confidence: float = CONFIDENCE) -> list[Effect]:
    """Main effects and pairwise interactions, each sort from the greatest share down.

    Intervals are share -+ t e, e the root mean square by which the resampled forests are off: how
    much the share would differ had other trials been drawn. A resample has 63 % of the trials, so a
    share that still changes with their number has a wide interval, too. Shares are cut where they
    cannot be, outside of [0, 1].

    Raises:
      ValueError: the trees have no variance in common.
    """
    sets = _sets(len(forest.space))
    share = _shares(forest.trees, sets)
    error = _error(share, [_shares(trees, sets) for trees in forest.resampled], confidence)
    names = [tuple(forest.space[p].name for p in chosen) for chosen in sets]
    found = [
        Effect(name, Estimate(*np.clip((s, s - e, s + e), 0.0, 1.0).tolist()))
        for name, s, e in zip(names, share, error, strict=True)
    ]
    return sorted(found, key=lambda effect: (len(effect.parameters), -effect.share.value))


def curve(forest: Forest, name: str, most: int = 60, confidence: float = CONFIDENCE) -> Curve:
    """The marginal curve of a parameter: at every value, the mean response over all others.

    Raises:
      ValueError: the space has no such parameter.
    """
    p = _place(forest, name)
    positions = forest.space[p].grid(most)
    middle = _curve(forest.trees, p, positions)
    resampled = [_curve(trees, p, positions) for trees in forest.resampled]
    error = _error(middle, resampled, confidence)
    bands = zip(middle.tolist(), (middle - error).tolist(), (middle + error).tolist(), strict=True)
    values = forest.space[p].values(positions)
    return Curve(forest.space[p], values, [Estimate(*band) for band in bands])


def surface(
    forest: Forest, first: str, second: str, most: int = 40, confidence: float = CONFIDENCE
) -> Surface:
    """The marginal surface of two parameters: the mean response over all others.

    Raises:
      ValueError: the space has no such parameter, or the two are one.
    """
    p, q = _place(forest, first), _place(forest, second)
    if p == q:
        raise ValueError(f"{first!r} twice: a surface is over two parameters")
    at = forest.space[p].grid(most), forest.space[q].grid(most)
    response = _surface(forest.trees, p, q, *at)
    resampled = [_surface(trees, p, q, *at) for trees in forest.resampled]
    error = _error(response, resampled, confidence)
    return Surface((forest.space[p], forest.space[q]), at, response, error)


def _shares(trees: Sequence[Tree], sets: Sequence[tuple[int, ...]]) -> np.ndarray:
    """V_U / V for each set U, from the covariances of every tree with the next one."""
    level = trees[0].values.mean()  # no covariance changes, but digits are saved
    trees = [tree._replace(values=tree.values - level) for tree in trees]
    pairs = zip(trees, [*trees[1:], trees[0]], strict=True)
    *whole, total = np.mean([_covariances(a, b, sets) for a, b in pairs], axis=0)
    if total <= 0:
        raise ValueError("the trees have no variance in common: too few trials, or only noise")
    variances: dict[tuple[int, ...], float] = {}
    for chosen, closed in zip(sets, whole, strict=True):  # smaller sets come first
        variances[chosen] = closed - sum(variances[(p,)] for p in chosen if len(chosen) > 1)
    return np.array([variances[chosen] / total for chosen in sets])


def _covariances(a: Tree, b: Tree, sets: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Covariances of two trees' marginals over each set of parameters, and of the trees at last.

    With leaves of value v and sides of size m: sum_lk r_l O_lk r_k - f_0 f_0', r = v prod_(q not
    in U) m_q, O = prod_(p in U) (overlap along p).
    """
    overlaps = [mine.overlap(other) for mine, other in zip(a.sides, b.sides, strict=True)]
    found = []
    for chosen in [*sets, tuple(range(len(overlaps)))]:
        common = overlaps[chosen[0]]
        for p in chosen[1:]:
            common = common * overlaps[p]
        found.append(a.integrated(chosen) @ common @ b.integrated(chosen))
    return np.array(found) - a.integrated(()).sum() * b.integrated(()).sum()


def _curve(trees: Sequence[Tree], p: int, at: np.ndarray) -> np.ndarray:
    marginals = [tree.integrated((p,)) @ tree.sides[p].holds(at) for tree in trees]
    return np.mean(marginals, axis=0)


def _surface(trees: Sequence[Tree], p: int, q: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    marginals = [
        (tree.sides[p].holds(x) * tree.integrated((p, q))[:, None]).T @ tree.sides[q].holds(y)
        for tree in trees
    ]
    return np.mean(marginals, axis=0)


def _error(value: np.ndarray, resampled: Sequence[np.ndarray], confidence: float) -> np.ndarray:
    """Half the width of the interval: t times the root mean square distance of the resamples."""
    reach = special.stdtrit(len(resampled), 0.5 + confidence / 2)
    return reach * np.sqrt(np.mean([(other - value) ** 2 for other in resampled], axis=0))


def _sets(count: int) -> list[tuple[int, ...]]:
    return [(p,) for p in range(count)] + list(combinations(range(count), 2))


def _place(forest: Forest, name: str) -> int:
    names = [parameter.name for parameter in forest.space]
    if name not in names:
        raise ValueError(f"{name!r} is no parameter of the space, which has {names}")
    return names.index(name)


def _resampled(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A bootstrap sample of the trials, drawn again while its response does not vary."""
    while True:
        some = rng.integers(0, len(y), len(y))
        if np.ptp(y[some]) > 0:
            return some


def _grown(
    space: Sequence[Parameter], x: np.ndarray, y: np.ndarray, trees: int, rng: np.random.Generator
) -> RandomForestRegressor:
    forest = RandomForestRegressor(trees, random_state=int(rng.integers(2**31)))
    return forest.fit(_columns(space, x), y)


def _explained(forest: RandomForestRegressor, columns: np.ndarray, y: np.ndarray) -> float:
    """1 - (squared error) / variance, each trial judged by the trees that did not see it."""
    unseen = np.ones((len(forest.estimators_), len(y)), bool)
    for bag, drawn in zip(unseen, forest.estimators_samples_, strict=True):
        bag[drawn] = False
    judged = unseen.any(0)
    answers = np.array([tree.predict(columns) for tree in forest.estimators_])
    mean = (answers * unseen).sum(0)[judged] / unseen.sum(0)[judged]
    return 1.0 - float(np.mean((y[judged] - mean) ** 2) / np.var(y))


def _columns(space: Sequence[Parameter], x: np.ndarray) -> np.ndarray:
    """Points [n, P] as a tree sees them: a column a number, one a choice's value, 0 or 1."""
    columns = []
    for parameter, along in zip(space, x.T, strict=True):
        marks = np.eye(len(parameter.choices))
        chosen = (along * len(marks)).astype(int)
        columns.append(marks[chosen] if parameter.choices else along[:, None])
    return np.concatenate(columns, axis=1).astype(np.float32)


def _leaves(space: Sequence[Parameter], forest: RandomForestRegressor) -> list[Tree]:
    widths = [max(1, len(parameter.choices)) for parameter in space]
    starts = np.cumsum([0, *widths[:-1]])
    trees = []
    for estimator in forest.estimators_:
        values, low, high = _boxes(estimator.tree_)
        sides = [
            _side(parameter, low[:, start : start + width], high[:, start : start + width])
            for parameter, start, width in zip(space, starts, widths, strict=True)
        ]
        trees.append(Tree(values, tuple(sides)))
    return trees


def _side(parameter: Parameter, low: np.ndarray, high: np.ndarray) -> Interval | Subset:
    """What boxes with low < column <= high, [L, columns], hold of a parameter."""
    if not parameter.choices:
        return Interval(*(parameter.measure_below(end[:, 0]) for end in (low, high)))
    marks = np.eye(len(parameter.choices))
    held = (low[:, None] < marks) & (marks <= high[:, None])  # [L, choices, columns]
    return Subset(held.all(-1).astype(float))


def _boxes(tree: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The leaves' values [L] and boxes, low < x <= high [L, columns], level by level."""
    low = np.full((tree.node_count, tree.n_features), -np.inf)
    high = np.full((tree.node_count, tree.n_features), np.inf)
    level = np.array([0])
    while level.size:
        parents = level[tree.children_left[level] >= 0]
        left, right = tree.children_left[parents], tree.children_right[parents]
        for children in (left, right):
            low[children], high[children] = low[parents], high[parents]
        split, threshold = tree.feature[parents], tree.threshold[parents]
        high[left, split] = threshold
        low[right, split] = threshold
        level = np.concatenate([left, right])
    leaf = tree.children_left < 0
    return tree.value[leaf, 0, 0], low[leaf], high[leaf]
