"""Heads: losses are those of scipy's densities, least at the truth, finite at extremes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.tasks import heads
from tests.compiling import AS_USERS_HAVE_IT

stats = pytest.importorskip("scipy.stats")

EVERY = [
    heads.CrossEntropy(4),
    heads.Bernoulli(),
    heads.Squared(),
    heads.Absolute(),
    heads.Huber(0.5),
    heads.Quantiles((0.1, 0.5, 0.9)),
    heads.Gaussian(),
    heads.StudentT(),
    heads.NegativeBinomial(),
]
DENSITIES = EVERY[-3:]
POINTS = EVERY[2:5]
every_head = pytest.mark.parametrize("head", EVERY, ids=lambda head: type(head).__name__)
every_density = pytest.mark.parametrize("head", DENSITIES, ids=lambda head: type(head).__name__)


def softplus(raw):
    return np.logaddexp(0, raw) + heads.LEAST_SCALE


def distribution(head, outputs):
    """Returns scipy's distribution of each row of outputs."""
    a, b, c = np.moveaxis(np.pad(outputs, [(0, 0), (0, 3 - outputs.shape[-1])]), -1, 0)
    if isinstance(head, heads.Gaussian):
        return stats.norm(a, softplus(b))
    if isinstance(head, heads.StudentT):
        return stats.t(2 + softplus(c), a, softplus(b))
    r, mean = 1 / softplus(b), softplus(a)
    return stats.nbinom(r, r / (r + mean))


def targets_of(head, n, seed=0):
    rng = np.random.default_rng(seed)
    if isinstance(head, heads.NegativeBinomial):
        return rng.poisson(3, n).astype(float)
    if isinstance(head, heads.CrossEntropy):
        return rng.integers(0, head.classes, n)
    return rng.integers(0, 2, n) if isinstance(head, heads.Bernoulli) else rng.normal(size=n)


@every_density
def test_the_loss_is_the_negative_log_density(head, x64):
    outputs = 3 * np.random.default_rng(1).normal(size=(50, head.size))
    y = targets_of(head, 50)
    scipy = distribution(head, outputs)
    log_p = scipy.logpmf(y) if isinstance(head, heads.NegativeBinomial) else scipy.logpdf(y)
    losses_of = jax.jit(head.losses)
    slope = jax.jit(jax.value_and_grad(lambda o: jnp.sum(head.losses(o, y))))
    loss, gradient = slope(jnp.asarray(outputs))
    losses = losses_of(outputs, y)
    np.testing.assert_allclose(losses, -log_p, rtol=1e-9, atol=2e-6)  # JAX's betaln is that exact
    ahead, behind = (
        [float(np.sum(losses_of(outputs + e * unit, y))) for unit in units(outputs)]
        for e in (1e-6, -1e-6)
    )
    assert np.isfinite(loss)
    slopes = (np.array(ahead) - behind) / 2e-6
    np.testing.assert_allclose(gradient.sum(0), slopes, rtol=1e-5, atol=1e-6)


def units(outputs):
    return np.eye(outputs.shape[-1])[:, None]


@every_density
def test_samples_have_the_moments_and_quantiles_of_the_density(head):
    outputs = np.tile(np.array([1.5, 0.5, 2.0], np.float32)[: head.size], (20_000, 1))
    drawn = np.asarray(head.sample(jax.random.key(0), jnp.asarray(outputs)))
    exact = distribution(head, outputs[:1].astype(float))
    assert drawn.mean() == pytest.approx(exact.mean()[0], abs=5 * exact.std()[0] / 141)
    levels = [0.025, 0.3, 0.5, 0.9, 0.999]
    ours = head.quantile(jnp.asarray(outputs[:2]), levels)
    np.testing.assert_allclose(ours[0], exact.ppf(np.array(levels)), rtol=1e-4, atol=1e-4)
    share = np.mean(drawn[:, None] < np.asarray(ours[:1]), axis=0)
    below = exact.cdf(np.asarray(ours[0]) - 1e-3)  # of counts, strictly below
    np.testing.assert_allclose(share, below, atol=0.015)
    assert head.predict(jnp.asarray(outputs))[0] == pytest.approx(exact.mean()[0], rel=1e-4)


@every_head
def test_values_and_gradients_are_finite_at_extremes(head):
    y = targets_of(head, 1)
    y = y.astype(np.int32) if isinstance(head, heads.CrossEntropy) else y.astype(np.float32)
    slope = jax.jit(jax.value_and_grad(lambda o: jnp.sum(head.losses(o, y))))
    for scale in (0.0, 1.0, 30.0, 200.0, 1e4):
        for signs in np.ndindex(*[2] * head.size):
            outputs = scale * (2 * np.asarray([signs], np.float32) - 1)
            loss, gradient = slope(outputs)
            assert np.isfinite(loss) and np.isfinite(gradient).all(), (outputs, loss, gradient)


@every_head
def test_compiled_gradients_are_those_of_float64(head, x64):
    """XLA computes twice what it fuses, with other rounding: no gradient may hang on equality."""
    rng, y = np.random.default_rng(0), targets_of(head, 256 * 8).reshape(256, 8)
    h, w, unit = (rng.normal(size=s) for s in ((256, 8), (8, head.width(8)), (256, 1, 1)))

    def loss(w, h, unit, y):
        outputs = unit * head.split(h @ w)
        if y.dtype == w.dtype and not isinstance(head, heads.NegativeBinomial):
            y = y * jnp.squeeze(unit, 2)  # with the outputs, a fused multiply-add
        return jnp.mean(head.losses(outputs, y))

    def gradient(dtype):
        y_ = jnp.asarray(y, dtype if y.dtype == float else None)
        args = *(jnp.asarray(part, dtype) for part in (w, h, unit)), y_
        compiled = jax.jit(jax.value_and_grad(loss), compiler_options=AS_USERS_HAVE_IT)
        return compiled(*args)[1]

    np.testing.assert_allclose(gradient("float32"), gradient("float64"), rtol=1e-3, atol=1e-4)


@every_head
def test_losses_are_in_float32_at_least_and_one_for_each_target(head):
    y = targets_of(head, 6).reshape(2, 3)

    def answers(wide):
        outputs = head.split(wide)
        return outputs, head.losses(outputs, jnp.asarray(y)), head.predict(outputs)

    wide = jax.ShapeDtypeStruct((2, head.width(3)), jnp.bfloat16)
    outputs, losses, predicted = jax.eval_shape(answers, wide)
    assert outputs.shape == (2, 3, head.size)
    assert losses.shape == predicted.shape == (2, 3)
    assert losses.dtype == jnp.float32


@pytest.mark.parametrize(
    ("head", "statistic"),
    [
        (heads.Squared(), np.mean),
        (heads.Absolute(), np.median),
        (heads.Huber(1e3), np.mean),
        (heads.Huber(1e-3), np.median),
    ],
)
def test_a_point_loss_is_least_at_its_statistic(head, statistic):
    y = np.random.default_rng(0).gamma(1.0, size=501).astype(np.float32)
    candidates = np.linspace(0, 2, 401, dtype=np.float32)
    outputs = jnp.broadcast_to(candidates[:, None, None], (401, 501, 1))
    losses = head.losses(outputs, jnp.broadcast_to(y, (401, 501))).mean(1)
    best = candidates[int(np.argmin(losses))]
    assert best == pytest.approx(statistic(y), abs=0.011)


def test_the_loss_of_quantiles_is_least_at_the_quantiles():
    y = np.random.default_rng(0).normal(size=501).astype(np.float32)
    head = heads.Quantiles((0.2, 0.9))
    candidates = np.linspace(-2, 2, 41, dtype=np.float32)
    pairs = np.stack(np.meshgrid(candidates, candidates), -1).reshape(-1, 1, 2)
    losses_of = jax.jit(
        lambda pair: jnp.mean(head.losses(jnp.tile(pair, (len(y), 1)), jnp.asarray(y)))
    )
    losses = jax.lax.map(losses_of, jnp.asarray(pairs))
    best = np.sort(pairs[int(np.argmin(losses)), 0])
    np.testing.assert_allclose(best, np.quantile(y, (0.2, 0.9)), atol=0.1)


def test_the_loss_of_the_median_is_the_absolute_error():
    outputs, y = jnp.asarray([[1.0], [-2.0]]), jnp.asarray([3.0, 1.5])
    expected = heads.Absolute().losses(outputs, y)
    np.testing.assert_array_equal(heads.Quantiles((0.5,)).losses(outputs, y), expected)


def test_quantiles_never_cross_and_are_interpolated():
    head, outputs = heads.Quantiles((0.1, 0.5, 0.9)), jnp.asarray([[3.0, 1.0, 2.0]])
    assert head.predict(outputs).tolist() == [2.0]
    np.testing.assert_allclose(head.quantile(outputs, [0.1, 0.3, 0.9]), [[1, 1.5, 3]], rtol=1e-6)
    drawn = head.sample(jax.random.key(0), jnp.tile(outputs, (5000, 1)))
    assert np.mean(drawn == 1) == pytest.approx(0.1, abs=0.02)
    assert np.mean(drawn < 2) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("head", [heads.CrossEntropy(3), heads.Bernoulli()])
def test_classes_are_drawn_with_their_probabilities(head):
    outputs = jnp.asarray([[0.3, -0.5, 1.0][: head.size]])
    p = np.asarray(head.probabilities(outputs)[0])
    p = p if head.size > 1 else np.array([1 - p, p])
    drawn = np.asarray(head.sample(jax.random.key(1), jnp.tile(outputs, (20_000, 1))))
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, p, atol=0.015)
    assert head.predict(outputs)[0] == np.argmax(p)
    losses = [head.losses(outputs, jnp.asarray([label]))[0] for label in range(len(p))]
    np.testing.assert_allclose(losses, -np.log(p), rtol=1e-5)


@every_head
def test_a_description_makes_the_head_again(head):
    description = head.describe()
    assert heads.make(**json.loads(json.dumps(description))) == head


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: heads.CrossEntropy(1), r"classes must be an integer of at least 2, got 1"),
        (lambda: heads.Huber(0), r"delta must be a number above 0, got 0"),
        (lambda: heads.Quantiles((0.5, 0.1)), r"levels must ascend between 0 and 1, got \(0.5"),
        (lambda: heads.Quantiles(()), r"levels must ascend"),
        (lambda: heads.make("Cauchy"), r"head must be one of CrossEntropy, .* got 'Cauchy'"),
        (lambda: heads.Gaussian().quantile(jnp.ones((1, 2)), [1.0]), r"levels must be a list of"),
        (lambda: heads.Quantiles().quantile(jnp.ones((1, 3)), []), r"levels must be a list of"),
        (lambda: heads.StudentT().quantile(jnp.ones((1, 3)), 0.5), r"such as .*, got 0.5"),  # pyright: ignore
        (lambda: heads.Quantiles().quantile(jnp.ones((1, 3)), [0.95]), r"levels must lie in \[0.1"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("head", POINTS)
def test_a_point_has_no_distribution(head):
    with pytest.raises(TypeError, match="predicts a point"):
        head.sample(jax.random.key(0), jnp.ones((1, 1)))
    with pytest.raises(TypeError, match="predicts no quantiles: use Quantiles"):
        head.quantile(jnp.ones((1, 1)), [0.5])
