"""Recurrent PPO: advantages, resets inside a rollout, the policy over time, a problem it solves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import lstm_jax as lj
from experiments.common import ppo
from experiments.common.environments import MemoryChain, Params, TMaze

T, B, H = 7, 4, 3
ENV, AT = TMaze(), Params(jnp.int32(2))
POLICY = ppo.Policy(lj.cells.LSTM(H), H)


@functools.cache
def params_of_policy():
    return POLICY.init(jax.random.key(0), ENV)


@functools.cache
def played() -> tuple[ppo.Playing, ppo.Playing, ppo.Rollout]:
    """The begin and the end of a rollout, and its time steps; episodes end within."""
    begin = ppo.start(ENV, POLICY, B, AT, jax.random.key(1))
    roll = jax.jit(functools.partial(ppo.rollout, ENV, POLICY, T))
    middle = roll(AT, params_of_policy(), begin)[0]
    return middle, *roll(AT, params_of_policy(), middle)


def test_the_policy_over_time_is_its_time_steps():
    begin, _, batch = played()
    assert batch.reset[1:].any()
    logits, value = POLICY.over_time(
        params_of_policy(), begin.memory, batch.observation, batch.reset
    )
    assert_allclose(value, batch.value, atol=1e-6)
    assert_allclose(ppo.log_probability(logits, batch.action), batch.log_prob, atol=1e-6)


def test_a_reset_inside_a_rollout_is_a_fresh_start_gradients_included():
    """A value after a reset and its gradient depend on nothing before the reset."""
    x = jax.random.normal(jax.random.key(2), (T, B, ENV.observation_size))
    reset = jnp.zeros((T, B), bool).at[3].set(True)
    carried = lj.cells.LSTM(H).State(*jax.random.normal(jax.random.key(3), (2, B, H)))

    def inside(params, x):
        return POLICY.over_time(params, carried, x, reset)[1][3:].sum()

    def fresh(params, x):
        flags = jnp.zeros((T - 3, B), bool)
        return POLICY.over_time(params, POLICY.begin(B), x[3:], flags)[1].sum()

    one, other = (
        jax.jit(jax.value_and_grad(f, (0, 1)))(params_of_policy(), x) for f in (inside, fresh)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_advantages_are_those_of_a_loop():
    settings = ppo.PPO(discount=0.9, decay=0.8)
    draw = np.random.default_rng(0)
    reward, value = draw.normal(size=(2, T, B)).astype(np.float32)
    last, done = draw.normal(size=B).astype(np.float32), draw.uniform(size=(T, B)) < 0.3
    batch = played()[2]._replace(reward=reward, value=value, done=done)
    expected = np.zeros((T, B))
    for t, b in np.ndindex(T, B):  # the sum of discounted errors to the end of the episode
        weight = 1.0
        for s in range(t, T):
            after = last[b] if s == T - 1 else value[s + 1, b]
            expected[t, b] += weight * (reward[s, b] + 0.9 * after * (1 - done[s, b]) - value[s, b])
            weight *= 0.9 * 0.8 * (1 - done[s, b])
    assert_allclose(
        ppo.advantages(settings, batch, jnp.asarray(last)), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("axis", ["memory", "rollout"])
def test_shuffled_rows_stay_together(axis):
    """A row of a minibatch has the state, time steps and advantages of one environment."""
    settings = ppo.PPO(environments=B, minibatches=2)
    rows = jnp.arange(B, dtype=jnp.float32)
    over_time = jnp.broadcast_to(rows, (T, B))
    whole = ppo.Minibatch(rows[:, None], ppo.Rollout(*[over_time] * 8), over_time)
    parts = ppo.shuffled(settings, jax.random.key(0), whole)
    assert sorted(parts.memory.ravel().tolist()) == rows.tolist()
    one = parts.memory[:, None, :, 0] if axis == "memory" else parts.rollout.value
    assert_allclose(parts.advantage, jnp.broadcast_to(one, (2, T, B // 2)))


@pytest.mark.slow
def test_a_gated_policy_learns_a_short_chain_and_one_without_memory_does_not(standard_promotion):
    env, settings = MemoryChain(), ppo.PPO(updates=30, horizon=32)
    for cell, low, high in ((lj.cells.GRU(16), 0.95, 1.0), (None, 0.3, 0.7)):
        policy, keys = ppo.Policy(cell, 16), jax.random.split(jax.random.key(0), 2)
        params = jax.vmap(lambda key, policy=policy: policy.init(key, env))(keys)
        rates = jnp.full(2, 3e-3)
        params, _ = ppo.train(env, policy, settings, AT, params, rates, keys)
        _, score = ppo.evaluate(env, policy, 64, AT, params, keys)
        assert low <= score.mean() <= high
