"""Checkpoints and exports: what is saved comes back exactly, what is half there is not taken."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lstm_jax.checkpoints import Checkpoints, export, load


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


def test_the_newest_state_and_its_note_come_back_with_their_types(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saver = Checkpoints("a/checkpoints")  # relative paths are made absolute
    assert saver.latest() is None
    for step in (1, 2, 30):
        saver.save(step, tree(step), {"written": step, "who": "x"})
    saver.save(30, tree(4), {"written": 5})  # saved before: not again
    saver.close()
    reader = Checkpoints("a/checkpoints")
    assert reader.latest() == 30 and reader.note() == {"written": 30, "who": "x"}
    assert_same(reader.restore(jax.tree.map(np.zeros_like, tree(0))), tree(30))
    assert len([name for name in os.listdir("a/checkpoints") if name.isdigit()]) == 2
    reader.close()


def test_a_half_written_checkpoint_is_not_taken_and_cleared_away(tmp_path):
    saver = Checkpoints(tmp_path)
    saver.save(1, tree(1), {})
    saver.close()
    half = tmp_path / "2.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "state").write_bytes(b"half")
    saver = Checkpoints(tmp_path)
    assert saver.latest() == 1
    saver.save(2, tree(2), {})
    saver.close()
    assert Checkpoints(tmp_path).latest() == 2 and not half.exists()


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
    keeper = Checkpoints(tmp_path)
    keeper.save(1, state, {})
    keeper.close()
    template = {"w_h": np.ones((3, 0), np.float32), "b": np.ones(2)}
    got = Checkpoints(tmp_path).restore(template)
    assert got["w_h"].shape == (3, 0) and got["b"].tolist() == [0, 1]
