"""Chorales: frames of notes, windows that leave no gap, splits by chorale, losses against NumPy."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import odyssey
from lstm_jax import tasks
from lstm_jax.tasks import chorales
from lstm_jax.tasks.chorales import Chorales

LENGTHS = [9, 4, 12, 7, 30, 8, 11, 25, 5, 10]


@pytest.fixture
def scores(monkeypatch):
    """Ten made-up chorales; frame n of them all has the keys of n in binary."""
    number = np.arange(sum(LENGTHS))[:, None]
    frames = (number >> np.arange(chorales.KEYS) % 8 & 1).astype(bool)
    made = chorales.Scores(frames, np.array(LENGTHS))
    monkeypatch.setattr(chorales, "_scores", lambda: made)
    chorales._starts.cache_clear()
    yield made
    chorales._starts.cache_clear()


def numbers(frames) -> np.ndarray:
    """Which frame of all each is, [T, N]."""
    return np.asarray(frames)[..., :8].astype(int) @ (1 << np.arange(8))


def owner(number):
    return np.searchsorted(np.cumsum(LENGTHS), number, side="right")


def test_a_key_sounds_at_every_quarter_from_its_begin_to_its_end():
    notes = [(0.0, 2.0, [60]), (0.5, 1.5, [64]), (2.0, 2.5, [21, 108]), (1.25, 1.75, [70])]
    frames = chorales._frames(notes)
    assert frames.shape == (3, 88)
    assert [(np.flatnonzero(f) + 21).tolist() for f in frames] == [[60], [60, 64], [21, 108]]


@pytest.mark.parametrize("window", [3, 4])
def test_examples_hold_every_frame_of_their_split_and_the_next_one(scores, window):
    task, seen = Chorales(window), {}
    for split in tasks.SPLITS:
        batch = task.examples(split)
        assert batch.x.shape == (window, task.split_size(split), 88) == batch.y.shape
        x, y = numbers(batch.x), numbers(batch.y)
        np.testing.assert_array_equal(y, x + 1)
        np.testing.assert_array_equal(x, x[:1] + np.arange(window)[:, None])
        assert np.all(owner(x[0]) == owner(y[-1])), "no window goes over the end of a chorale"
        seen[split] = set(x.flat) | set(y.flat)
        fitting = [c for c in set(owner(x[0])) if LENGTHS[c] > window]
        assert len(seen[split]) == sum(LENGTHS[c] for c in fitting)
        least = sum(-(-(LENGTHS[c] - 1) // window) for c in fitting)
        assert task.split_size(split) == least, "and no more windows than needed"
    missing = set(range(sum(LENGTHS))) - set().union(*seen.values())
    assert {int(owner(n)) for n in missing} == {c for c, n in enumerate(LENGTHS) if n <= window}
    assert not seen["train"] & seen["test"] and not seen["validation"] & seen["test"]


def test_the_chorales_are_shared_out_by_the_seed(scores):
    members = chorales._members(3, 350)
    assert [len(members[split]) for split in tasks.SPLITS] == [245, 35, 70]
    assert sorted(np.concatenate(list(members.values()))) == list(range(350))
    assert any(np.any(members[s] != chorales._members(4, 350)[s]) for s in tasks.SPLITS)


def test_samples_begin_anywhere_in_their_split_and_nowhere_else(scores):
    task = Chorales(3)
    batch = jax.jit(lambda key: task.sample(key, 3000))(jax.random.key(0))
    drawn = numbers(batch.x)
    starts, count = np.unique(drawn[0], return_counts=True)
    train = chorales._members(0, len(LENGTHS))["train"]
    first = np.cumsum(LENGTHS) - LENGTHS
    wanted = [first[c] + n for c in train for n in range(LENGTHS[c] - 3)]
    assert starts.tolist() == sorted(wanted)
    mean = 3000 / len(wanted)
    assert np.all(np.abs(count - mean) < 4.5 * np.sqrt(mean))
    np.testing.assert_array_equal(numbers(batch.y), drawn + 1)


def test_loss_and_metric_are_those_of_float64_numpy(scores):
    task, rng = Chorales(3), np.random.default_rng(0)
    batch = task.examples("train")
    outputs = 20 * rng.normal(size=batch.y.shape).astype(np.float32)
    outputs[:, 0] = np.where(np.asarray(batch.y[:, 0]) > 0, 9, -9)  # one window is all right
    outputs[0, 1] = np.where(np.asarray(batch.y[0, 1]) > 0, 9, -9)  # of another one frame is
    y, wide = np.asarray(batch.y, np.float64), outputs.astype(np.float64)
    likely = y * -np.logaddexp(0, -wide) + (1 - y) * -np.logaddexp(0, wide)
    assert task.loss(outputs, batch) == pytest.approx(-likely.sum(-1).mean(), rel=1e-6)
    assert task.correct(outputs, batch).tolist() == [1] + [0] * (y.shape[1] - 1)
    assert task.metric(outputs, batch) == pytest.approx(4 / y[..., 0].size)


def test_new_chorales_are_read_and_answered_as_those_of_the_task(scores):
    task = chorales.Chorales(5)
    batch, served = task.examples("test"), task.serving
    arrays = served.encode(np.swapaxes(batch.x, 0, 1))
    rows = jnp.arange(batch.x.shape[1])
    np.testing.assert_array_equal(served.batch(arrays, rows, jnp.ones(len(rows))).x, batch.x)
    right = np.where(batch.y > 0, 1.0, -1.0)
    np.testing.assert_array_equal(served.predictions(right[None], arrays), batch.y.swapaxes(0, 1))


def test_chance_is_the_share_of_the_most_common_frame(scores):
    scores.frames[:5] = scores.frames[0]
    assert Chorales(3).chance == pytest.approx(5 / sum(LENGTHS))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"window": 0}, "window must be an integer of at least 1, got 0"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
)
def test_bad_sizes_are_refused_by_name(given, words):
    with pytest.raises(ValueError, match=words):
        Chorales(**given)


def test_a_window_longer_than_the_chorales_is_refused(scores):
    with pytest.raises(ValueError, match=r"window must leave .* a chorale, got 30"):
        Chorales(30).examples("test")


def test_the_scores_are_read_once_and_kept_whole(monkeypatch, tmp_path):
    music21, read = types.ModuleType("music21"), []
    music21.__version__ = "0"  # pyright: ignore
    monkeypatch.setitem(sys.modules, "music21", music21)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(chorales, "_names", lambda: ["one", "two"])

    def notes(name):
        read.append(name)
        return [(0.0, float(len(read)), [60])]

    monkeypatch.setattr(chorales, "_notes", notes)
    first, again = chorales._scores.__wrapped__(), chorales._scores.__wrapped__()
    assert read == ["one", "two"]
    assert first.lengths.tolist() == [1, 2]
    assert np.flatnonzero(first.frames.all(0)).tolist() == [60 - 21]
    np.testing.assert_array_equal(again.frames, first.frames)
    assert [p.name for p in (tmp_path / "lstm_jax").iterdir()] == ["chorales-music21-0.npz"]
    with pytest.raises(ValueError, match="read-only"):
        again.frames[0] = True


def test_without_music21_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "music21", None)
    monkeypatch.setattr(chorales, "_scores", chorales._scores.__wrapped__)
    with pytest.raises(ModuleNotFoundError, match=r"music21: pip install 'lstm_jax\[experiments]'"):
        _ = Chorales().chance


@pytest.mark.slow
def test_the_chorales_are_as_music21_has_them():
    """Half a minute the first time: BWV 342 begins as the docstring of the task shows it."""
    pytest.importorskip("music21")
    scores = chorales._scores()
    assert (len(scores.lengths), len(scores.frames)) == (350, 19018)
    names = chorales._names()
    at = int(scores.lengths[: names.index("bach/bwv342")].sum())
    chords = [np.flatnonzero(scores.frames[at + n]) + 21 for n in range(2)]
    assert [chord.tolist() for chord in chords] == [[57, 60, 64, 72], [52, 60, 67, 72]]


@pytest.mark.slow
def test_what_the_best_constant_answer_costs_is_what_the_odyssey_counts_it_as():
    pytest.importorskip("music21")
    task = Chorales()
    p, heard = (np.asarray(task.examples(split).y).reshape(-1, 88) for split in ("train", "test"))
    p = np.clip(p.mean(0), 1e-6, 1 - 1e-6)  # keys that are never heard in training
    costs = -np.where(heard > 0, np.log(p), np.log1p(-p)).sum(1)
    assert odyssey.TASKS["chorales"].constant == pytest.approx(costs.mean(), abs=0.02)
