"""Optimisers of one trial: optax transformations of its traced hyperparameters."""

import functools
from collections.abc import Callable
from inspect import isfunction, signature
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lstm_jax.checks import check_choice
from lstm_jax.training.trials import Trials
from lstm_jax.types import Array

# A name, or a hashable function of a trial, whose fields are traced scalars.
Optimizer = str | Callable[[Trials], optax.GradientTransformation]

LARGEST = 1e18  # a number whose square is finite in float32


def _squaring(direction: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns `direction` with finite gradients clipped to `LARGEST`: their squares are finite."""

    def cut(g):
        return jnp.where(jnp.isfinite(g), jnp.clip(g, -LARGEST, LARGEST), g)

    def update(gradients, state, params=None):
        return direction.update(jax.tree.map(cut, gradients), state, params)

    return optax.GradientTransformation(direction.init, update)  # pyright: ignore[reportArgumentType]


DIRECTIONS: dict[str, Callable[[Trials], optax.GradientTransformation]] = {
    "sgd": lambda trial: optax.identity(),
    "momentum": lambda trial: optax.trace(decay=trial.b1),
    "nesterov": lambda trial: optax.chain(
        optax.trace(decay=trial.b1, nesterov=True), optax.scale(1 - trial.b1)
    ),
    "rmsprop": lambda trial: _squaring(optax.scale_by_rms(decay=trial.b2)),
    "adam": lambda trial: _squaring(optax.scale_by_adam(b1=trial.b1, b2=trial.b2)),
    "adamw": lambda trial: _squaring(optax.scale_by_adam(b1=trial.b1, b2=trial.b2)),
}


def make(optimizer: Optimizer, trial: Trials) -> optax.GradientTransformation:
    """Returns the optimiser of one trial; a function is called with the trial.

    A name gives p <- p - learning_rate (direction(clipped gradient) + weight_decay p), where the
    gradient g is clipped by its global norm, g min(1, clip / |g|). The direction is
      sgd: g;
      momentum: m, with m <- b1 m + g (Polyak 1964);
      nesterov: (1 - b1) (b1 m + g), m as above (Sutskever et al. 2013), scaled so that b1 changes
        the memory of steps and not their size (Greff et al. 2017);
      rmsprop: g / sqrt(v + 1e-8), with v <- b2 v + (1 - b2) g^2 from v = 0 (Tieleman & Hinton
        2012, with b2 = 0.9);
      adam, adamw: m / (sqrt(v) + 1e-8), bias-corrected (Kingma & Ba 2015). The two are equal here,
        since every optimiser decouples its weight decay (Loshchilov & Hutter 2019).

    After t updates, `warmup` multiplies the learning rate by min((t + 1) / warmup, 1), and `decay`
    by (1 + cos(pi min(t / decay, 1))) / 2 (Loshchilov & Hutter 2017, without restarts). Weight
    decay applies to arrays of two axes or more: matrices and tables, not biases, scales, peepholes
    or learned initial states. All numbers are traced, so one compilation serves every value.

    Raises:
      ValueError: the name is unknown.
    """
    if callable(optimizer):
        return optimizer(trial)
    check_choice("optimizer", optimizer, DIRECTIONS)
    return optax.chain(
        clip_by_global_norm(trial.clip),
        DIRECTIONS[optimizer](trial),
        optax.add_decayed_weights(trial.weight_decay, mask=_matrices),
        optax.scale_by_learning_rate(_rate(trial)),
    )


def clip_by_global_norm(limit: float | Array) -> optax.GradientTransformation:
    """Returns optax's g min(1, limit / |g|), without overflow for any finite g."""

    def clip(gradients, params):
        scaled, scale = _scaled(gradients)
        norm = optax.tree.norm(scaled)

        def clipped(s, g):
            return jnp.where(scale * norm > limit, s / norm * limit, g).astype(g.dtype)

        return jax.tree.map(clipped, scaled, gradients)

    return optax.stateless(clip)


def _scaled(tree: Any) -> tuple[Any, Array]:
    """Returns a tree divided by a power of two near its largest number, and that power.

    The division is exact. The power and its inverse are normal numbers.
    """
    sizes = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(tree)]
    largest = functools.reduce(jnp.maximum, [size.astype(jnp.float32) for size in sizes])
    exponent = jnp.clip(jnp.frexp(largest)[1], -100, 100)
    scale = jnp.ldexp(jnp.float32(1), exponent)
    return jax.tree.map(lambda leaf: leaf / scale.astype(leaf.dtype), tree), scale


def _rate(trial: Trials) -> optax.ScalarOrSchedule:
    if trial.decay is None and trial.warmup is None:
        return trial.learning_rate
    falls = optax.cosine_decay_schedule(trial.learning_rate, 1)  # optax takes no traced length

    def rate(t):
        fallen = trial.learning_rate if trial.decay is None else falls(t / trial.decay)
        return fallen if trial.warmup is None else fallen * jnp.minimum((t + 1) / trial.warmup, 1)

    return rate


def _matrices(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def describe(optimizer: Optimizer) -> str:
    """Returns the name of an optimiser in the settings of a run."""
    if isinstance(optimizer, str):
        return optimizer
    kind = optimizer if hasattr(optimizer, "__qualname__") else type(optimizer)
    return f"{kind.__module__}.{kind.__qualname__}"


def check(optimizer: Optimizer) -> None:
    """Raises an error unless the optimiser is a known name or a function of a trial."""
    if isinstance(optimizer, str):
        check_choice("optimizer", optimizer, DIRECTIONS)
    elif isfunction(optimizer) and "learning_rate" in signature(optimizer).parameters:
        right = f"lambda trial: optax.{optimizer.__name__}(trial.learning_rate)"
        raise TypeError(f"optimizer must be a function of a trial, such as {right}")
    elif not callable(optimizer) or isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            "optimizer must be a name or a function of a trial that returns a "
            f"GradientTransformation, got {optimizer!r}"
        )
