"""The networks of the experiments start as their papers say, and answer as their task asks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from experiments.common import networks
from lstm_jax import tasks

H, LAG = 8, 20
TASK = tasks.Recall(lag=LAG, symbols=3)


def start(name: str) -> dict:
    spec = networks.network(name, TASK, H, "reference")
    return jax.jit(spec.init)(jax.random.key(0))["stack"]["layers"][0]


@pytest.mark.parametrize("name", networks.LABELS)
def test_outputs_are_what_the_task_asks_for(name):
    spec = networks.network(name, TASK, H, "reference")
    batch = TASK.sample(jax.random.key(1), 5)

    def correct(key):
        return TASK.correct(spec.apply(spec.init(key), batch.x), batch)

    assert jax.eval_shape(correct, jax.random.key(0)).shape == (5,)
    assert spec == networks.network(name, TASK, H, "reference")
    assert hash(spec) == hash(networks.network(name, TASK, H, "reference"))


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "lstm_chrono"])
def test_recurrent_blocks_start_orthogonal(name):
    w_h = start(name)["w_h"]
    for block in jnp.split(w_h, w_h.shape[1] // H, axis=1):
        np.testing.assert_allclose(block.T @ block, np.eye(H), atol=1e-5)


def test_the_first_layer_comes_as_the_loop_takes_it():
    spec = networks.network("layer_norm", TASK, H, "reference")  # it has small parameters
    params = jax.jit(spec.init)(jax.random.key(0))
    layer = networks.recurrent(spec, params)
    _, h = lj.unroll(spec.cell, layer, TASK.sample(jax.random.key(1), 2).x)
    y = h[-1] @ params["head"]["kernel"] + params["head"]["bias"][None]
    again = spec.apply(params, TASK.sample(jax.random.key(1), 2).x)
    np.testing.assert_allclose(y, again, atol=1e-5)


def test_the_irnn_starts_at_the_identity():
    np.testing.assert_array_equal(start("irnn")["w_h"], np.eye(H))


def test_biases_of_the_lstms():
    i, f, g, o = jnp.split(start("lstm")["b"], 4)
    assert (f == 1).all() and not jnp.concatenate([i, g, o]).any()
    i, f, g, o = jnp.split(start("lstm_chrono")["b"], 4)
    np.testing.assert_array_equal(i, -f)
    assert (jnp.exp(f) >= 1).all() and (jnp.exp(f) <= 1.5 * TASK.length - 1).all()
    assert (jnp.exp(f) > TASK.length).any()
    assert len(set(f.tolist())) == H and not jnp.concatenate([g, o]).any()
