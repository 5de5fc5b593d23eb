"""Windows within a sequence, and what a task remembers from one update to the next."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from experiments.hochreiter1997.tasks import TwoStrings
from lstm_jax import fit, make_trials
from lstm_jax.training.trials import initial, keys
from lstm_jax.types import Batch
from tests.toys import Line
from tests.training.learners import NETWORK, SLOPE, TASK, pick

pytestmark = pytest.mark.usefixtures("standard_promotion")


@dataclasses.dataclass(frozen=True)
class Remembering(Line):
    """`Line` until the last 7 errors are below 0.2, three of them excepted."""

    def memory(self):
        return jnp.full(7, jnp.inf)

    def observe(self, memory, outputs, batch):
        return jnp.concatenate([memory, jnp.abs(outputs - batch.y)[:, 0]])[-7:]

    def solved(self, stats):
        return (jnp.sum(stats.memory >= 0.2) <= 3) & (jnp.mean(stats.memory) < 1)


@pytest.mark.parametrize("batch_size", [1, 3, 9])
def test_a_task_remembers_its_last_answers_each_before_its_update(batch_size, monkeypatch):
    """Also: a trial stops at the first step that `solved` accepts."""
    monkeypatch.setattr("lstm_jax.training.step.WINDOW", 1)
    task, trials = Remembering(), make_trials(seed=[5, 6], learning_rate=0.02)
    settings: Any = dict(batch_size=batch_size, optimizer="sgd", progress=False)
    result = fit(task, SLOPE, trials, 500, **settings)
    for i in range(2):
        trial = pick(trials, i)
        params, answers, step = SLOPE.init(keys(trial).init, **initial(trial)), [np.inf] * 7, 0
        w, b = float(params["w"][0, 0]), float(params["b"][0])
        while sum(a >= 0.2 for a in answers[-7:]) > 3 or np.mean(answers[-7:]) >= 1:
            batch = task.sample(jax.random.fold_in(keys(trial).data, step), batch_size)
            x, y = np.float64(batch.x[0, :, 0]), np.float64(batch.y[:, 0])
            error, step = w * x + b - y, step + 1
            answers += np.abs(error).tolist()
            w, b = w - 0.02 * np.mean(2 * error * x), b - 0.02 * np.mean(2 * error)
        assert result.solved_at[i] == step
        np.testing.assert_allclose(result.state.stats.memory[i], answers[-7:], rtol=1e-3, atol=1e-5)


def test_windows_are_updates_within_a_sequence_and_one_window_is_none():
    """A step is a batch: its statistics are of the batch as it was answered, update by update."""
    task = TwoStrings(4, noisy=True)
    model = lj.nn.SequenceSpec(lj.cells.GRU(3), 5, 5, "every", engine="reference")
    trials = make_trials(seed=[3], learning_rate=0.5)
    settings: Any = dict(batch_size=2, optimizer="sgd", progress=False)
    plain, whole, halves = (fit(task, model, trials, 5, window=w, **settings) for w in (None, 4, 2))
    for one, other in zip(*map(jax.tree.leaves, (plain.params, whole.params)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    trial = pick(trials, 0)
    params, losses, deviations = jax.jit(model.init)(keys(trial).init, **initial(trial)), [], []

    @jax.jit
    def update(params, state, x, y):
        def loss(params):
            after, outputs = model.unroll(params, x, state)
            return task.loss(outputs, Batch(x, y)), (after, outputs)

        grads, aux = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), aux

    @jax.jit
    def draw(step):
        return task.sample(jax.random.fold_in(keys(trial).data, step), 2)

    for step in range(5):
        x, y, _, _ = batch = draw(step)
        params, (state, first) = update(params, model.initial_state(params, 2), x[:2], y[:2])
        params, (_, second) = update(params, state, x[2:], y[2:])
        outputs = jnp.concatenate([first, second])
        losses.append(task.loss(outputs, batch))
        deviations += task.deviation(outputs, batch).tolist()
    for one, other in zip(*map(jax.tree.leaves, (pick(halves.params, 0), params)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(halves.loss[0], np.mean(losses), rtol=1e-5)
    recent = np.asarray(halves.state.stats.memory)[0, -10:]
    np.testing.assert_allclose(recent, deviations, rtol=1e-5)


def test_windows_divide_sequences_with_targets_throughout():
    trials, settings = make_trials(), {"steps": 1, "progress": False}
    every = lj.nn.SequenceSpec(lj.cells.GRU(3), 5, 5, "every")
    right = "window must divide the length of a task that is no stream and has a target at every"
    with pytest.raises(ValueError, match=f"{right} time step, got 3 for two_strings of length 4"):
        fit(TwoStrings(4), every, trials, window=3, **settings)
    with pytest.raises(ValueError, match=f"{right} time step, got 2 for recall of length 4"):
        fit(TASK, every, trials, window=2, **settings)
    with pytest.raises(ValueError, match="window must be an integer of at least 1, got 0"):
        fit(TwoStrings(4), every, trials, window=0, **settings)
    with pytest.raises(TypeError, match="two_strings comes in windows"):
        fit(TwoStrings(4), NETWORK, trials, window=2, **settings)
