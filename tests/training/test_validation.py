"""Validation while learning: the best parameters, patience, plateaus; optimisers and averages."""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax
import pytest

import lstm_jax as lj
from lstm_jax.training import loop
from tests.training.own_data import MODEL, QUIET, TASK, sequences

pytestmark = pytest.mark.usefixtures("standard_promotion")

SETTINGS = loop.Settings(16, "adam", "map")


def unpredictable():
    """Rows whose labels have nothing to do with them: what is learnt of them validates badly."""
    split = sequences(4)
    y = np.random.default_rng(0).choice(["up", "down"], len(split.data))
    return lj.tasks.Classification(
        lj.data.Split.of(dataclasses.replace(split.data, y=y), split.rows)
    )


def test_the_best_parameters_are_those_of_the_least_validation_loss():
    """Of trainings of 1 to 6 epochs, each validated by `evaluate`."""
    settings: dict[str, Any] = dict(seeds=2, learning_rate=0.1, **QUIET)
    task = unpredictable()
    whole = lj.fit(task, MODEL, epochs=6, **settings)
    losses, params = [], []
    for epochs in range(1, 7):
        part = lj.fit(task, MODEL, epochs=epochs, validate_every=10**6, **settings)
        params.append(jax.tree.map(np.asarray, part.state.params))
        trials = part.trials
        losses.append(lj.evaluate(task, MODEL, part.state.params, trials, split="validation").loss)
    best = np.argmin(losses, axis=0)
    assert (best < 5).any()
    np.testing.assert_allclose(whole.validation_loss, np.min(losses, axis=0), rtol=1e-5)
    per = loop.Job(task, MODEL, whole.trials, SETTINGS).settings.batch_size
    np.testing.assert_array_equal(whole.best_step, (best + 1) * -(-36 // per))
    for i, epoch in enumerate(best):
        jax.tree.map(
            lambda leaf, kept, i=i: np.testing.assert_allclose(leaf[i], kept[i], rtol=1e-5),
            params[epoch], whole.params,
        )  # fmt: skip


def test_patience_stops_a_trial_and_a_plateau_slows_it():
    """With a learning rate too small to change anything no validation is better than the first."""
    settings: dict[str, Any] = dict(epochs=30, seeds=1, learning_rate=1e-30, **QUIET)
    per = 3
    stopped = lj.fit(TASK, MODEL, patience=4, **settings)
    assert stopped.status.tolist() == ["stopped"] and stopped.step.tolist() == [5 * per]
    assert stopped.best_step.tolist() == [per]
    slowed = lj.fit(TASK, MODEL, plateau=3, factor=0.1, **settings)
    assert slowed.status.tolist() == ["finished"]
    best: Any = slowed.state.best
    np.testing.assert_allclose(best.rate, 0.1**9, rtol=1e-5)


def test_a_reduced_learning_rate_makes_smaller_updates():
    """Reduced to next to nothing, it leaves the parameters where they are."""
    settings: dict[str, Any] = dict(
        seeds=1, learning_rate=0.1, plateau=1, factor=1e-12, patience=50, **QUIET
    )
    task = unpredictable()
    before, after = (lj.fit(task, MODEL, epochs=n, **settings) for n in (8, 10))
    best: Any = before.state.best
    assert best.rate < 1e-10 and before.step < after.step
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        before.state.params, after.state.params,
    )  # fmt: skip


def test_an_optimiser_is_any_function_of_a_trial():
    def lion(trial):
        return optax.lion(trial.learning_rate, b1=trial.b1)

    settings: dict[str, Any] = dict(epochs=3, seeds=1, learning_rate=[1e-3, 1e-2], **QUIET)
    named, own, same = (
        lj.fit(TASK, MODEL, optimizer=o, **settings)
        for o in ("sgd", lion, lambda trial: optax.sgd(trial.learning_rate))
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        named.params, same.params,
    )  # fmt: skip
    assert not np.allclose(own.loss, named.loss)
    with pytest.raises(TypeError, match="optimizer must be a name or a function of a trial"):
        lj.fit(TASK, MODEL, optimizer=optax.sgd(0.1), **settings)  # pyright: ignore


def test_averaged_parameters_are_the_mean_of_the_last():
    """With a decay of nearly 1 it is the mean of all parameters so far."""
    settings: dict[str, Any] = dict(seeds=1, learning_rate=0.1, validate_every=10**6, **QUIET)
    steps = [lj.fit(TASK, MODEL, steps=n, **settings).state.params for n in (1, 2, 3)]
    averaged = lj.fit(TASK, MODEL, steps=3, average=1 - 1e-7, **settings)
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *steps)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        averaged.state.average, mean,
    )  # fmt: skip
