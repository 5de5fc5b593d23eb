"""Environments that need memory, as pure functions with gymnax's protocol.

`reset(key, params)` returns an observation and a state. `step(key, state, action, params)` returns
observation, state, reward, done and info, and starts the next episode after the end of one.
`params.length` is traced, so one compiled program serves all lengths. `info["score"]` sums up to
the score of an episode: 1 is the optimum of every environment.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Info = Mapping[str, Array]


class Params(NamedTuple):
    """The size of a problem: the number of steps to remember."""

    length: Any = 10


@dataclasses.dataclass(frozen=True)
class Environment:
    """An environment with automatic resets; a subclass has one episode."""

    observation_size: ClassVar[int]  # entries of an observation
    num_actions: ClassVar[int]  # of a time step
    # the best expected score of a policy without memory; None where it is unknown
    memoryless: ClassVar[float | None]
    features: ClassVar[tuple[str, ...]]  # a name for each entry of an observation

    def reset(self, key: Array, params: Params) -> tuple[Array, Any]:
        """Returns the first observation of an episode and its state."""
        return self.reset_env(key, params)

    def step(
        self, key: Array, state: Any, action: Array, params: Params
    ) -> tuple[Array, Any, Array, Array, Info]:
        """Returns `step_env`, with the start of the next episode at the end of one."""
        key_step, key_reset = jax.random.split(key)
        *now, reward, done, info = self.step_env(key_step, state, action, params)
        fresh = self.reset_env(key_reset, params)
        observation, state = jax.tree.map(lambda f, n: jnp.where(done, f, n), fresh, tuple(now))
        return observation, state, reward, done, info

    def reset_env(self, key: Array, params: Params) -> tuple[Array, Any]:
        """Returns the first observation and state."""
        raise NotImplementedError

    def step_env(
        self, key: Array, state: Any, action: Array, params: Params
    ) -> tuple[Array, Any, Array, Array, Info]:
        """Returns observation, state, reward, done and info, without a reset."""
        raise NotImplementedError

    def observe(self, state: Any, params: Params) -> Array:
        """Returns the observation in a state."""
        raise NotImplementedError


class Maze(NamedTuple):
    """The arm of the reward (0 or 1), the position, and the time step."""

    arm: Array
    position: Array
    time: Array


@dataclasses.dataclass(frozen=True)
class TMaze(Environment):
    """A corridor with a cue at its start, which names the right one of two arms at its end.

    Actions are forward and the two arms. The reward is 1 for the right arm, and -0.1 for the wrong
    arm or a step without effect. An episode ends in an arm, or after 3 length + 10 steps.

    Source: Bakker 2002, with its rewards of 4 and -0.1.
    """

    observation_size: ClassVar = 3
    num_actions: ClassVar = 3
    memoryless: ClassVar = 0.5
    features: ClassVar = ("cue", "corridor", "junction")

    def reset_env(self, key, params):
        """Returns the first observation and state."""
        zero = jnp.int32(0)
        state = Maze(jax.random.bernoulli(key).astype(jnp.int32), zero, zero)
        return self.observe(state, params), state

    def step_env(self, key, state, action, params):
        """Returns observation, state, reward, done and info, without a reset."""
        at_junction = state.position >= params.length
        forward = (action == 0) & ~at_junction
        chosen = (action > 0) & at_junction
        right = chosen & (action - 1 == state.arm)
        state = Maze(state.arm, state.position + jnp.int32(forward), state.time + 1)
        done = chosen | (state.time >= 3 * params.length + 10)
        reward = jnp.where(right, 1.0, jnp.where(forward, 0.0, -0.1))
        return self.observe(state, params), state, reward, done, {"score": jnp.float32(right)}

    def observe(self, state: Maze, params: Params) -> Array:
        """Returns the cue (at the start only), and whether here is corridor or junction."""
        cue = jnp.where(state.position == 0, 2 * state.arm - 1, 0)
        at_junction = state.position >= params.length
        return jnp.stack([jnp.float32(cue), jnp.float32(~at_junction), jnp.float32(at_junction)])


class Chain(NamedTuple):
    """The bit to recall, and the time step."""

    bit: Array
    time: Array


@dataclasses.dataclass(frozen=True)
class MemoryChain(Environment):
    """The bit at the start is the right action after `length` more steps, for a reward of 1 or -1.

    As in bsuite, the observation after an action is that of the time step before it, so the bit
    appears twice.

    Source: Osband et al. 2020, with one bit.
    """

    observation_size: ClassVar = 3
    num_actions: ClassVar = 2
    memoryless: ClassVar = 0.5
    features: ClassVar = ("time left", "query", "bit")

    def reset_env(self, key, params):
        """Returns the first observation and state."""
        state = Chain(jax.random.bernoulli(key).astype(jnp.int32), jnp.int32(0))
        return self.observe(state, params), state

    def step_env(self, key, state, action, params):
        """Returns observation, state, reward, done and info, without a reset."""
        done = state.time >= params.length
        right = done & (action == state.bit)
        reward = jnp.where(done, jnp.where(right, 1.0, -1.0), 0.0)
        observation = self.observe(state, params)
        state = Chain(state.bit, state.time + 1)
        return observation, state, reward, done, {"score": jnp.float32(right)}

    def observe(self, state: Chain, params: Params) -> Array:
        """Returns the time left, the query (bit 0, so always 0), and the bit at the start."""
        left = 1 - jnp.float32(state.time) / jnp.float32(params.length)
        bit = jnp.where(state.time == 0, 2 * state.bit - 1, 0)
        return jnp.stack([left, jnp.float32(0), jnp.float32(bit)])


class Umbrella(NamedTuple):
    """Whether an umbrella is needed and held (0 or 1), and the time step."""

    need: Array
    has: Array
    time: Array


@dataclasses.dataclass(frozen=True)
class UmbrellaChain(Environment):
    """The first action takes an umbrella or not; after `length` noisy rewards it proves right.

    Need and possession are always visible: credit over time is hard here, not memory.

    Source: Osband et al. 2020, without distractors.
    """

    observation_size: ClassVar = 3
    num_actions: ClassVar = 2
    memoryless: ClassVar = 1.0
    features: ClassVar = ("need", "has", "time left")

    def reset_env(self, key, params):
        """Returns the first observation and state."""
        need, has = jax.random.bernoulli(key, shape=(2,)).astype(jnp.int32)
        state = Umbrella(need, has, jnp.int32(0))
        return self.observe(state, params), state

    def step_env(self, key, state, action, params):
        """Returns observation, state, reward, done and info, without a reset."""
        has = jnp.where(state.time == 0, action, state.has)
        state = Umbrella(state.need, has, state.time + 1)
        done = state.time >= params.length
        right = done & (has == state.need)
        noise = 2 * jnp.float32(jax.random.bernoulli(key)) - 1
        reward = jnp.where(done, jnp.where(right, 1.0, -1.0), noise)
        return self.observe(state, params), state, reward, done, {"score": jnp.float32(right)}

    def observe(self, state: Umbrella, params: Params) -> Array:
        """Returns need, possession and the time left."""
        left = 1 - jnp.float32(state.time) / jnp.float32(params.length)
        return jnp.stack([jnp.float32(state.need), jnp.float32(state.has), left])


class Cards(NamedTuple):
    """The seed of all symbols of an episode, and the time step."""

    seed: Array
    time: Array


@dataclasses.dataclass(frozen=True)
class RepeatPrevious(Environment):
    """The right action is the symbol of `length` steps ago, at `asked` steps of an episode.

    The reward is 1/asked for a right answer, and -1/asked for a wrong one.

    Source: Morad et al. 2023, with `asked` and `length` free.
    """

    asked: int = 16

    observation_size: ClassVar = 4
    num_actions: ClassVar = 4
    memoryless: ClassVar = 0.25
    features: ClassVar = ("0", "1", "2", "3")

    def reset_env(self, key, params):
        """Returns the first observation and state."""
        state = Cards(jax.random.bits(key), jnp.int32(0))
        return self.observe(state, params), state

    def step_env(self, key, state, action, params):
        """Returns observation, state, reward, done and info, without a reset."""
        asked = state.time >= params.length
        right = asked & (action == self.symbol(state, state.time - params.length))
        reward = jnp.where(asked, jnp.where(right, 1.0, -1.0), 0.0) / self.asked
        state = Cards(state.seed, state.time + 1)
        done = state.time >= params.length + self.asked
        score = jnp.float32(right) / self.asked
        return self.observe(state, params), state, reward, done, {"score": score}

    def observe(self, state: Cards, params: Params) -> Array:
        """Returns the symbol of now, one-hot."""
        return jax.nn.one_hot(self.symbol(state, state.time), self.num_actions)

    def symbol(self, state: Cards, time: Array) -> Array:
        """Returns the symbol at a time step, drawn from the seed: no history is stored."""
        key = jax.random.fold_in(jax.random.key(state.seed), time)
        return jax.random.randint(key, (), 0, self.num_actions)


class Cart(NamedTuple):
    """Position, velocity, angle and angular velocity; the time step."""

    motion: Array
    time: Array


@dataclasses.dataclass(frozen=True)
class MaskedCartPole(Environment):
    """CartPole with hidden velocities: balance a pole for `limit` steps by pushes left and right.

    The physics are those of gymnasium's CartPole-v1. A step gives 1/limit. The end at the limit
    counts as an end like any other.

    Source: Barto, Sutton & Anderson 1983; without velocities, Wierstra et al. 2007.
    """

    limit: int = 200

    observation_size: ClassVar = 2
    num_actions: ClassVar = 2
    memoryless: ClassVar = None
    features: ClassVar = ("position", "angle")

    def reset_env(self, key, params):
        """Returns the first observation and state."""
        state = Cart(jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05), jnp.int32(0))
        return self.observe(state, params), state

    def step_env(self, key, state, action, params):
        """Returns observation, state, reward, done and info, without a reset."""
        motion = moved(state.motion, action)
        state = Cart(motion, state.time + 1)
        fallen = (jnp.abs(motion[0]) > 2.4) | (jnp.abs(motion[2]) > 12 * np.pi / 180)
        done = fallen | (state.time >= self.limit)
        reward = jnp.float32(1 / self.limit)
        return self.observe(state, params), state, reward, done, {"score": reward}

    def observe(self, state: Cart, params: Params) -> Array:
        """Returns the position and the angle."""
        return state.motion[::2]


def moved(motion: Array, action: Array) -> Array:
    """Returns the motion of cart and pole after a push of 10 N for 0.02 s, by Euler's method."""
    _, speed, angle, spin = motion
    push = jnp.where(action == 1, 10.0, -10.0)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    pull = (push + 0.05 * spin**2 * sine) / 1.1  # pole: 0.1 kg, half length 0.5 m; together 1.1 kg
    turn = (9.8 * sine - cosine * pull) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
    push = pull - 0.05 * turn * cosine / 1.1
    return motion + 0.02 * jnp.stack([speed, push, spin, turn])


ENVIRONMENTS: Mapping[str, Environment] = {
    "t_maze": TMaze(),
    "memory_chain": MemoryChain(),
    "umbrella_chain": UmbrellaChain(),
    "repeat_previous": RepeatPrevious(),
    "masked_cartpole": MaskedCartPole(),
}
