"""Evaluation: every sequence of a finite split exactly once, others drawn afresh, counts exact."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.tasks import Recall
from lstm_jax.training import evaluation
from lstm_jax.training.evaluation import evaluate
from lstm_jax.training.trials import initial, keys, make_trials
from lstm_jax.types import Batch
from tests.toys import Elman, Line, Slope

TRIALS = make_trials(seed=[0, 1, 2])
SLOPES = {
    "w": np.array([2.8, 3.0, 4.0], np.float32)[:, None, None],
    "b": np.zeros((3, 1), np.float32),
}


@dataclasses.dataclass(frozen=True)
class FiniteLine(Line):
    """Line, for the numbers 0, 1, ... divided by their count: no two errors are alike."""

    count: int = 450

    def split_size(self, split):
        return self.count + len(split)

    def examples(self, split):
        n = self.split_size(split)
        x = jnp.arange(n, dtype=jnp.float32).reshape(1, n, 1) / n
        return Batch(x, 3 * x[0])


@pytest.mark.parametrize("count", [450, 396, 3])
@pytest.mark.parametrize("batching", ["map", "vmap"])
def test_a_finite_split_is_asked_whole_and_each_sequence_once(count, batching):
    task = FiniteLine(count=count)
    asked = evaluate(task, Slope(), SLOPES, TRIALS, split="test", sequences=5, batching=batching)
    x = task.examples("test").x[0]
    error = (SLOPES["w"][:, 0] - 3) * np.asarray(x)[None, :, 0]
    assert asked.n.tolist() == [count + 4] * 3
    assert asked.correct.tolist() == (np.abs(error) < 0.3).sum(1).tolist()
    np.testing.assert_allclose(asked.metric, asked.correct / asked.n, rtol=1e-6)
    np.testing.assert_allclose(asked.loss, np.mean(error**2, axis=1), rtol=1e-5)


def test_targets_at_every_step_are_cut_along_the_sequences(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Echo(FiniteLine):
        readout = "every"

        def examples(self, split):
            x = jnp.arange(2 * 7, dtype=jnp.float32).reshape(2, 7, 1)
            return Batch(x, x * jnp.arange(7, dtype=jnp.float32)[None, :, None])

        def split_size(self, split):
            return 7

        def loss(self, outputs, batch):
            return ((outputs - batch.y) ** 2).mean()

        def correct(self, outputs, batch):
            return (batch.y[1, :, 0] == 7 + 1).astype("float32")

    @dataclasses.dataclass(frozen=True)
    class Zero(Slope):
        def apply(self, params, x, **_):
            return 0 * x

    monkeypatch.setattr(evaluation, "BATCH", 3)
    asked = evaluate(Echo(), Zero(), SLOPES, TRIALS)
    np.testing.assert_allclose(asked.loss, np.mean(np.square(Echo().examples("test").y)), rtol=1e-6)
    assert asked.correct.tolist() == [1, 1, 1]


def test_drawn_sequences_are_those_of_the_split_and_of_no_training_step():
    task, seen = Recall(lag=2, symbols=3), []

    @dataclasses.dataclass(frozen=True)
    class Spy(Recall):
        def sample(self, key, batch_size, split="train"):
            seen.append((batch_size, split))
            return super().sample(key, batch_size, split)

    network = Elman(task.input_size, task.output_size)
    trial = jax.tree.map(lambda leaf: leaf[0], TRIALS)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf)[None], network.init(keys(trial).init, **initial(trial))
    )
    one = make_trials(seed=0)
    asked = evaluate(Spy(lag=2, symbols=3), network, params, one, sequences=430, split="validation")
    assert set(seen) == {(evaluation.BATCH, "validation"), (30, "validation")}
    root, correct, loss = keys(trial).evaluation, 0.0, 0.0
    for index, size in ((0, 200), (1, 200), (2, 30)):
        batch = task.sample(jax.random.fold_in(root, index), size, "validation")
        outputs = network.apply(jax.tree.map(lambda leaf: leaf[0], params), batch.x)
        correct += float(task.correct(outputs, batch).sum())
        loss += size * float(task.loss(outputs, batch)) / 430
    assert asked.correct.tolist() == [correct] and asked.n.tolist() == [430]
    np.testing.assert_allclose(asked.loss, loss, rtol=1e-5)


def test_no_sequences_are_refused():
    with pytest.raises(ValueError, match="sequences must be an integer of at least 1, got 0"):
        evaluate(Line(), Slope(), SLOPES, TRIALS, sequences=0)
