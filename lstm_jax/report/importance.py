"""Importance of parameters: functional ANOVA of a random forest fitted to the trials of a sweep.

A response f over the space of settings is the sum of one part for each set U of parameters,

    f(x) = f_0 + sum_p f_p(x_p) + sum_pq f_pq(x_p, x_q) + ...,    every f_U of mean 0 along each
                                                                  of its parameters,

and its variance is the sum of the parts' variances V_U. V_U / V is the importance of U: the main
effect of a parameter, or what an interaction adds to the main effects. f is a random forest, so
marginals are sums over the boxes of its leaves, exact, by the measure of the space
(Hutter, Hoos & Leyton-Brown 2014, An Efficient Approach for Assessing Hyperparameter Importance).

One step differs from theirs. They decompose each tree and average the shares. But a tree is
rough, and its roughness counts as interaction: at 200 trials of an XOR of two parameters among
four, the pair gets 0.6 of the variance where the truth is 1. Here V_U is the covariance of two
different trees' parts, in which the roughness of single trees cancels, and the pair gets 0.97.
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

SMALL = 16  # trees of a forest on a bootstrap sample
SIDE = 40  # positions along each side of a surface
LEAST_TRIALS = 20  # of a search, to fit a forest


class Interval(NamedTuple):
    """Extent of L leaves along a number: `low` and `high`, [L] each, as shares of the space."""

    low: np.ndarray
    high: np.ndarray

    def size(self) -> np.ndarray:
        """Returns the share of the space in each leaf, [L]."""
        return self.high - self.low

    def overlap(self, other: "Interval") -> np.ndarray:
        """Returns the share of the space common to each leaf and each of another tree, [L, L']."""
        high = np.minimum.outer(self.high, other.high)
        return np.maximum(high - np.maximum.outer(self.low, other.low), 0.0)

    def holds(self, positions: np.ndarray) -> np.ndarray:
        """Returns whether each leaf has each position, [L, n]."""
        return (self.low[:, None] < positions) & (positions <= self.high[:, None])


class Subset(NamedTuple):
    """Extent of L leaves along a choice: `members` [L, choices] is 1 where a leaf has it."""

    members: np.ndarray

    def size(self) -> np.ndarray:
        """Returns the share of the choices in each leaf, [L]."""
        return self.members.mean(1)

    def overlap(self, other: "Subset") -> np.ndarray:
        """Returns the share of choices common to each leaf and each of another tree, [L, L']."""
        return self.members @ other.members.T / self.members.shape[1]

    def holds(self, positions: np.ndarray) -> np.ndarray:
        """Returns whether each leaf has the choice at each position, [L, n]."""
        count = self.members.shape[1]
        return self.members[:, np.minimum(positions * count, count - 1).astype(int)] > 0


class Tree(NamedTuple):
    """The leaves of a tree: their values [L], and an Interval or Subset for each parameter."""

    values: np.ndarray
    sides: tuple[Any, ...]

    def integrated(self, kept: Sequence[int]) -> np.ndarray:
        """Returns each leaf's value times its size along all parameters but `kept`, [L]."""
        sizes = [side.size() for p, side in enumerate(self.sides) if p not in kept]
        return self.values * np.prod(sizes, axis=0)


class Forest(NamedTuple):
    """A response as a function of the settings, and forests on resampled trials for intervals.

    Attributes:
      space: the parameters.
      trees: the forest on all trials.
      resampled: forests on bootstrap samples of the trials.
      explained: 1 - (squared error) / variance, each trial predicted by the trees that did not see
        it. Near 0 the forest predicts nothing, and its shares mean nothing.
    """

    space: tuple[Parameter, ...]
    trees: list[Tree]
    resampled: list[list[Tree]]
    explained: float


class Effect(NamedTuple):
    """The share of the variance due to one parameter, or to the interaction of two."""

    parameters: tuple[str, ...]
    share: Estimate


class Curve(NamedTuple):
    """The response over one parameter, the mean over all other parameters."""

    parameter: Parameter
    values: list[Any]
    response: list[Estimate]


class Surface(NamedTuple):
    """The response over two parameters, the mean over all other parameters.

    Attributes:
      parameters: the two.
      positions: [n] and [m] in [0, 1], along each parameter.
      response: [n, m].
    """

    parameters: tuple[Parameter, Parameter]
    positions: tuple[np.ndarray, np.ndarray]
    response: np.ndarray


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
        """A forest on the trials; None if they are too few or do not differ."""
        values = {trial[self.response] for trial in self.trials} - {None}
        if not self.parameters or len(self.trials) < LEAST_TRIALS or len(values) < 2:
            return None
        forest = fit(self.parameters, self.trials, self.response)
        return forest if forest.explained > 0 else None


def fit(
    space: Sequence[Parameter],
    records: Sequence[Record],
    response: str,
    *,
    trees: int = 64,
    resamples: int = 20,
    seed: int = 0,
) -> Forest:
    """Fits forests to a response over a space; the same arguments give the same forests.

    Args:
      space: the parameters; everything else counts as noise.
      records: one for each trial, with a field for each parameter and one for the response.
      response: the name of that field; a trial that diverged counts as the worst of the others.
      trees: of the forest, two or more.
      resamples: bootstrap samples of the trials, two or more, with a small forest each.
      seed: of the trees and of the resampling.

    Raises:
      ValueError: a record that is no point of the space, a response that does not vary, too few
        trees or resamples; the message names it.
    """
    if trees < 2 or resamples < 2:
        raise ValueError(f"trees {trees}, resamples {resamples}: need two or more of each")
    y = impute(spaces.column(records, response))
    x = spaces.points(space, records)
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


def effects(forest: Forest) -> list[Effect]:
    """Returns main effects, then pairwise interactions, each from the greatest share down.

    Intervals are share -+ t e. The error e is the root mean square distance of the resampled
    forests' shares: how much the share would differ if other trials had been drawn. A resample has
    63 % of the trials, so a share that still changes with their number has a wide interval, too.
    Shares and intervals are cut at 0 and 1.

    Raises:
      ValueError: the trees have no variance in common.
    """
    sets = _sets(len(forest.space))
    share = _shares(forest.trees, sets)
    error = _error(share, [_shares(trees, sets) for trees in forest.resampled])
    names = [tuple(forest.space[p].name for p in chosen) for chosen in sets]
    found = [
        Effect(name, Estimate(*np.clip((s, s - e, s + e), 0.0, 1.0).tolist()))
        for name, s, e in zip(names, share, error, strict=True)
    ]
    return sorted(found, key=lambda effect: (len(effect.parameters), -effect.share.value))


def curve(forest: Forest, name: str, most: int = 60) -> Curve:
    """Returns the response at every value of a parameter, the mean over all other parameters.

    Raises:
      ValueError: the space has no such parameter.
    """
    p = _place(forest, name)
    positions = forest.space[p].grid(most)
    middle = _curve(forest.trees, p, positions)
    resampled = [_curve(trees, p, positions) for trees in forest.resampled]
    error = _error(middle, resampled)
    bands = zip(middle.tolist(), (middle - error).tolist(), (middle + error).tolist(), strict=True)
    values = forest.space[p].values(positions)
    return Curve(forest.space[p], values, [Estimate(*band) for band in bands])


def surface(forest: Forest, first: str, second: str) -> Surface:
    """Returns the response over two parameters, the mean over all other parameters.

    Raises:
      ValueError: the space has no such parameter, or the two are one.
    """
    p, q = _place(forest, first), _place(forest, second)
    if p == q:
        raise ValueError(f"{first!r} twice: a surface is over two parameters")
    at = forest.space[p].grid(SIDE), forest.space[q].grid(SIDE)
    marginals = [
        (tree.sides[p].holds(at[0]) * tree.integrated((p, q))[:, None]).T
        @ tree.sides[q].holds(at[1])
        for tree in forest.trees
    ]
    return Surface((forest.space[p], forest.space[q]), at, np.mean(marginals, axis=0))


def _shares(trees: Sequence[Tree], sets: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Returns V_U / V for each set U, from covariances of every tree with the next."""
    level = trees[0].values.mean()  # covariances stay the same, rounding errors are smaller
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
    """Returns covariances of two trees' marginals over each set of parameters, then of the trees.

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


def _error(value: np.ndarray, resampled: Sequence[np.ndarray]) -> np.ndarray:
    """Returns half the width of the interval: t times the resamples' root mean square distance."""
    reach = special.stdtrit(len(resampled), 0.5 + CONFIDENCE / 2)
    return reach * np.sqrt(np.mean([(other - value) ** 2 for other in resampled], axis=0))


def _sets(count: int) -> list[tuple[int, ...]]:
    return [(p,) for p in range(count)] + list(combinations(range(count), 2))


def _place(forest: Forest, name: str) -> int:
    names = [parameter.name for parameter in forest.space]
    if name not in names:
        raise ValueError(f"{name!r} is no parameter of the space, which has {names}")
    return names.index(name)


def _resampled(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a bootstrap sample of the trials whose response varies."""
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
    """Returns `Forest.explained`; sklearn's out-of-bag score needs every trial out of some bag."""
    unseen = np.ones((len(forest.estimators_), len(y)), bool)
    for bag, drawn in zip(unseen, forest.estimators_samples_, strict=True):
        bag[drawn] = False
    judged = unseen.any(0)
    answers = np.array([tree.predict(columns) for tree in forest.estimators_])
    mean = (answers * unseen).sum(0)[judged] / unseen.sum(0)[judged]
    return 1.0 - float(np.mean((y[judged] - mean) ** 2) / np.var(y))


def _columns(space: Sequence[Parameter], x: np.ndarray) -> np.ndarray:
    """Returns points [n, P] as columns: one for a number, one of 0 and 1 for each choice."""
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
    """Returns the extent of boxes low < column <= high, [L, columns], along a parameter."""
    if not parameter.choices:
        return Interval(*(parameter.measure_below(end[:, 0]) for end in (low, high)))
    marks = np.eye(len(parameter.choices))
    held = (low[:, None] < marks) & (marks <= high[:, None])  # [L, choices, columns]
    return Subset(held.all(-1).astype(float))


def _boxes(tree: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the leaves' values [L] and boxes, low < x <= high [L, columns]."""
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
