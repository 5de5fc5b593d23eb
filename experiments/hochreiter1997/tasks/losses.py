"""The losses of 1997, whose gradients suit its learning rates."""

import jax
import jax.numpy as jnp
import optax

from lstm_jax.tasks import base
from lstm_jax.types import Array, wide


def half_squared_error(predictions: Array, targets: Array) -> Array:
    """Returns the mean over sequences of sum (prediction - target)^2 / 2; both [..., B, V].

    Its gradient with respect to a prediction is the error itself.
    """
    base.check_alike("targets", targets, predictions)
    dtype = wide(predictions.dtype)
    errors = predictions.astype(dtype) - targets.astype(dtype)
    return jnp.sum(errors**2) / (2 * predictions.shape[-2])


def logistic_errors(outputs: Array, targets: Array, cross_entropy: bool) -> Array:
    """Returns (sigmoid(output) - target)^2 / 2 of each output, or its cross entropy; [..., V].

    The gradient of the cross entropy with respect to an output is the error y - target, with
    y = sigmoid(output). The gradient of the square has the slope of the logistic function as a
    factor: it vanishes for an output that is saturated and wrong.
    """
    base.check_alike("targets", targets, outputs)
    outputs = outputs.astype(wide(outputs.dtype))
    targets = targets.astype(outputs.dtype)
    if cross_entropy:
        return optax.sigmoid_binary_cross_entropy(outputs, targets)
    return (jax.nn.sigmoid(outputs) - targets) ** 2 / 2
