"""Captured arrays: learning is never done on data that a task held when it was compiled."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import evaluate, fit, make_trials
from lstm_jax.tasks import SPLITS
from lstm_jax.training import captures, loop
from lstm_jax.types import Batch
from tests.toys import Line, Slope

pytestmark = pytest.mark.usefixtures("standard_promotion")

DATA: Any = None
CELLAR: dict[str, Any] = {}


class Held(Line):
    """Targets that are the same number always, wherever it is from."""

    def number(self):
        raise NotImplementedError

    def sample(self, key, batch_size, split="train"):
        x, _, *rest = super().sample(key, batch_size, split)
        y = jax.lax.cond(x.sum() > 0, self.number, lambda: jnp.asarray(self.number()))
        return Batch(x, jnp.broadcast_to(y, (batch_size, 1)), *rest)


class Global(Held):
    def number(self):
        return jnp.asarray(DATA)


class Attribute(Held):
    data: Any = None

    def number(self):
        return jnp.asarray(type(self).data)


@functools.cache
def load():
    return CELLAR["disk"]


class Cached(Held):
    def number(self):
        return jnp.asarray(load())


def closed():
    box = [None]

    class Closure(Held):
        def number(self):
            return jnp.asarray(box[0])

    return Closure(), functools.partial(box.__setitem__, 0)


def put_global(value):
    global DATA
    DATA = value


def put_attribute(value):
    Attribute.data = value


def put_cached(value):
    CELLAR["disk"] = value
    load.cache_clear()


def padded(number: float) -> np.ndarray:
    return np.full(999, number, np.float32)[:1]


@pytest.mark.parametrize(
    ("task", "put", "make"),
    [
        (Global(), put_global, np.float32),
        (Global(), put_global, jnp.float32),
        (Global(), put_global, padded),
        (Attribute(), put_attribute, np.float32),
        (Cached(), put_cached, np.float32),
        (*closed(), np.float32),
    ],
)
def test_new_data_are_learnt_from_and_asked(task, put, make) -> None:
    trials = make_trials(learning_rate=0.1)

    def both():
        result = fit(task, Slope(), trials, 2, optimizer="sgd", progress=False)
        asked = evaluate(task, Slope(), result.params, trials, sequences=4)
        return result.loss[0], asked.loss[0]

    put(make(1))
    first = both()
    compiled = loop._program.cache_info().misses
    assert both() == first and loop._program.cache_info().misses == compiled
    put(make(50))
    second = both()
    assert min(second) > 100 * max(first)


def test_the_model_s_initial_parameters_are_not_stale() -> None:
    @dataclasses.dataclass(frozen=True)
    class Pretrained(Slope):
        def init(self, key, *, scale, gate_bias):
            return {"w": jnp.asarray(CELLAR["w"]), "b": jnp.zeros((1,))}

    found = []
    for w in (1.0, 2.0):
        CELLAR["w"] = np.full((1, 1), w, np.float32)
        trials = make_trials(learning_rate=1e-30)
        found.append(fit(Line(), Pretrained(), trials, 1, progress=False).params["w"].item())
    assert found == [1.0, 2.0]


def test_a_finite_split_that_changed_is_asked_as_it_is() -> None:
    """Its sequences are arguments; what its measure captures is not."""

    class Weighed(Line):
        def split_size(self, split):
            return 3 if split in SPLITS else None

        def examples(self, split):
            return self.sample(jax.random.key(0), 3, split)

        def loss(self, outputs, batch):
            return super().loss(outputs, batch) * jnp.asarray(DATA)

    params, losses = {"w": np.ones((1, 1, 1), "f4"), "b": np.zeros((1, 1), "f4")}, []
    for weight in (1.0, 2.0):
        put_global(np.float32(weight))
        losses.append(evaluate(Weighed(), Slope(), params, make_trials()).loss[0])
    np.testing.assert_allclose(losses[1], 2 * losses[0])


def test_fingerprints_know_functions_from_one_another_and_not_their_addresses() -> None:
    """Jaxprs show no addresses: one of a function made anew would be a new compilation."""

    def maker(scale):
        class Host:
            def __call__(self, x):
                return x

        shape = jax.ShapeDtypeStruct((), jnp.float32)
        squared = jax.custom_vjp(lambda x: scale * x**2)
        squared.defvjp(lambda x: (squared(x), x), lambda x, dy: (2 * scale * x * dy,))
        return lambda x: jax.pure_callback(Host(), shape, squared(x))

    x = jnp.float32(1)
    one, again, other = (captures.fingerprint(maker(scale), x) for scale in (2.0, 2.0, 3.0))
    assert one == again != other


def test_fingerprints_reach_arrays_within_operations() -> None:
    def maker(number):
        array = jnp.full(3, number)
        return jax.jit(lambda x: x + array)

    x = jnp.zeros(3)
    one, again, other = (captures.fingerprint(maker(number), x) for number in (2.0, 2.0, 3.0))
    assert one == again != other


def test_draws_that_no_key_decides_are_warned_of():
    with pytest.warns(UserWarning, match="draws from numpy.random or random, .* jax.random"):
        captures.fingerprint(lambda: jnp.asarray(np.random.rand(3)))  # noqa: NPY002
