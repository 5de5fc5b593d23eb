"""Environments: ceilings without memory by enumeration, optima by hand, resets, peers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from experiments.common.environments import (
    ENVIRONMENTS,
    MemoryChain,
    Params,
    RepeatPrevious,
    TMaze,
)

AT = Params(jnp.int32(4))


def optimum(name, state):
    """The best action, from the state that a policy must remember."""
    cards = RepeatPrevious()
    return {
        "t_maze": lambda s: jnp.where(s.position >= AT.length, s.arm + 1, 0),
        "memory_chain": lambda s: s.bit,
        "umbrella_chain": lambda s: s.need,
        "repeat_previous": lambda s: cards.symbol(s, s.time - AT.length),
        "masked_cartpole": lambda s: jnp.int32(s.motion @ jnp.array([0.1, 0.3, 3.0, 1.0]) > 0),
    }[name](state)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_policy_that_sees_the_state_scores_one(name):
    env = ENVIRONMENTS[name]

    def one(carry, key):
        state, total, ended = carry
        _, state, _, done, info = env.step(key, state, optimum(name, state), AT)
        return (state, total + jnp.where(ended, 0.0, info["score"]), ended | done), None

    @jax.jit
    def episode(key):
        first = env.reset(key, AT)[1], jnp.float32(0), jnp.bool(False)
        return jax.lax.scan(one, first, jax.random.split(key, 201))[0][1:]

    score, ended = jax.vmap(episode)(jax.random.split(jax.random.key(0), 8))
    assert ended.all()
    assert_allclose(score, 1, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 3])
def test_no_policy_without_memory_beats_the_ceiling_of_the_t_maze(length):
    """All maps from its four observations to its three actions, on both arms."""
    env, at = TMaze(), Params(jnp.int32(length))
    tables = jnp.array(list(itertools.product(range(3), repeat=4)))
    seen = jnp.array([[-1.0, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]])

    def episode(table, arm):
        state = env.reset(jax.random.key(0), at)[1]
        state = state._replace(arm=arm)
        first = env.observe(state, at), state, jnp.float32(0), jnp.bool(False)

        def one(carry, _):
            observation, state, score, ended = carry
            known = (seen == observation[None]).all(1)
            action = table[jnp.argmax(known)]
            observation, state, _, done, info = env.step_env(jax.random.key(0), state, action, at)
            gained = jnp.where(ended, 0.0, info["score"])
            score = jnp.where(known.any(), score + gained, jnp.nan)  # no other observation
            return (observation, state, score, ended | done), None

        return jax.lax.scan(one, first, length=3 * length + 10)[0][2]

    scores = jax.jit(jax.vmap(jax.vmap(episode, (None, 0)), (0, None)))(tables, jnp.arange(2))
    assert scores.mean(1).max() == TMaze.memoryless


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_end_of_an_episode_starts_the_next_one(name):
    env = ENVIRONMENTS[name]
    step = jax.jit(env.step)
    key = jax.random.key(0)
    observation, state = env.reset(key, AT)
    assert observation.shape == (len(env.features),) == (env.observation_size,)
    for n in range(250):
        key = jax.random.key(n)
        observation, state, _, done, _ = step(key, state, jnp.int32(1), AT)
        if done:
            break
    fresh = env.reset(jax.random.split(key)[1], AT)
    for found, expected in zip(
        jax.tree.leaves((observation, state)), jax.tree.leaves(fresh), strict=True
    ):
        assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "peer"), [("memory_chain", "MemoryChain"), ("umbrella_chain", "UmbrellaChain")]
)
def test_chains_are_those_of_gymnax(name, peer, standard_promotion):
    """Observations and ends at each time step; rewards at the end, as those before may be noise."""
    gymnax = pytest.importorskip("gymnax")
    theirs = getattr(gymnax.environments, peer)()
    names = {"MemoryChain": "memory_length", "UmbrellaChain": "chain_length"}
    at, ours = theirs.default_params.replace(**{names[peer]: 4}), ENVIRONMENTS[name]
    for n, action in itertools.product(range(4), range(2)):
        expected, other = theirs.reset_env(jax.random.key(n), at)
        _, mine = ours.reset_env(jax.random.key(n), AT)
        mine = (
            mine._replace(bit=other.context[0])
            if isinstance(ours, MemoryChain)
            else mine._replace(need=other.need_umbrella, has=other.has_umbrella)
        )
        found = ours.observe(mine, AT)
        while True:
            assert_allclose(found, expected)
            found, mine, reward, done, _ = ours.step_env(
                jax.random.key(n), mine, jnp.int32(action), AT
            )
            expected, other, gain, ended, _ = theirs.step_env(jax.random.key(n), other, action, at)
            assert bool(done) == bool(ended)
            if done:
                break
        assert reward == gain


def test_the_physics_are_those_of_gymnasium():
    gymnasium = pytest.importorskip("gymnasium")
    theirs, ours = gymnasium.make("CartPole-v1").unwrapped, ENVIRONMENTS["masked_cartpole"]
    start, _ = theirs.reset(seed=0)
    _, state = ours.reset(jax.random.key(0), AT)
    state = state._replace(motion=jnp.asarray(start))
    for action in (0, 1, 1, 1, 0, 1):
        expected = theirs.step(action)[0]
        seen, state, *_ = ours.step_env(jax.random.key(0), state, jnp.int32(action), AT)
        assert_allclose(state.motion, expected, rtol=1e-4, atol=1e-6)
        assert_array_equal(seen, np.asarray(state.motion)[[0, 2]])
