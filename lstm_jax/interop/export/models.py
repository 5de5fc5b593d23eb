"""The model that an export takes: a specification with its parameters."""

from typing import Any

from lstm_jax.interop.model_files import check_params
from lstm_jax.nn import SequenceSpec


def spec_and_params(model: Any) -> tuple[SequenceSpec, Any]:
    """Returns the specification and the parameters of a pair, or of an object that holds both.

    Raises:
      TypeError: `model` is neither; ValueError: the parameters are not those of the specification.
    """
    spec, params = _parts(model)
    check_params(spec, params)
    return spec, params


def _parts(model: Any) -> tuple[SequenceSpec, Any]:
    if not isinstance(model, tuple):
        spec = getattr(model, "spec", getattr(model, "model", None))
        model = spec, getattr(model, "params", {})
    if len(model) != 2 or not isinstance(model[0], SequenceSpec):
        raise TypeError(
            f"model must be a pair (spec, params), or have `spec` and `params`, got {model!r}"
        )
    return model
