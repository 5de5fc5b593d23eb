"""Causes of divergence: codes for the compiled loop, and a sentence for each code."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.tasks.base import Task
from lstm_jax.training.agreement import zero_outputs
from lstm_jax.types import Array, Batch

RUNNING, SOLVED, LOSS, GRADIENT, UPDATE, INPUTS, SYMBOLS, TARGETS, LABELS, STOPPED = range(10)

STATUS = np.array(["finished", "solved"] + ["diverged"] * 7 + ["stopped"])
REASONS = {
    LOSS: "the loss is not finite at step {step}",
    GRADIENT: "the gradient is not finite at step {step}",
    UPDATE: "the update of step {step} is not finite",
    INPUTS: "non-finite inputs in the batch of step {step}",
    SYMBOLS: "symbols outside 0..{symbols} in the batch of step {step}",
    TARGETS: "non-finite targets in the batch of step {step}",
    LABELS: "labels outside 0..{labels} in the batch of step {step}",
}


def cause(loss: Array, gradients: Any) -> Array:
    """Returns the code of a failed step: the first of loss, gradient and update not finite."""
    updated = jnp.where(all_finite(gradients), jnp.int32(UPDATE), jnp.int32(GRADIENT))
    return jnp.where(jnp.isfinite(loss), updated, jnp.int32(LOSS))


def all_finite(tree: Any) -> Array:
    """Returns whether every float in a tree is finite, a bool scalar."""
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree) if _is_float(leaf)]
    return functools.reduce(jnp.logical_and, finite, jnp.bool_(True))


def batch_fault(task: Task, batch: Batch) -> Array:
    """Returns the code of the fault in a batch, or `RUNNING` if it has none.

    Masked values do not count. The targets are at fault if outputs of zero have no finite loss on
    them, and have one on targets mended into their range.
    """
    mended = batch._replace(y=_mended(task, batch.y))
    blamed = ~_finite_loss(task, batch) & _finite_loss(task, mended)
    fault = jnp.where(all_finite(batch.y), jnp.int32(LABELS), jnp.int32(TARGETS))
    code = jnp.where(blamed, fault, jnp.int32(RUNNING))
    for x in jax.tree.leaves(batch.x):
        fault = INPUTS if _is_float(x) else SYMBOLS
        wrong = ~jnp.isfinite(x) if _is_float(x) else (x < 0) | (x >= task.input_size)
        code = jnp.where(_shown(wrong, batch.mask).any(), jnp.int32(fault), code)
    return code


def reason(task: Task, code: int, step: int) -> str:
    """Returns the sentence for a code, "" for a trial that did not diverge."""
    sizes = {"symbols": task.input_size - 1, "labels": task.output_size - 1}
    return REASONS.get(code, "").format(step=step, **sizes)


def _finite_loss(task: Task, batch: Batch) -> Array:
    return jnp.isfinite(task.loss(zero_outputs(task, batch), batch))


def _mended(task: Task, y: Any) -> Any:
    """Returns the targets with numbers that are finite and labels in 0..V-1."""

    def mended(leaf):
        if _is_float(leaf):
            return jnp.nan_to_num(leaf, posinf=0, neginf=0)
        is_label = jnp.issubdtype(jnp.result_type(leaf), jnp.integer)
        return jnp.clip(leaf, 0, task.output_size - 1) if is_label else leaf

    return jax.tree.map(mended, y)


def _shown(wrong: Array, mask: Any) -> Array:
    if mask is None:
        return wrong
    return wrong & jnp.expand_dims(jnp.asarray(mask, bool), range(2, wrong.ndim))


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
