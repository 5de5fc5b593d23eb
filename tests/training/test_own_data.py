"""Learning from one's own data: arrays are arguments, rows come in epochs, resumption."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax.tasks.base import Rows, Target, weighted_mean
from lstm_jax.training import loop
from lstm_jax.types import Batch
from tests.toys import Eager, Slope
from tests.training.own_data import MODEL, QUIET, TASK, sequences

pytestmark = pytest.mark.usefixtures("standard_promotion")

N = 23


@dataclasses.dataclass(frozen=True, eq=False)
class Numbered(Rows):
    """Row n has the input n and the target 2 n; rows beyond those of a split never come."""

    count: int = N
    name = "numbered"
    readout = "last"
    input_size, output_size, length, chance = 1, 1, 1, 0.0

    def arrays(self):
        n = np.arange(self.count + 5, dtype=np.int32)
        return {"n": n, "splits": {"train": n[5:], "validation": n[:3], "test": n[3:5]}}

    def batch(self, arrays, index, weight):
        n = jnp.asarray(arrays["n"])[index].astype(jnp.float32)
        return Batch(n[None, :, None], Target(2 * n, weight))

    def loss(self, outputs, batch):
        return weighted_mean((outputs[:, 0] - batch.y.value) ** 2, batch.y.weight)

    def correct(self, outputs, batch):
        return ((jnp.abs(outputs[:, 0] - batch.y.value) < 1) & (batch.y.weight > 0)).astype(
            jnp.float32
        )


def orders(task, epochs, batch_size, seeds=(0, 1), **settings):
    """Returns the rows of each update of each trial, and their weights."""
    seen: list[Any] = []

    class Spied(type(task)):
        def batch(self, arrays, index, weight):
            jax.debug.callback(lambda i, w: seen.append((i.tolist(), w.tolist())), index, weight)
            return super().batch(arrays, index, weight)

    result = lj.fit(
        Spied(task.count), Slope(), epochs=epochs, batch_size=batch_size, seeds=list(seeds),
        optimizer="sgd", learning_rate=1e-9, validate_every=10**6, **QUIET, **settings,
    )  # fmt: skip
    jax.effects_barrier()
    return result, [(i, w) for i, w in seen if len(i) == batch_size]


@pytest.mark.parametrize("batch_size", [4, 23, 30])
def test_every_row_comes_once_before_any_twice(batch_size):
    per = -(-N // batch_size)
    _, seen = orders(Numbered(), 3, batch_size, seeds=[5])
    assert len(seen) == 3 * per
    epochs = [seen[e * per : (e + 1) * per] for e in range(3)]
    rows = [[i for index, w in e for i, v in zip(index, w, strict=True) if v > 0] for e in epochs]
    assert all(sorted(r) == list(range(5, 5 + N)) for r in rows)
    assert rows[0] != rows[1] and rows[1] != rows[2]


def test_the_loss_of_a_short_batch_is_the_mean_of_its_rows():
    """Of 23 rows in batches of 8 the last has 7: its gradient is theirs, whatever fills it up."""
    task = Numbered()
    result, seen = orders(task, 1, 8, seeds=[0])
    index = np.array([i for i, v in zip(*seen[-1], strict=True) if v > 0])
    assert len(index) == 7
    start = jax.tree.map(lambda leaf: leaf[0], result.params)
    w, b = float(start["w"][0, 0]), float(start["b"][0])
    expected = np.mean((w * index + b - 2 * index) ** 2)
    arrays = task.arrays()
    padded, weight = np.r_[index, 0], np.r_[np.ones(7), 0].astype(np.float32)
    batch = task.batch(arrays, padded, weight)
    loss = task.loss(Slope().apply(start, batch.x), batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_epochs_resume_to_the_same_bytes_and_other_data_are_refused(tmp_path, monkeypatch):
    data = sequences(0)
    task = lj.tasks.Classification(data)
    settings: dict[str, Any] = dict(epochs=4, seeds=2, learning_rate=1e-2, patience=9, **QUIET)

    def train(path, task=task):
        run = (Eager.resume if path.exists() else Eager.create)(path, {})
        return lj.fit(task, MODEL, run=run, **settings)

    straight = train(tmp_path / "a")
    original, count = loop.Job._snapshot, iter(range(10**6))

    def interrupted(self, state):
        if next(count) == 9:
            raise KeyboardInterrupt
        return original(self, state)

    monkeypatch.setattr(loop.Job, "_snapshot", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="cannot resume with data"):
        train(tmp_path / "b", lj.tasks.Classification(sequences(1)))
    resumed = train(tmp_path / "b")
    jax.tree.map(np.testing.assert_array_equal, resumed, straight)
    files = [(tmp_path / name / "records.jsonl").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_new_arrays_of_equal_shapes_compile_nothing_and_are_learnt_from():
    other = lj.tasks.Classification(sequences(3))
    settings: dict[str, Any] = dict(epochs=2, seeds=2, learning_rate=1e-2, **QUIET)
    first = lj.fit(TASK, MODEL, **settings)
    compiled = loop._program.cache_info().misses
    second = lj.fit(other, MODEL, **settings)
    again = lj.fit(TASK, MODEL, **settings)
    assert TASK.static == other.static and loop._program.cache_info().misses == compiled
    assert not np.array_equal(first.loss, second.loss)
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)


def test_the_text_of_a_loop_holds_no_array_of_the_data():
    """Constants of a program stand in its text; its size does not depend on the rows."""
    texts = []
    for rows in (60, 600):
        task = lj.tasks.Classification(sequences(0, rows))
        lowered = lj.training.lower(task, MODEL, lj.make_trials(), jax.devices())
        texts.append(len(lowered.run.as_text()))
    assert abs(texts[0] - texts[1]) < 500


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (dict(steps=1, epochs=1), ValueError, "one of steps and epochs"),
        (dict(), ValueError, "one of steps and epochs"),
        (dict(epochs=0), ValueError, "epochs must be an integer of at least 1, got 0"),
        (dict(epochs=1, seeds=0), ValueError, "seeds must be a number of at least 1"),
        (dict(epochs=1, seeds=[1, 2, 1]), ValueError, "seeds must differ"),
        (dict(epochs=1, validate_every=0), ValueError, "validate_every must be an integer of at"),
        (dict(epochs=1, seeds=[-1]), ValueError, "seed must be a whole number"),
        (dict(epochs=1, factor=1.5), ValueError, r"factor must be in \(0, 1\), got 1.5"),
        (dict(epochs=1, average=1.0), ValueError, "average must be a decay"),
        (dict(epochs=1, patience=0), ValueError, "patience must be an integer of at least 1"),
        (dict(steps=1, patience=2), ValueError, "patience=2 needs validate_every"),
        (dict(epochs=1, learning_rte=1.0), TypeError, "learning_rte"),
        (dict(epochs=1, trials=lj.make_trials(), seeds=2), ValueError, "seeds must be given in"),
        (dict(epochs=1, warmup=0), ValueError, "warmup must be positive"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(given, error, words):
    with pytest.raises(error, match=words):
        lj.fit(TASK, MODEL, **given, **QUIET)


def test_epochs_need_rows():
    with pytest.raises(ValueError, match="epochs need a task with rows of data, recall has none"):
        lj.fit(lj.tasks.Recall(lag=3), MODEL, epochs=1)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("loss", r"loss of numbered must be a scalar, got shape \[4\]"),
        ("metric", r"metric of numbered must be a scalar, got shape \[4\]"),
        ("correct", r"correct of numbered must be \[B\] = \[4\], got shape \[\]"),
    ],
)
def test_measures_of_another_shape_are_refused_by_name(method, words):
    class Wrong(Numbered):
        pass

    shape = () if method == "correct" else (4,)
    setattr(Wrong, method, lambda self, outputs, batch: jnp.zeros(shape))

    def train_and_ask():
        lj.fit(Wrong(), Slope(), steps=1, batch_size=4, **QUIET).evaluate("test")

    with pytest.raises(ValueError, match=words):
        train_and_ask()
