"""How far trained networks count, and how long they read a stream, for `gers`."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.common import networks
from lstm_jax.nn import SequenceSpec
from lstm_jax.report.ledger import Record
from lstm_jax.tasks import ContinualReber, Counting
from lstm_jax.training import Trials

TRACED = 1000  # symbols


def ranges(task: Counting, model: SequenceSpec, params: Any, trials: Trials) -> list[Record]:
    """Returns {"range"} of each trial: the largest N with all n to N accepted."""

    def one(params):
        batch = task.of(jnp.arange(1, task.longest + 1, dtype=jnp.int32))
        accepted = task.correct(model.apply(params, batch.x, mask=batch.mask), batch)
        return jnp.sum(jnp.cumprod(accepted))

    return [{"range": int(n)} for n in networks.of_each(one, params)]


def lasting(
    task: ContinualReber, sizes: tuple[int, int], model: SequenceSpec, params: Any, trials: Trials
) -> list[Record]:
    """Returns {"lasted", "cells"} of each trial, on `sizes` (streams, symbols).

    "lasted" are the symbols of each stream before its first error, the horizon at most; "cells" the
    mean |c| of all cells and streams after every window of the first `TRACED` symbols.
    """
    lasted, states = networks.of_each(lambda one: read(task, model, one, *sizes), params)
    digits = [[float(f"{v:.4g}") for v in row] for row in states]
    return [{"lasted": n.tolist(), "cells": c} for n, c in zip(lasted, digits, strict=True)]


def read(
    task: ContinualReber, model: SequenceSpec, params: Any, streams: int, horizon: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the symbols before an error [streams], and the mean |c| after each window.

    Reads until every stream has had its first error, or to the horizon.
    """

    def window(carry):
        k, (cursor, state), alive, lasted, states = carry
        cursor, batch = task.next(cursor)
        state, outputs = model.unroll(params, batch.x, state, reset=batch.reset)
        right = jnp.cumprod(task.right(outputs, batch), axis=0, dtype=jnp.int32)
        lasted = lasted + jnp.where(alive, jnp.sum(right, axis=0), 0)
        states = states.at[k].set(jnp.mean(jnp.abs(state[0].c)), mode="drop")  # once all is traced
        return k + 1, (cursor, state), alive & (right[-1] == 1), lasted, states

    def goes_on(carry):
        k, _, alive, *_ = carry
        return (jnp.any(alive) & (k < horizon // task.window)) | (k < TRACED // task.window)

    key = jax.random.key(0, impl="threefry2x32")  # of the common test streams
    start = task.begin(key, streams, "test"), model.initial_state(params, streams)
    none, alive = jnp.zeros(streams, jnp.int32), jnp.ones(streams, bool)
    carry = jnp.int32(0), start, alive, none, jnp.zeros(TRACED // task.window)
    return jax.lax.while_loop(goes_on, window, carry)[3:]
