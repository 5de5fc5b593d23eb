"""Optimisers against their recursions written out in float64 NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lstm_jax.training import optimizers
from lstm_jax.training.trials import make_trials

pytestmark = pytest.mark.usefixtures("standard_promotion")

LEARNING_RATE, B1, B2 = 0.03, 0.8, 0.95


def directions(name, gradients):
    """The recursions of the docstring."""
    m = v = 0.0
    for n, g in enumerate(gradients, start=1):
        m_adam, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g**2
        if name == "momentum":
            m = B1 * m + g
            yield m
        elif name == "nesterov":
            m = B1 * m + g
            yield (1 - B1) * (B1 * m + g)
        elif name == "rmsprop":
            yield g / np.sqrt(v + 1e-8)
        elif name in ("adam", "adamw"):
            m = m_adam
            yield (m / (1 - B1**n)) / (np.sqrt(v / (1 - B2**n)) + 1e-8)
        else:
            yield g


@pytest.mark.parametrize("name", optimizers.DIRECTIONS)
@pytest.mark.parametrize(
    ("clip", "decay", "falls"),
    [(np.inf, 0.0, None), (1.5, 0.2, None), (1.5, 0.2, 4), (1, 0, np.inf)],
)
def test_updates_follow_the_recursion_with_clipping_and_decoupled_decay(name, clip, decay, falls):
    gradients = np.random.default_rng(0).normal(size=(6, 5))
    rates = LEARNING_RATE * np.ones(6)
    if falls == 4:  # the fifth update and those after it do nothing
        rates = LEARNING_RATE * np.array(
            [1, (1 + np.sqrt(0.5)) / 2, 0.5, (1 - np.sqrt(0.5)) / 2, 0, 0]
        )
    wanted = np.linspace(-1, 1, 5)
    # A row of weights, which decays, a bias and a rate, which do not.
    decays = decay * np.array([1, 1, 1, 0, 0])
    clipped = [g * min(1, clip / np.linalg.norm(g)) for g in gradients]
    for rate, direction in zip(rates, directions(name, clipped), strict=True):
        wanted = wanted - rate * (direction + decays * wanted)

    def tree(flat):
        return {"w": flat[None, :3], "b": flat[3:4], "rate": flat[4]}

    @jax.jit
    def run(trial, gradients):
        optimizer = optimizers.make(name, trial)
        params: Any = tree(jnp.linspace(-1, 1, 5))
        state = optimizer.init(params)
        for g in gradients:
            updates, state = optimizer.update(tree(g), state, params)
            params = optax.apply_updates(params, updates)
        return jnp.concatenate([params["w"][0], params["b"], params["rate"][None]])

    settings: dict[str, Any] = {"b1": B1, "b2": B2, "clip": clip, "weight_decay": decay}
    trials = make_trials(learning_rate=LEARNING_RATE, decay=falls, **settings)
    trial = jax.tree.map(lambda leaf: leaf[0], trials)
    np.testing.assert_allclose(run(trial, gradients.astype(np.float32)), wanted, rtol=2e-5)


def test_an_unknown_optimizer_is_refused_with_the_names_there_are():
    with pytest.raises(
        ValueError, match="one of sgd, momentum, nesterov, rmsprop, adam, adamw, got 'sdg'"
    ):
        optimizers.check("sdg")


def test_an_optimizer_of_optax_that_is_no_function_of_a_trial_is_refused():
    with pytest.raises(TypeError, match=r"lambda trial: optax\.adam\(trial\.learning_rate\)"):
        optimizers.check(optax.adam)  # pyright: ignore[reportArgumentType]
