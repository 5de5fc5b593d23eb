"""The networks of 1997: as many weights as the paper counts, its starts, and what they compute."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from experiments import classic
from experiments.hochreiter1997.network import Network1997, OnlineNetwork1997
from lstm_jax.types import CellParams
from tests.products import mostly_slow, slow

BLOCKS = lj.cells.MemoryBlocks(4, size=2)


@pytest.mark.parametrize(
    ("experiment", "words", "weights"),
    [
        ("1", "4 blocks of 1, rate 0.1, set 0", 264),
        ("1", "3 blocks of 2, rate 0.5, set 2", 276),
        ("2a", "p = 100", 10504),
        ("2b", "p = 100", 10504),
        ("2c", "q = 50, p = 50", 364),
        ("2c", "q = 1000, p = 1000", 6064),
        ("3a", "T = 100, N = 1", 102),
        ("3c", "T = 100, N = 3", 102),
        ("4", "T = 1000", 93),
        ("5", "T = 100, n_seq = 13", 93),
        ("6a", "2 marks", 156),
        ("6b", "3 marks", 308),
    ],
)
def test_weights_are_as_many_as_in_the_paper(experiment, words, weights):
    (at,) = (s for s in classic.SETTINGS["all"] if (s.experiment, s.words) == (experiment, words))
    assert at.network.weights == weights
    assert at.network.cell.truncated  # pyright: ignore
    params = jax.eval_shape(lambda: at.network.init(jax.random.key(0)))
    blocks = params.pop("blocks")
    # of the arrays of a cell some entries are none of its weights: biases that it does not have
    entries = sum(leaf.size for leaf in jax.tree.leaves((params, blocks)))
    missing = sum(at.network.cell.width(g) for g in at.network.cell.unbiased)
    assert entries - missing == weights


def test_weights_start_uniform_and_named_biases_as_named():
    network = Network1997(BLOCKS, 30, 50, "last", 0.1, (-3, -6), (), output_units_biased=True)
    params = jax.device_get(jax.jit(network.init)(jax.random.key(3)))
    weights = [params["blocks"]["w_x"], params["blocks"]["w_h"], params["w"], params["b"]]
    i, g, o = np.split(params["blocks"]["b"], (2, 6))
    for values in (*weights, g, o):
        assert np.abs(values).max() <= 0.1 and len(np.unique(values)) == values.size
    assert np.abs(params["w"]).max() > 0.098 and abs(float(params["w"].mean())) < 0.02
    assert i.tolist() == [-3, -6]
    assert not np.array_equal(params["w"], jax.jit(network.init)(jax.random.key(4))["w"])
    half = jax.jit(network.init)(jax.random.key(3), scale=0.5)
    np.testing.assert_allclose(half["w"], params["w"] / 2, rtol=1e-6)
    closed = jax.jit(dataclasses.replace(network, output_biases=(-1, -2)).init)(jax.random.key(3))
    assert closed["blocks"]["b"][6:].tolist() == [-1, -2]


@pytest.mark.parametrize(
    ("readout", "shortcut"),
    mostly_slow(
        itertools.product(["last", "every"], [False, True]), [("last", False), ("every", True)]
    ),
)
def test_it_is_its_cells_instant_by_instant_and_a_product(readout, shortcut):
    """Of a padded row too: it is read where it ends."""
    cell = dataclasses.replace(BLOCKS, truncated=True)
    network = Network1997(
        cell, 2, 3, readout, 0.8, output_units_biased=True, shortcut=shortcut, engine="reference"
    )
    params = jax.jit(network.init)(jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (6, 1, 2))
    mask = None if shortcut and readout == "last" else jnp.arange(6)[:, None] < 4
    y = network.apply(params, x, mask=mask)
    state = lj.cells.initial_state(cell, (1,))
    for t in range(6 if mask is None else 4):
        state, h = lj.step(cell, CellParams(**params["blocks"]), state, x[t])
        read = np.concatenate([x[t], h], -1) if shortcut else np.asarray(h)
        wanted = read @ np.asarray(params["w"]) + np.asarray(params["b"])[None]
        if readout == "every":
            np.testing.assert_allclose(y[t], wanted, rtol=1e-5, atol=1e-6)
    if readout == "last":
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)


def test_cells_that_wait_have_no_part_in_the_outputs_and_learn_nothing():
    blocks = lj.cells.MemoryBlocks(2, biases="none")
    network = OnlineNetwork1997(blocks, 3, 3, "every", 0.5, shortcut=True, cells_wait=True)
    params = jax.jit(network.init)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 5, 3))
    np.testing.assert_allclose(network.apply(params, x), x @ params["w"][:3], rtol=1e-6)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(network.apply(p, x) ** 2)))(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads["blocks"]))
    assert not np.any(grads["w"][3:]) and np.all(grads["w"][:3])


@pytest.mark.parametrize(
    "cell",
    [
        lj.cells.MemoryBlocks(4, size=2, truncated=True, biases="gates"),
        slow(
            lj.cells.MemoryBlocks(
                2, truncated=True, biases="none", output_gate=False, recurrent=False,
                input_activation="s", output_activation="identity",
            )
        ),
    ],
)  # fmt: skip
def test_the_gradients_of_all_instants_are_together_that_of_the_sequence(cell, x64):
    """While the weights stay; outputs too; and rows that have ended add nothing."""
    network = OnlineNetwork1997(cell, 3, 2, "every", 0.9, shortcut=True, engine="reference")
    params = jax.tree.map(jnp.float64, jax.jit(network.init)(jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (7, 2, 3), float)
    mask = jnp.arange(7)[:, None] < jnp.array([7, 4])[None]
    targets = jax.random.normal(jax.random.key(2), (7, 2, 2), float)

    def loss(y, t):
        return jnp.sum(jnp.where(mask[t][..., None], (y - targets[t]) ** 2, 0.0))

    def of_an_instant(params, state, t):
        after, y = network.unroll(params, x[t], state, mask=mask[t])
        return loss(y, t), (after, y)

    @jax.jit
    def both():
        whole = jax.grad(lambda p: loss(network.apply(p, x, mask=mask), slice(None)))(params)
        state = jax.tree.map(jnp.float64, network.initial_state(params, 2))
        sums, outputs = jax.tree.map(jnp.zeros_like, params), []
        for t in range(7):
            at = slice(t, t + 1)
            grads, (state, y) = jax.grad(of_an_instant, has_aux=True)(params, state, at)
            sums = jax.tree.map(jnp.add, sums, grads)
            outputs.append(y)
        return whole, sums, network.apply(params, x, mask=mask), jnp.concatenate(outputs)

    whole, sums, apart, together = both()
    np.testing.assert_allclose(together[:4], apart[:4], rtol=1e-10)
    for one, other in zip(*map(jax.tree.leaves, (whole, sums)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)
    assert jnp.abs(whole["blocks"]["w_x"]).max() > 1e-3


def test_wide_inputs_are_multiplied_before_the_loop_on_a_cpu_unless_an_engine_is_named():
    def engine(size, platform="cpu", **told):
        return Network1997(BLOCKS, size, 1, "last", 0.1, **told).on(platform).engine

    narrow, wide = engine(32), engine(33)
    assert (narrow, wide) == (lj.engines.Scan("joined"), lj.engines.Scan("hoisted", chunk=4096))
    assert engine(33, engine="scan") == narrow
    assert engine(33, "gpu") == engine(32, "gpu")
