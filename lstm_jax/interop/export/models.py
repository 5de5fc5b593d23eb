"""The model that an export takes: a specification with its parameters, and the scale of inputs."""

from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_jax.interop.model_files import check_params
from lstm_jax.nn import SequenceSpec


class Exported(NamedTuple):
    """A model to export.

    Attributes:
      spec: its specification.
      params: its parameters.
      scale: (mean, deviation), each [D]; inputs are scaled by them, and 0 where they are NaN. None
        for inputs as they are.
      held: whether a time step without any number holds the state.
    """

    spec: SequenceSpec
    params: Any
    scale: tuple[Any, Any] | None = None
    held: bool = False


def exported(model: Any) -> Exported:
    """Returns what to export of a pair (spec, params), or of a trained network with its task.

    Raises:
      TypeError: `model` is neither.
      ValueError: it is several networks, the parameters are not those of the specification, or its
        task does more to inputs than to scale them.
    """
    parts = Exported(*model) if isinstance(model, tuple) and len(model) == 2 else _trained(model)
    check_params(parts.spec, parts.params)
    features = parts.spec.input_size if parts.scale is None else len(parts.scale[0])
    if features != parts.spec.input_size:
        raise ValueError(
            f"model must have inputs of the {features} features of its data alone, got "
            f"{parts.spec.input_size}: export (spec, params), whose inputs are those of a batch"
        )
    return parts


def _trained(model: Any) -> Exported:
    spec = getattr(model, "model", None)
    if not isinstance(spec, SequenceSpec) or not hasattr(model, "params"):
        raise TypeError(
            "model must be a pair (spec, params), or a trained network of a SequenceSpec, got "
            f"{model!r}"
        )
    networks = len(jax.tree.leaves(model.params)[0])
    if networks != 1:
        raise ValueError(f"model must be one network, such as `result.best()`, got {networks}")
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[0], model.params)
    scale, held = (getattr(model.task, name, None) for name in ("input_scale", "holds_missing"))
    return Exported(spec, params, scale, bool(held))
