"""Recurrent PPO learns the same with a scanned GRU in linen and with ours in its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common import ppo
from experiments.common.environments import ENVIRONMENTS, Params
from scripts import _bench_agent


@pytest.mark.slow
def test_updates_with_ours_are_those_of_the_scanned_gru():
    environment, at = ENVIRONMENTS["t_maze"], Params(jnp.int32(3))
    settings = ppo.PPO(updates=2, horizon=16, environments=4, epochs=2, minibatches=1)
    key, rate = jax.random.split(jax.random.key(0), 1), jnp.full(1, 1e-2)
    found = []
    for ours in (False, True):
        policy = _bench_agent.policy(ours, environment.num_actions)
        params = jax.vmap(lambda k, p=policy: p.init(k, environment.observation_size))(key)
        with jax.numpy_dtype_promotion("standard"):  # optax
            trained, sums = ppo.train(environment, policy, settings, at, params, rate, key)
        found.append((trained["Dense_0"], trained["Dense_1"], sums))
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
