"""Functional ANOVA: the sums over boxes against brute force, shares against closed forms."""

from itertools import product

import numpy as np
import pytest

from lstm_jax.report import importance
from lstm_jax.report.space import Parameter
from lstm_jax.search.space import Choice, Int, Log, LogInt, Uniform

MIXED = (
    Parameter("rate", Log(1e-4, 1e-1)),
    Parameter("layers", Int(1, 4)),
    Parameter("cell", Choice(("lstm", "gru", "rnn"))),
    Parameter("width", LogInt(2, 4)),
)
UNIT = tuple(Parameter(name, Uniform(0, 1)) for name in "xyz")


def drawn(space, n, f, seed=0):
    """Records of n random trials, the response being f of their positions [n, P]."""
    at = np.random.default_rng(seed).random((n, len(space)))
    columns = [p.values(along) for p, along in zip(space, at.T, strict=True)]
    points = np.stack([p.positions(c) for p, c in zip(space, columns, strict=True)], axis=1)
    names = [p.name for p in space]
    trials = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return [trial | {"loss": float(y)} for trial, y in zip(trials, f(points), strict=True)]


def fitted(space, records, **rest):
    return importance.fit(space, records, "loss", **{"trees": 16, "resamples": 2} | rest)


def shares(forest):
    return {e.parameters: e.share.value for e in importance.effects(forest)}


# The sums over boxes. -----------------------------------------------------------------------------


def cells(trees, p, parameter):
    """Positions and weights of the stretches along a parameter in which no tree changes."""
    if parameter.choices:
        return parameter.grid(9), np.full(3, 1 / 3)
    ends = np.unique(np.concatenate([np.concatenate(tree.sides[p]) for tree in trees]))
    return (ends[1:] + ends[:-1]) / 2, np.diff(ends)


def on_grid(tree, at):
    """The tree at every point of a grid, from its leaves, which must cover it once."""
    inside = [side.holds(along) for side, along in zip(tree.sides, at, strict=True)]
    count = np.einsum("la,lb,lc,ld->abcd", *(i.astype(float) for i in inside))
    assert np.all(count == 1)
    return np.einsum("l,la,lb,lc,ld->abcd", tree.values, *inside)


def marginal(f, weights, kept):
    rest = [axis for axis in range(f.ndim) if axis not in kept]
    for axis in reversed(rest):
        f = np.tensordot(f, weights[axis], axes=(axis, 0))
    return f


def covariance(f, g, weights, kept):
    """The weighted covariance of two functions' marginals over the parameters `kept`."""
    f, g = (marginal(h, weights, kept) - marginal(h, weights, ()) for h in (f, g))
    return float(marginal(f * g, [weights[p] for p in kept], ()))


def test_shares_and_marginals_are_those_of_brute_force_integration():
    records = drawn(MIXED, 40, lambda u: np.sin(9 * u[:, 0]) + u[:, 1] * u[:, 2] + u[:, 3] ** 2)
    forest = fitted(MIXED, records, trees=3)
    grid = [cells(forest.trees, p, parameter) for p, parameter in enumerate(MIXED)]
    at, weights = [c[0] for c in grid], [c[1] for c in grid]
    functions = [on_grid(tree, at) for tree in forest.trees]
    pairs = [(functions[i], functions[(i + 1) % 3]) for i in range(3)]

    def variance(*kept):
        return np.mean([covariance(f, g, weights, kept) for f, g in pairs])

    total, names, got = variance(0, 1, 2, 3), [p.name for p in MIXED], shares(forest)
    for p in range(4):
        np.testing.assert_allclose(got[(names[p],)], variance(p) / total, rtol=1e-10)
        for q in range(p + 1, 4):
            expected = (variance(p, q) - variance(p) - variance(q)) / total
            np.testing.assert_allclose(got[(names[p], names[q])], max(expected, 0), atol=1e-12)

    mean = np.mean(functions, axis=0)
    for p, name in enumerate(names):
        curve = importance.curve(forest, name, most=7)
        cell = [np.argmin(np.abs(at[p] - x)) for x in curve.parameter.positions(curve.values)]
        if name != "rate":
            expected = marginal(mean, weights, (p,))[cell]
            np.testing.assert_allclose([e.value for e in curve.response], expected, rtol=1e-10)
        assert all(e.low <= e.value <= e.high for e in curve.response)
    surface = importance.surface(forest, "layers", "cell")
    layers = [np.searchsorted(np.cumsum(weights[1]), x) for x in surface.positions[0]]
    expected = marginal(mean, weights, (1, 2))[layers]
    np.testing.assert_allclose(surface.response, expected, rtol=1e-10)
    curve, *others = (
        importance.curve(forest._replace(trees=trees), "layers").response
        for trees in (forest.trees, *forest.resampled)
    )
    values = np.array([[e.value for e in other] for other in (curve, *others)])
    t = 4.302653  # Student's, of 95 % and two resamples
    error = t * np.sqrt(np.mean((values[1:] - values[0]) ** 2, axis=0))
    np.testing.assert_allclose([e.high - e.value for e in curve], error, rtol=1e-6)


def test_the_boxes_say_what_the_forest_says():
    records = drawn(MIXED, 60, lambda u: u[:, 0] * u[:, 1] + u[:, 2] - u[:, 3])
    x = importance.spaces.points(MIXED, records)
    y = np.array([record["loss"] for record in records])
    grown = importance._grown(MIXED, x, y, 4, np.random.default_rng(0))
    trees = importance._leaves(MIXED, grown)
    for tree, estimator in zip(trees, grown.estimators_, strict=True):
        held = np.prod([s.holds(x[:, p]) for p, s in enumerate(tree.sides)], axis=0)
        expected = estimator.predict(importance._columns(MIXED, x))
        np.testing.assert_allclose(tree.values @ held, expected, rtol=1e-12)


# Closed forms. ------------------------------------------------------------------------------------

TWO = (
    Parameter("a", Choice(("no", "yes"))),
    Parameter("b", Int(0, 1)),
    Parameter("c", Choice((1, 2, 3))),
)


def factorial(f, times=25):
    """Every combination, so often that no tree's bag lacks one: the forest then is f itself."""
    every = product(*(p.values(p.grid(9)) for p in TWO))
    return [{"a": a, "b": b, "c": c, "loss": f(a == "yes", b, c)} for a, b, c in every] * times


@pytest.mark.parametrize(
    "f, expected",
    [
        (lambda a, b, c: float(a != b), {("a", "b"): 1.0}),  # XOR: nothing but interaction
        (lambda a, b, c: a + 2.0 * b, {("a",): 0.2, ("b",): 0.8}),  # variances 1/4 and 4/4
        (lambda a, b, c: float(a and b), {("a",): 1 / 3, ("b",): 1 / 3, ("a", "b"): 1 / 3}),
        (lambda a, b, c: float(c == 2) + a, {("a",): 9 / 17, ("c",): 8 / 17}),  # 1/4 and 2/9
        (lambda a, b, c: (a - 0.5) * (b - 0.5) * (c - 2.0), {}),  # all of it is of third order
    ],
    ids=["xor", "additive", "and", "choice", "third order"],
)
def test_what_trees_can_represent_is_decomposed_exactly(f, expected):
    forest = fitted(TWO, factorial(f), trees=4)
    got = shares(forest)
    assert got.keys() == {("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")}
    for names, share in got.items():
        np.testing.assert_allclose(share, expected.get(names, 0.0), atol=1e-9)
    assert forest.explained == pytest.approx(1.0)


def ishigami(u, a=7.0, b=0.1):
    x, y, z = 2 * np.pi * (u.T - 0.5)
    return np.sin(x) + a * np.sin(y) ** 2 + b * z**4 * np.sin(x)


# V: a^2/8, b pi^4/5 + b^2 pi^8/18 + 1/2; V_x: (1 + b pi^4/5)^2 / 2; V_xz: 8 b^2 pi^8 / 225
# (Ishigami & Homma 1990)
FOURTH = 0.1 * np.pi**4
TOTAL = 49 / 8 + FOURTH / 5 + FOURTH**2 / 18 + 1 / 2
ISHIGAMI = {
    ("x",): (1 + FOURTH / 5) ** 2 / 2 / TOTAL,
    ("y",): 49 / 8 / TOTAL,
    ("x", "z"): 8 * FOURTH**2 / 225 / TOTAL,
}


@pytest.mark.parametrize(
    "f, n, expected, tolerance",
    [
        # n trials tell apart about sqrt(n) values of each of two parameters; what varies within
        # those stretches, 1/n of the variance of a line, is lost. The rest is the luck of the
        # draw: a variance from n values is known to about sqrt(2/n), 10 %, and a share s by
        # less, about 0.1 s (1 - s).
        (lambda u: u[:, 0] + 2 * u[:, 1], 200, {("x",): 0.2, ("y",): 0.8}, 0.05),
        (lambda u: np.prod(u[:, :2] - 0.5, axis=1), 300, {("x", "y"): 1.0}, 0.05),
        (lambda u: np.sign(np.prod(u[:, :2] - 0.5, axis=1)), 300, {("x", "y"): 1.0}, 0.05),
        # three parameters and four bends: 500 trials are 8 to a parameter
        (ishigami, 500, ISHIGAMI, 0.1),
    ],
    ids=["additive", "product", "xor", "ishigami"],
)
def test_continuous_functions_have_the_shares_of_their_closed_forms(f, n, expected, tolerance):
    got = shares(fitted(UNIT, drawn(UNIT, n, f)))
    for names, share in got.items():
        assert abs(share - expected.get(names, 0.0)) < tolerance, (names, share)


def test_the_marginal_of_a_sum_is_its_part_on_a_logarithmic_axis():
    space = (MIXED[0], UNIT[0])
    forest = fitted(space, drawn(space, 300, lambda u: u[:, 0] + u[:, 1]))
    curve = importance.curve(forest, "rate", most=21)
    at = np.log10(curve.values) / 3 + 4 / 3
    # a step is about 1/sqrt(300) wide, and half of that is how far a curve of steps may be off
    np.testing.assert_allclose([e.value for e in curve.response], at + 0.5, atol=0.06)


def test_intervals_are_as_wide_as_shares_differ_between_sweeps():
    """Eight sweeps of 60 trials of a noisy sum: the half width is about two standard errors."""
    noise = np.random.default_rng(0).normal(size=(8, 60))
    sweeps = [
        drawn(UNIT, 60, lambda u, e=e: u[:, 0] + u[:, 1] + 0.2 * e, seed)
        for seed, e in enumerate(noise)
    ]
    found = [importance.effects(fitted(UNIT, sweep, resamples=8)) for sweep in sweeps]
    x = [{e.parameters: e.share for e in effects}[("x",)] for effects in found]
    error = np.sqrt(np.mean([(share.value - 0.5) ** 2 for share in x]))
    half = np.mean([(share.high - share.low) / 2 for share in x])
    # the error of eight sweeps is itself known to a quarter, t of eight resamples is 2.3
    assert 1.4 < half / error < 4
    assert sum(share.low < 0.5 < share.high for share in x) >= 6  # 95 % of eight, but for luck


# The doorway. -------------------------------------------------------------------------------------


def test_a_seed_gives_one_answer_and_effects_come_in_order():
    records = drawn(MIXED, 50, lambda u: u[:, 0] + u[:, 1] ** 2)
    one, same, other = (
        importance.effects(fitted(MIXED, records, trees=4, seed=seed)) for seed in (0, 0, 1)
    )
    assert one == same != other
    assert [len(e.parameters) for e in one] == [1] * 4 + [2] * 6
    for order in (1, 2):
        values = [e.share.value for e in one if len(e.parameters) == order]
        assert values == sorted(values, reverse=True)
    assert all(0 <= e.share.low <= e.share.value <= e.share.high <= 1 for e in one)


def test_unit_and_level_of_the_response_do_not_matter():
    records = drawn(UNIT, 50, lambda u: u[:, 0] * u[:, 1])
    other = [record | {"loss": 1024 * record["loss"]} for record in records]
    one, other = (fitted(UNIT, some, trees=4) for some in (records, other))
    np.testing.assert_allclose(list(shares(one).values()), list(shares(other).values()), rtol=1e-9)
    lifted = [tree._replace(values=tree.values + 1e7) for tree in one.trees]
    lifted = shares(one._replace(trees=lifted))
    np.testing.assert_allclose(list(shares(one).values()), list(lifted.values()), atol=1e-7)


def test_diverged_trials_count():
    """All above 0.7 along x diverge: x matters only through them."""
    records = drawn(UNIT, 80, lambda u: np.where(u[:, 0] > 0.7, np.nan, u[:, 1]))
    finite = [record for record in records if np.isfinite(record["loss"])]
    assert shares(fitted(UNIT, finite))[("x",)] < 0.1
    assert shares(fitted(UNIT, records))[("x",)] > 0.3


def test_what_cannot_be_decomposed_is_refused():
    flat = drawn(UNIT, 10, lambda u: np.ones(len(u)))
    with pytest.raises(ValueError, match="loss is 1 in all 10 trials"):
        fitted(UNIT, flat)
    varied = drawn(UNIT, 10, lambda u: u[:, 0])
    with pytest.raises(ValueError, match="trees 1, resamples 2: need two"):
        fitted(UNIT, varied, trees=1)
    forest = fitted(UNIT, varied, trees=2)
    with pytest.raises(ValueError, match=r"'w' is no parameter of the space, which has \['x', "):
        importance.curve(forest, "w")
    with pytest.raises(ValueError, match="'x' twice"):
        importance.surface(forest, "x", "x")


def test_noise_explains_nothing():
    rng = np.random.default_rng(0)
    forest = fitted(UNIT, drawn(UNIT, 80, lambda u: rng.normal(size=len(u))))
    assert forest.explained < 0.1
