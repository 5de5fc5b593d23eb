"""Checkpoints and exports: what is saved comes back exactly, what is half there is not taken."""

import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lstm_jax.runs.checkpoints import Checkpoints, export, load, read_note, step_of
from lstm_jax.runs.records import Damaged


def tree(seed):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(3, 2, 4)).astype("f4"), "b": [rng.normal(size=3).astype("f4")]}
    narrow = jnp.asarray(rng.normal(size=5), jnp.bfloat16)
    state = optax.chain(optax.clip(1.0), optax.scale_by_adam()).init(params)
    return jax.tree.map(np.asarray, (params, state, narrow, np.int32(seed)))


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_last_two_states_and_their_notes_come_back_with_their_types(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saver = Checkpoints("a/checkpoints")  # relative paths are made absolute
    assert saver.paths() == []
    for step in (1, 2, 30):
        saver.save(step, tree(step), {"written": step, "who": "x"})
    saver.save(30, tree(4), {"written": 5})  # saved before: not again
    saver.close()
    reader = Checkpoints("a/checkpoints")
    assert list(map(step_of, reader.paths())) == [30, 2]
    for path in reader.paths():
        step = step_of(path)
        assert read_note(path) == {"written": step, "who": "x"}
        assert_same(reader.restore(path, jax.tree.map(np.zeros_like, tree(0))), tree(step))
    reader.save(31, tree(31), {})
    reader.close()
    assert list(map(step_of, reader.paths())) == [31, 2], "what was restored last is kept"


def test_a_half_written_checkpoint_is_not_taken(tmp_path, monkeypatch):
    saver = Checkpoints(tmp_path)
    saver.save(1, tree(1), {})
    saver.close()
    saver = Checkpoints(tmp_path)
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)
    saver.save(2, tree(2), {})
    with pytest.raises(ZeroDivisionError):
        saver.close()
    assert len(os.listdir(tmp_path)) == 2
    assert list(map(step_of, Checkpoints(tmp_path).paths())) == [1]


@pytest.mark.parametrize("spoil", ["flip", "truncate", "zero", "empty"])
def test_a_damaged_checkpoint_or_export_is_refused_by_name(spoil, tmp_path):
    saver = Checkpoints(tmp_path)
    saver.save(1, tree(1), {"who": "x"})
    saver.close()
    (path,) = saver.paths()
    whole = path.read_bytes()
    spoilt = {
        "flip": whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:],
        "truncate": whole[: len(whole) // 2],
        "zero": bytes(len(whole)),
        "empty": b"",
    }[spoil]
    path.write_bytes(spoilt)
    with pytest.raises(Damaged, match="npz: it is not as it was saved; restore it from a copy"):
        read_note(path)
    if spoil != "flip":
        with pytest.raises(Damaged, match="npz: it cannot be read"):
            load(path, tree(1))


@pytest.mark.parametrize("again", ["save", "close"])
def test_a_full_disk_is_raised_by_the_next_call_and_leaves_nothing(again, tmp_path, monkeypatch):
    saver = Checkpoints(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    saver.save(1, tree(1), {})
    with pytest.raises(OSError, match="No space left"):
        saver.save(2, tree(2), {}) if again == "save" else saver.close()
    saver.close()
    assert os.listdir(tmp_path) == []


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_exports_come_back_exactly_and_the_same_arrays_give_the_same_bytes(tmp_path):
    saved = tree(7)
    export(tmp_path / "a.npz", saved)
    export(tmp_path / "b.npz", saved)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert_same(load(tmp_path / "a.npz", jax.tree.map(np.zeros_like, saved)), saved)
    with np.load(tmp_path / "a.npz") as file:
        assert "0/b/0" in file.files


def test_an_export_that_does_not_fit_is_refused_by_the_first_name(tmp_path):
    path = tmp_path / "a.npz"
    export(path, {"w": np.zeros((2, 3), "f4"), "b": np.zeros(3, "f4")})
    zeros = np.zeros(3, "f4")
    with pytest.raises(ValueError, match=r"a.npz lacks 'c'"):
        load(path, {"w": np.zeros((2, 3), "f4"), "b": zeros, "c": zeros})
    with pytest.raises(ValueError, match=r"a.npz has the unknown 'w'"):
        load(path, {"b": zeros})
    with pytest.raises(ValueError, match=r"'w' is \(2, 3\) float32, expected \(3, 2\) float32"):
        load(path, {"w": np.zeros((3, 2), "f4"), "b": zeros})
    with pytest.raises(ValueError, match=r"'b' is \(3,\) float32, expected \(3,\) int32"):
        load(path, {"w": np.zeros((2, 3), "f4"), "b": np.zeros(3, "i4")})


def test_empty_arrays_come_back_empty(tmp_path):
    state = {"w_h": np.zeros((3, 0), np.float32), "b": np.arange(2.0)}
    saver = Checkpoints(tmp_path)
    saver.save(1, state, {})
    saver.close()
    assert_same(saver.restore(saver.paths()[0], jax.tree.map(np.ones_like, state)), state)
