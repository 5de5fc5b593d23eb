"""Learning from a source whose rows are read one by one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax.training import loop
from lstm_jax.training.trials import keys
from tests.toys import Eager
from tests.training.own_data import MODEL, QUIET, TASK, rows_of

pytestmark = pytest.mark.usefixtures("standard_promotion")


class Files:
    """Rows that are read one by one; which, and how often, is on record."""

    def __init__(self, rows):
        self.rows, self.read = rows, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.read.append(index)
        return self.rows[index]


def files(seed, rows=37):
    return Files([*zip(*rows_of(seed, rows), strict=True)])


def test_a_source_is_read_in_epochs_and_trained_on_as_its_rows_are():
    """The update after each batch is the one that the loss of those rows makes."""
    source = files(8)
    settings: dict[str, Any] = dict(
        seeds=1, learning_rate=0.1, optimizer="sgd", batch_size=8, **QUIET
    )
    result = lj.fit(TASK, MODEL, source=source, epochs=2, **settings)
    assert result.step.tolist() == [2 * 5]
    assert len(source.read) < 5 * 32 * 8  # a block of 32 batches is read once by each reader
    spec: Any = result.model
    trial = jax.tree.map(lambda leaf: leaf[0], result.trials)
    params = jax.jit(spec.init)(keys(trial).init)

    @jax.jit
    def update(params, arrays):
        def loss(params):
            n = len(arrays["x"])
            batch = TASK.batch(arrays, jnp.arange(n), jnp.ones(n))
            return TASK.loss(spec.apply(params, batch.x, mask=batch.mask), batch)

        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))

    for step in range(10):
        epoch, part = divmod(step, 5)
        order = np.random.default_rng([epoch]).permutation(37)[part * 8 : part * 8 + 8]
        arrays = TASK.encode_rows([source.rows[i] for i in order])
        params = update(params, arrays)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-5),
        result.state.params, params,
    )  # fmt: skip


def test_training_on_a_source_goes_on_at_the_next_batch(tmp_path, monkeypatch):
    settings: dict[str, Any] = dict(steps=70, seeds=2, learning_rate=1e-2, batch_size=4, **QUIET)

    def train(path, source):
        run = (Eager.resume if path.exists() else Eager.create)(path, {})
        return lj.fit(TASK, MODEL, source=source, run=run, **settings)

    straight = train(tmp_path / "a", files(8))
    original, count = loop.Job._snapshot, iter(range(10**6))

    def interrupted(self, state):
        if next(count) == 6:
            raise KeyboardInterrupt
        return original(self, state)

    monkeypatch.setattr(loop.Job, "_snapshot", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", files(8))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="cannot resume with source"):
        train(tmp_path / "b", files(9))
    resumed = train(tmp_path / "b", files(8))
    jax.tree.map(np.testing.assert_array_equal, resumed, straight)


@pytest.mark.parametrize(
    ("task", "source", "words"),
    [
        (TASK, [], "source must have rows, got none"),
        (TASK, 3, "source must have __len__ and __getitem__, got 3"),
        (TASK, [np.zeros((3, 2))], r"source must give pairs \(x, y\), got"),
        (TASK, [(np.zeros((9, 2)), "up")], "source must give rows of at most 6 time steps"),
        (lj.tasks.Recall(lag=3), [(np.zeros((3, 2)), "up")], "source needs a task over"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(task, source, words):
    with pytest.raises((ValueError, TypeError), match=words):
        lj.fit(task, MODEL, source=source, steps=1, **QUIET)
