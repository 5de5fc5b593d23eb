"""Heads: the loss of a model's outputs, and the predictions that they encode."""

import abc
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jax.scipy import special

from lstm_jax.checks import check_is
from lstm_jax.tasks.base import check_alike, check_choice, check_size, cross_entropies
from lstm_jax.tasks.levels import as_column, bisect, checked
from lstm_jax.types import Array, wide

LEAST_SCALE = 1e-4  # of a normalised target; keeps the gradients of a sure model finite


class Head(abc.ABC):
    """The loss of a model's outputs, and the predictions that they encode.

    A head is a frozen dataclass. It reads `size` outputs for each target: outputs [..., size],
    targets [...]. `split` gives the outputs for several targets this shape.

    Attributes:
      size: number of outputs for one target.
      answers: the kind of its targets: a "class", "flags" of 0 and 1, "numbers" or "counts".
      levels: the quantiles that a forecast has by default; () for a head that predicts none.
    """

    size: int = 1
    answers: ClassVar[Literal["class", "flags", "numbers", "counts"]] = "numbers"
    levels: tuple[float, ...] = ()

    def width(self, targets: int) -> int:
        """Returns the number of outputs for `targets` targets."""
        return targets * self.size

    def split(self, outputs: Array) -> Array:
        """Returns outputs [..., width(n)] as [..., n, size]."""
        return outputs.reshape(*outputs.shape[:-1], -1, self.size)

    @abc.abstractmethod
    def losses(self, outputs: Array, targets: Array) -> Array:
        """Returns the loss of each target, [...], in float32 at least."""

    @abc.abstractmethod
    def predict(self, outputs: Array) -> Array:
        """Returns the point prediction, [...]."""

    def sample(self, key: Array, outputs: Array) -> Array:
        """Samples a target from each predicted distribution, [...].

        Raises:
          TypeError: the head predicts no distribution.
        """
        raise TypeError(f"{type(self).__name__} predicts a point: sample a head with a density")

    def quantile(self, outputs: Array, levels: Sequence[float]) -> Array:
        """Returns the quantiles of each predicted distribution, [..., levels].

        Raises:
          TypeError: the head predicts no quantiles.
          ValueError: a level is not between 0 and 1, or the head does not predict it.
        """
        del outputs, levels
        raise TypeError(
            f"{type(self).__name__} predicts no quantiles: use Quantiles, Gaussian, StudentT or "
            "NegativeBinomial"
        )

    def describe(self) -> dict[str, Any]:
        """Returns the head as JSON values, the arguments of `make`."""
        return {"name": type(self).__name__, **dataclasses.asdict(self)}  # pyright: ignore


@dataclasses.dataclass(frozen=True)
class CrossEntropy(Head):
    """-log softmax(outputs)[label]: one of several classes; labels are integers.

    Attributes:
      classes: number of classes, at least 2.
    """

    classes: int
    answers: ClassVar = "class"

    def __post_init__(self):
        check_size("classes", self.classes, 2)

    @property
    def size(self) -> int:  # pyright: ignore
        """One logit a class."""
        return self.classes

    def losses(self, outputs: Array, targets: Array) -> Array:
        """The cross entropy in nats."""
        return cross_entropies(outputs, targets)

    def predict(self, outputs: Array) -> Array:
        """The most probable class, int32."""
        return jnp.argmax(outputs, axis=-1).astype(jnp.int32)

    def probabilities(self, outputs: Array) -> Array:
        """Returns the probability of every class, [..., classes]."""
        return jax.nn.softmax(_wide(outputs))

    def mixed(self, outputs: Array) -> Array:
        """Returns outputs [...] for the mean probability of M models, from theirs [M, ...]."""
        log_p = jax.nn.log_softmax(_wide(outputs))
        return jax.nn.logsumexp(log_p, axis=0) - math.log(len(outputs))

    def sample(self, key: Array, outputs: Array) -> Array:
        """Samples a class, int32."""
        return jax.random.categorical(key, _wide(outputs)).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Bernoulli(Head):
    """-y log p - (1 - y) log(1 - p), p = sigmoid(output): a target of 0 or 1, or a share."""

    answers: ClassVar = "flags"

    def losses(self, outputs: Array, targets: Array) -> Array:
        """The cross entropy in nats."""
        outputs = _wide(outputs)[..., 0]
        check_alike("targets", targets, outputs)
        return optax.sigmoid_binary_cross_entropy(outputs, targets.astype(outputs.dtype))

    def predict(self, outputs: Array) -> Array:
        """The more probable of 0 and 1, int32."""
        return (outputs[..., 0] > 0).astype(jnp.int32)

    def probabilities(self, outputs: Array) -> Array:
        """Returns the probability of 1, [...]."""
        return jax.nn.sigmoid(_wide(outputs)[..., 0])

    def mixed(self, outputs: Array) -> Array:
        """Returns outputs [...] for the mean probability of M models, from theirs [M, ...]."""
        outputs = _wide(outputs)
        ones, zeros = (jax.nn.logsumexp(jax.nn.log_sigmoid(z), axis=0) for z in (outputs, -outputs))
        return ones - zeros

    def sample(self, key: Array, outputs: Array) -> Array:
        """Samples 0 or 1, int32."""
        return jax.random.bernoulli(key, self.probabilities(outputs)).astype(jnp.int32)


class _Point(Head):
    """A head with one output, the prediction."""

    def losses(self, outputs: Array, targets: Array) -> Array:
        """The loss of the error."""
        outputs = _wide(outputs)[..., 0]
        return self.loss(outputs - targets.astype(outputs.dtype))

    @abc.abstractmethod
    def loss(self, error: Array) -> Array:
        """Returns the loss of prediction - target, of the same shape."""

    def predict(self, outputs: Array) -> Array:
        """The output."""
        return _wide(outputs)[..., 0]


@dataclasses.dataclass(frozen=True)
class Squared(_Point):
    """(output - y)^2: predicts the mean."""

    def loss(self, error: Array) -> Array:
        """Its square."""
        return error**2


@dataclasses.dataclass(frozen=True)
class Absolute(_Point):
    """|output - y|: predicts the median."""

    def loss(self, error: Array) -> Array:
        """Its magnitude."""
        return jnp.abs(error)


@dataclasses.dataclass(frozen=True)
class Huber(_Point):
    """e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2), for e = output - y.

    Attributes:
      delta: the error at which the loss becomes linear, above 0.
    """

    delta: float = 1.0

    def __post_init__(self):
        if not 0 < self.delta < math.inf:
            raise ValueError(f"delta must be a number above 0, got {self.delta!r}")

    def loss(self, error: Array) -> Array:
        """A parabola, linear outside."""
        # The gradient of a minimum or maximum goes to the operand that equals the result. XLA may
        # compute an operand twice, with and without a fused multiply-add: then neither is equal and
        # the gradient is 0. A selection by sign is safe.
        away = jnp.abs(error)
        return jnp.where(away < self.delta, error**2 / 2, self.delta * (away - self.delta / 2))


@dataclasses.dataclass(frozen=True)
class Quantiles(Head):
    """sum_q 2 max(q e, (q - 1) e) / Q, e = y - y_q: predicts the quantiles of the levels q.

    The factor 2 makes the loss of the median the absolute error. Quantiles never cross, since y_q
    are the sorted outputs; sorting never increases the loss.

    Attributes:
      levels: ascending, between 0 and 1; the level nearest to 0.5 gives the point prediction.
    """

    levels: tuple[float, ...] = (0.1, 0.5, 0.9)

    def __post_init__(self):
        check_is("levels", self.levels, Iterable, "a tuple of levels, such as (0.1, 0.5, 0.9)")
        object.__setattr__(self, "levels", tuple(map(float, self.levels)))
        ends = (0.0, *self.levels, 1.0)
        if len(ends) < 3 or any(not a < b for a, b in itertools.pairwise(ends)):
            raise ValueError(f"levels must ascend between 0 and 1, got {self.levels}")

    @property
    def size(self) -> int:  # pyright: ignore
        """One output a level."""
        return len(self.levels)

    def losses(self, outputs: Array, targets: Array) -> Array:
        """Twice the pinball loss, averaged over levels."""
        quantiles = jnp.sort(_wide(outputs), axis=-1)
        error = targets.astype(quantiles.dtype)[..., None] - quantiles
        q = as_column(self.levels, error)
        # A maximum may lose gradients, see `Huber.loss`.
        return 2 * jnp.mean(jnp.where(error > 0, q, q - 1) * error, axis=-1)

    def predict(self, outputs: Array) -> Array:
        """The quantile whose level is nearest to 0.5."""
        middle = min(range(self.size), key=lambda n: abs(self.levels[n] - 0.5))
        return jnp.sort(_wide(outputs), axis=-1)[..., middle]

    def sample(self, key: Array, outputs: Array) -> Array:
        """Samples the interpolated distribution, which ends at the outermost levels."""
        u = jax.random.uniform(key, outputs.shape[:-1], wide(outputs.dtype))
        return self._interpolate(outputs, u[..., None])[..., 0]

    def quantile(self, outputs: Array, levels: Sequence[float]) -> Array:
        """Quantiles by linear interpolation, for levels between the first and the last."""
        low, high = self.levels[0], self.levels[-1]
        levels = checked(levels)
        if not all(low <= level <= high for level in levels):
            raise ValueError(f"levels must lie in [{low}, {high}], got {tuple(levels)}")
        u = jnp.asarray(levels, wide(outputs.dtype))
        return self._interpolate(outputs, jnp.broadcast_to(u, (*outputs.shape[:-1], u.size)))

    def _interpolate(self, outputs: Array, u: Array) -> Array:
        """Returns the quantiles of levels u [..., N], constant beyond the outermost levels."""
        levels = jnp.asarray(self.levels, u.dtype)
        interpolate = jnp.vectorize(
            lambda u, quantiles: jnp.interp(u, levels, quantiles), signature="(n),(q)->(n)"
        )
        return interpolate(u, jnp.sort(_wide(outputs), axis=-1))


class Density(Head):
    """A head whose loss is the negative log-likelihood of the target."""

    size = 2
    levels = (0.1, 0.5, 0.9)

    @abc.abstractmethod
    def parameters(self, outputs: Array) -> tuple[Array, ...]:
        """Returns the parameters of each distribution, each [...]."""


@dataclasses.dataclass(frozen=True)
class Gaussian(Density):
    """-log N(y; m, s^2), m = output 0, s = softplus(output 1) + 1e-4."""

    def parameters(self, outputs: Array) -> tuple[Array, Array]:
        """Mean m and standard deviation s."""
        mean, raw = jnp.moveaxis(_wide(outputs), -1, 0)
        return mean, _positive(raw)

    def losses(self, outputs: Array, targets: Array) -> Array:
        """z^2 / 2 + log s + log(2 pi) / 2, z = (y - m) / s."""
        mean, scale = self.parameters(outputs)
        z = (targets.astype(mean.dtype) - mean) / scale
        return z**2 / 2 + jnp.log(scale) + math.log(2 * math.pi) / 2

    def predict(self, outputs: Array) -> Array:
        """The mean."""
        return self.parameters(outputs)[0]

    def sample(self, key: Array, outputs: Array) -> Array:
        """Samples a real number."""
        mean, scale = self.parameters(outputs)
        return mean + scale * jax.random.normal(key, mean.shape, mean.dtype)

    def quantile(self, outputs: Array, levels: Sequence[float]) -> Array:
        """Quantiles m + s z_q."""
        mean, scale = (p[..., None] for p in self.parameters(outputs))
        return mean + scale * special.ndtri(as_column(levels, mean))


@dataclasses.dataclass(frozen=True)
class StudentT(Density):
    """-log t(y; v, m, s), with v = 2 + softplus(output 2) degrees of freedom.

    m = output 0 and s = softplus(output 1) + 1e-4 are location and scale.
    """

    size = 3

    def parameters(self, outputs: Array) -> tuple[Array, Array, Array]:
        """Location m, scale s, degrees of freedom v."""
        location, raw, tail = jnp.moveaxis(_wide(outputs), -1, 0)
        return location, _positive(raw), 2 + _positive(tail)

    def losses(self, outputs: Array, targets: Array) -> Array:
        """(v + 1) / 2 log(1 + z^2 / v) + log(s sqrt(v) B(v / 2, 1 / 2)), z = (y - m) / s."""
        location, scale, v = self.parameters(outputs)
        z = (targets.astype(scale.dtype) - location) / scale
        norm = special.betaln(v / 2, jnp.full_like(v, 0.5)) + jnp.log(v) / 2
        return (v + 1) / 2 * jnp.log1p(z**2 / v) + jnp.log(scale) + norm

    def predict(self, outputs: Array) -> Array:
        """The location: the mean and the median."""
        return self.parameters(outputs)[0]

    def sample(self, key: Array, outputs: Array) -> Array:
        """Samples a real number."""
        location, scale, v = self.parameters(outputs)
        return location + scale * jax.random.t(key, v, dtype=v.dtype)

    def quantile(self, outputs: Array, levels: Sequence[float]) -> Array:
        """Quantiles m + s t_q: I_u(1/2, v/2) = |2 q - 1| for u = t^2 / (v + t^2)."""
        location, scale, v = (p[..., None] for p in self.parameters(outputs))
        v, side = jnp.broadcast_arrays(v, 2 * as_column(levels, v) - 1)
        half = jnp.full_like(v, 0.5)
        u = bisect(lambda u: special.betainc(half, v / 2, u), jnp.abs(side), jnp.ones_like(v))
        return location + scale * jnp.sign(side) * jnp.sqrt(v * u / (1 - u))


@dataclasses.dataclass(frozen=True)
class NegativeBinomial(Density):
    """-log NB(y; m, a): counts of mean m and variance m + a m^2.

    m = softplus(output 0) + 1e-4 and a = softplus(output 1) + 1e-4. The classic parameters are
    r = 1 / a and p = r / (r + m).
    """

    answers: ClassVar = "counts"

    def parameters(self, outputs: Array) -> tuple[Array, Array]:
        """Mean m and r = 1 / a."""
        mean, raw = jnp.moveaxis(_wide(outputs), -1, 0)
        return _positive(mean), 1 / _positive(raw)

    def scaled(self, outputs: Array, unit: Array) -> Array:
        """Returns outputs of `unit` [...] times the mean of these, with the same a."""
        mean = unit * self.parameters(outputs)[0]
        inverse = mean + jnp.log(-jnp.expm1(-mean))  # of the softplus
        return jnp.stack([inverse, _wide(outputs)[..., 1]], axis=-1)

    def losses(self, outputs: Array, targets: Array) -> Array:
        """log((r + y) B(r, y + 1)) + r log(1 + m / r) + y log(1 + r / m)."""
        mean, r = self.parameters(outputs)
        y = targets.astype(mean.dtype)
        ways = special.betaln(r, y + 1) + jnp.log(r + y)
        return ways + r * jnp.log1p(mean / r) + y * jnp.log1p(r / mean)

    def predict(self, outputs: Array) -> Array:
        """The mean."""
        return self.parameters(outputs)[0]

    def sample(self, key: Array, outputs: Array) -> Array:
        """Samples a Poisson distribution with a gamma-distributed rate."""
        mean, r = self.parameters(outputs)
        gamma, poisson = jax.random.split(key)
        rate = jax.random.gamma(gamma, r, dtype=r.dtype) * mean / r
        return jax.random.poisson(poisson, rate).astype(mean.dtype)

    def quantile(self, outputs: Array, levels: Sequence[float]) -> Array:
        """Quantiles: the least count k with I_p(r, k + 1) >= q."""
        mean, r = (p[..., None] for p in self.parameters(outputs))
        mean, r, q = jnp.broadcast_arrays(mean, r, as_column(levels, mean))
        spread = jnp.sqrt((mean + mean**2 / r) / (1 - q))  # by Cantelli the quantile is below it

        def cdf(k: Array) -> Array:
            return special.betainc(r, jnp.floor(k) + 1, r / (r + mean))

        return jnp.floor(bisect(cdf, q, mean + spread + 1))


KINDS: tuple[type[Head], ...] = (
    CrossEntropy,
    Bernoulli,
    Squared,
    Absolute,
    Huber,
    Quantiles,
    Gaussian,
    StudentT,
    NegativeBinomial,
)
HEADS: dict[str, Callable[..., Head]] = {kind.__name__: kind for kind in KINDS}


def make(name: str, **sizes: Any) -> Head:
    """Returns the head called `name` in `HEADS`, from the result of `Head.describe`.

    Raises:
      ValueError: the name is unknown, or a size is out of range.
    """
    check_choice("head", name, HEADS)
    return HEADS[name](**sizes)


def _wide(outputs: Array) -> Array:
    return outputs.astype(wide(outputs.dtype))


def _positive(raw: Array) -> Array:
    return jax.nn.softplus(raw) + LEAST_SCALE
