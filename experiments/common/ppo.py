"""Recurrent proximal policy optimisation (Schulman et al. 2017), compiled as one program.

The staircase: a policy at one time step (`act`) and over time (`over_time`); one rollout; its
advantages; the loss of a minibatch; one update; a trial; many trials by `vmap`. A minibatch is
whole rows of a rollout, unrolled again from the state at its start, with resets where episodes
start. Rollouts act through `lj.step`, updates learn through `lj.unroll`.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import lstm_jax as lj
from experiments.common.environments import Environment, Params

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class PPO:
    """The settings of a trial; one compiled program for each."""

    updates: int = 100  # rollouts, each followed by `epochs` passes over it
    horizon: int = 128  # T, time steps of a rollout
    environments: int = 16  # B, played at once
    epochs: int = 4  # passes over a rollout
    minibatches: int = 2  # of a pass; they divide the environments
    discount: float = 0.99  # gamma of the return
    decay: float = 0.95  # lambda of generalised advantage estimation
    clip: float = 0.2  # of the probability ratio, on both sides of 1
    entropy: float = 0.01  # weight of the entropy in the loss
    value: float = 0.5  # weight of the value's squared error in the loss
    norm: float = 0.5  # the largest norm of a gradient

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam after clipping; the caller scales its steps by the learning rate."""
        return optax.chain(optax.clip_by_global_norm(self.norm), optax.scale_by_adam(eps=1e-5))


# The policy. --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Policy:
    """An encoder, a recurrent cell (or none), a layer, and heads for actions and value."""

    cell: lj.Cell | None  # the recurrent cell; None for a policy without memory
    hidden: int  # units of each layer
    engine: str = "auto"  # the loop over time

    def init(self, key: Array, environment: Environment, **start: Any) -> Any:
        """Returns initial parameters; `start` goes to `lj.init` of the cell."""
        keys = jax.random.split(key, 5)
        H, D, A = self.hidden, environment.observation_size, environment.num_actions
        params: dict[str, Any] = {
            "encoder": dense(keys[0], D, H),
            "layer": dense(keys[1], H, H),
            "actor": dense(keys[2], H, A, 0.01),
            "critic": dense(keys[3], H, 1),
        }
        if self.cell is not None:
            params["cell"] = lj.init(self.cell, keys[4], H, **start)
        return params

    def begin(self, rows: int) -> Any:
        """Returns the state at the start of an episode."""
        return () if self.cell is None else lj.initial_state(self.cell, rows)

    def act(self, params: Any, state: Any, observation: Array, reset: Array) -> Any:
        """Returns the next state, the logits [B, A] and the value [B] of one time step."""
        h = jnp.tanh(apply(params["encoder"], observation))
        if self.cell is not None:
            state, h = lj.step(self.cell, params["cell"], state, h, reset_t=reset)
        return state, *self.heads(params, h)

    def over_time(self, params: Any, state: Any, observation: Array, reset: Array) -> Any:
        """Returns the logits [T, B, A] and the values [T, B] of a rollout: `act` in a loop."""
        h = jnp.tanh(apply(params["encoder"], observation))
        if self.cell is not None:
            _, h = lj.unroll(self.cell, params["cell"], h, state, reset=reset, engine=self.engine)
        return self.heads(params, h)

    def heads(self, params: Any, h: Array) -> tuple[Array, Array]:
        """Returns logits and value."""
        h = jnp.tanh(apply(params["layer"], h))
        return apply(params["actor"], h), apply(params["critic"], h)[..., 0]


def dense(key: Array, rows: int, columns: int, scale: float = 1.0) -> dict[str, Array]:
    """Returns an orthogonal layer."""
    weights = lj.initializers.orthogonal(scale)(key, (rows, columns))
    return {"w": weights, "b": jnp.zeros(columns)}


def apply(layer: dict[str, Array], x: Array) -> Array:
    """Returns x w + b."""
    y = jnp.einsum("...d,dh->...h", x, layer["w"])
    return y + jnp.broadcast_to(layer["b"], y.shape)


# A rollout. ---------------------------------------------------------------------------------------


class Playing(NamedTuple):
    """B environments between two time steps, and the policy's state."""

    state: Any
    observation: Array
    reset: Array
    memory: Any
    key: Array


class Rollout(NamedTuple):
    """Time steps of B environments, each [T, B]; an observation with `reset` starts an episode."""

    observation: Array
    reset: Array
    action: Array
    log_prob: Array
    value: Array
    reward: Array
    done: Array
    score: Array


def start(environment: Environment, policy: Policy, rows: int, at: Params, key: Array) -> Playing:
    """Returns fresh episodes."""
    key, first = jax.random.split(key)
    reset = functools.partial(environment.reset, params=at)
    observation, state = jax.vmap(reset)(jax.random.split(first, rows))
    return Playing(state, observation, jnp.ones(rows, bool), policy.begin(rows), key)


def play(
    environment: Environment, policy: Policy, at: Params, params: Any, playing: Playing,
    greedy: bool = False,
) -> tuple[Playing, Rollout]:  # fmt: skip
    """Plays one time step: the most probable action if `greedy`, else a sample."""
    key, key_action, key_step = jax.random.split(playing.key, 3)
    seen = playing.observation, playing.reset
    memory, logits, value = policy.act(params, playing.memory, *seen)
    action = jnp.argmax(logits, -1) if greedy else jax.random.categorical(key_action, logits)
    step = jax.vmap(functools.partial(environment.step, params=at))
    keys = jax.random.split(key_step, len(action))
    observation, state, reward, done, info = step(keys, playing.state, action)
    log_prob = log_probability(logits, action)
    done_now = Rollout(*seen, action, log_prob, value, reward, done, info["score"])
    return Playing(state, observation, done, memory, key), done_now


def rollout(
    environment: Environment, policy: Policy, steps: int, at: Params, params: Any, playing: Playing
) -> tuple[Playing, Rollout]:
    """Plays `steps` time steps of all environments."""

    def one(playing, _):
        return play(environment, policy, at, params, playing)

    return jax.lax.scan(one, playing, length=steps)


def log_probability(logits: Array, action: Array) -> Array:
    """Returns log p(action)."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), action[..., None], -1)[..., 0]


def advantages(settings: PPO, batch: Rollout, last: Array) -> Array:
    """Returns generalised advantages [T, B] (Schulman et al. 2016).

        delta_t = r_t + gamma V_{t+1} (1 - done_t) - V_t
        A_t     = delta_t + gamma lambda (1 - done_t) A_{t+1}

    Args:
      settings: has gamma and lambda.
      batch: a rollout.
      last: [B] the value after its last time step.
    """

    def one(after, step):
        advantage, value = after
        left = settings.discount * (1 - jnp.float32(step.done))
        delta = step.reward + left * value - step.value
        advantage = delta + left * settings.decay * advantage
        return (advantage, step.value), advantage

    return jax.lax.scan(one, (jnp.zeros_like(last), last), batch, reverse=True)[1]


# Learning. ----------------------------------------------------------------------------------------


class Minibatch(NamedTuple):
    """Whole rows of a rollout, with the policy's state at its start."""

    memory: Any
    rollout: Rollout
    advantage: Array


def loss(policy: Policy, settings: PPO, params: Any, given: Minibatch) -> Array:
    """Returns PPO's loss: clipped surrogate, squared error of the value, and entropy."""
    old, target = given.rollout, given.advantage + given.rollout.value
    logits, value = policy.over_time(params, given.memory, old.observation, old.reset)
    advantage = (given.advantage - given.advantage.mean()) / (given.advantage.std() + 1e-8)
    ratio = jnp.exp(log_probability(logits, old.action) - old.log_prob)
    clipped = jnp.clip(ratio, 1 - settings.clip, 1 + settings.clip)
    surrogate = jnp.minimum(ratio * advantage, clipped * advantage).mean()
    log_probs = jax.nn.log_softmax(logits)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    error = 0.5 * jnp.square(value - target).mean()
    return settings.value * error - surrogate - settings.entropy * entropy


def shuffled(settings: PPO, key: Array, whole: Minibatch) -> Minibatch:
    """Returns the rows in random order, split into minibatches along a new first axis."""
    order = jax.random.permutation(key, settings.environments).reshape(settings.minibatches, -1)
    parts = jax.tree.map(lambda a: jnp.moveaxis(a[:, order], 1, 0), whole[1:])
    return Minibatch(jax.tree.map(lambda a: a[order], whole.memory), *parts)


class Learning(NamedTuple):
    """A trial between two updates."""

    params: Any
    moments: Any
    playing: Playing


def learn(
    policy: Policy, settings: PPO, rate: Array, params: Any, moments: Any, whole: Minibatch,
    key: Array,
) -> tuple[Any, Any]:  # fmt: skip
    """Returns parameters and moments after all epochs over a rollout."""

    def step(carry, part):
        params, moments = carry
        grads = jax.grad(functools.partial(loss, policy, settings))(params, part)
        changes, moments = settings.optimizer.update(grads, moments)
        return (jax.tree.map(lambda p, c: p - rate * c, params, changes), moments), None

    def epoch(carry, key):
        return jax.lax.scan(step, carry, shuffled(settings, key, whole))

    keys = jax.random.split(key, settings.epochs)
    return jax.lax.scan(epoch, (params, moments), keys)[0]


def update(
    environment: Environment, policy: Policy, settings: PPO, at: Params, rate: Array, now: Learning
) -> tuple[Learning, Array]:
    """Returns the trial after one update, and [episodes, return, score] summed over its rollout."""
    memory = now.playing.memory
    playing, batch = rollout(environment, policy, settings.horizon, at, now.params, now.playing)
    last = policy.act(now.params, playing.memory, playing.observation, playing.reset)[2]
    whole = Minibatch(memory, batch, advantages(settings, batch, last))
    key, key_learn = jax.random.split(playing.key)
    params, moments = learn(policy, settings, rate, now.params, now.moments, whole, key_learn)
    sums = jnp.stack([jnp.float32(batch.done).sum(), batch.reward.sum(), batch.score.sum()])
    return Learning(params, moments, playing._replace(key=key)), sums


def trial(
    environment: Environment, policy: Policy, settings: PPO, at: Params, params: Any, rate: Array,
    key: Array,
) -> tuple[Any, Array]:  # fmt: skip
    """Returns trained parameters, and the sums of every update, [updates, 3]."""
    playing = start(environment, policy, settings.environments, at, key)
    begin = Learning(params, settings.optimizer.init(params), playing)

    def one(now, _):
        return update(environment, policy, settings, at, rate, now)

    end, sums = jax.lax.scan(one, begin, length=settings.updates)
    return end.params, sums


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def train(
    environment: Environment, policy: Policy, settings: PPO, at: Params, params: Any,
    learning_rates: Array, keys: Array,
) -> tuple[Any, Array]:  # fmt: skip
    """Trains R trials in one program: `trial` for each row of the last three arguments."""
    one = functools.partial(trial, environment, policy, settings, at)
    return jax.vmap(one)(params, learning_rates, keys)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def evaluate(
    environment: Environment, policy: Policy, episodes: int, at: Params, params: Any, keys: Array
) -> tuple[Array, Array]:
    """Returns mean return and mean score [R] of greedy policies on one fresh episode a row."""

    def one(params, key):
        def step(carry):
            playing, ended, totals = carry
            playing, now = play(environment, policy, at, params, playing, greedy=True)
            gained = jnp.where(ended, 0.0, jnp.stack([now.reward, now.score]))
            return playing, ended | now.done, totals + gained

        playing = start(environment, policy, episodes, at, key)
        begin = playing, jnp.zeros(episodes, bool), jnp.zeros((2, episodes))
        return jax.lax.while_loop(lambda carry: ~carry[1].all(), step, begin)[2].mean(1)

    return tuple(jax.vmap(one)(params, keys).T)
