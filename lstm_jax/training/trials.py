"""Trials: the hyperparameters that may differ between the trials of one compiled program."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_jax.checks import check_names
from lstm_jax.types import Array, Rates

Values = float | Sequence[float] | np.ndarray

MAX_SEED = 2**32 - 1


class Trials(NamedTuple):
    """R trials that differ in numbers alone; inside a trial every field is a scalar.

    All values are traced, so one compiled program serves any values. A field that is None is not
    part of the program. A model gets its part from `initial` and `rates`.

    Attributes:
      seed: [R] uint32; data, initial parameters and noise of a trial depend on it alone.
      learning_rate: [R].
      decay: [R] updates in which the learning rate falls to zero along half a cosine, inf for
        never, or None.
      warmup: [R] updates in which the learning rate rises linearly from zero, or None.
      b1: [R] momentum, or Adam's first decay.
      b2: [R] decay of the second moment (Adam, RMSProp).
      clip: [R] largest global norm of a gradient; inf for no clipping.
      weight_decay: [R] decoupled from the gradient: p <- p - learning_rate weight_decay p, for
        arrays of two axes or more.
      init_scale: [R] factor of the model's initial weights, not of biases.
      dropout: [R] dropout rate of the outputs of each layer, or None.
      input_dropout: [R] dropout rate of the inputs of each layer, one mask a sequence, or None.
      recurrent_dropout: [R] dropout rate of the feedback, one mask a sequence, or None.
      weight_drop: [R] dropout rate of the recurrent weights, or None.
      input_noise: [R] standard deviation of the noise on the model's input, or None.
      zoneout: state name -> [R] zoneout rate; other states keep the cell's own.
      gate_bias: block name -> [R] initial bias; other blocks keep the cell's own.
    """

    seed: Any
    learning_rate: Any
    decay: Any
    warmup: Any
    b1: Any
    b2: Any
    clip: Any
    weight_decay: Any
    init_scale: Any
    dropout: Any
    input_dropout: Any
    recurrent_dropout: Any
    weight_drop: Any
    input_noise: Any
    zoneout: dict[str, Any]
    gate_bias: dict[str, Any]


class Keys(NamedTuple):
    """The independent keys of one trial, one for each use."""

    init: Array
    data: Array
    noise: Array
    evaluation: Array


def keys(trial: Trials) -> Keys:
    """Returns the keys of one trial; they depend on its seed alone."""
    root = jax.random.key(trial.seed, impl="threefry2x32")
    return Keys(*jax.random.split(root, len(Keys._fields)))


def initial(trial: Trials) -> dict[str, Any]:
    """Returns the trial's arguments of a model's `init`."""
    return {"scale": trial.init_scale, "gate_bias": trial.gate_bias}


def rates(trial: Trials) -> Rates:
    """Returns the rates of dropout and noise of one trial."""
    return Rates(*(getattr(trial, name) for name in Rates._fields))


def make_trials(
    *,
    seed: Values = 0,
    learning_rate: Values = 1e-3,
    decay: Values | None = None,
    warmup: Values | None = None,
    b1: Values = 0.9,
    b2: Values = 0.999,
    clip: Values = np.inf,
    weight_decay: Values = 0.0,
    init_scale: Values = 1.0,
    dropout: Values | None = None,
    input_dropout: Values | None = None,
    recurrent_dropout: Values | None = None,
    weight_drop: Values | None = None,
    input_noise: Values | None = None,
    zoneout: Mapping[str, Values] | None = None,
    gate_bias: Mapping[str, Values] | None = None,
    **unknown: Any,
) -> Trials:
    """Returns Trials from numbers (the same for every trial) and lists of one number per trial.

    For three seeds of one setting: `make_trials(seed=[0, 1, 2], learning_rate=3e-3)`. A rate of
    zero drops nothing: `make_trials(weight_drop=[0, 0.5])`.

    Raises:
      ValueError: a value is out of range, or lists have different lengths; the message names it.
      TypeError: an argument is unknown; the message names the nearest one.
    """
    check_names("make_trials", unknown, Trials._fields, {})
    given = Trials(
        seed, learning_rate, decay, warmup, b1, b2, clip, weight_decay, init_scale, dropout,
        input_dropout, recurrent_dropout, weight_drop, input_noise, _named("zoneout", zoneout),
        _named("gate_bias", gate_bias),
    )  # fmt: skip
    leaves, tree = jax.tree.flatten_with_path(given, is_leaf=_is_column)
    columns = {jax.tree_util.keystr(path)[1:]: np.asarray(values) for path, values in leaves}
    count = _count(columns)
    return tree.unflatten(_checked(n, np.broadcast_to(v, count)) for n, v in columns.items())


def over_seeds(settings: Trials, seeds: int | Sequence[int]) -> Trials:
    """Returns every setting with each seed, all seeds of the first setting first.

    Args:
      settings: R settings; their own seeds are replaced.
      seeds: a number n, for 0 .. n - 1, or a list.

    Raises:
      ValueError: `seeds` is empty or repeats a seed, or a seed is out of range.
    """
    chosen = np.arange(seeds) if isinstance(seeds, int) else np.asarray(seeds)
    if chosen.ndim != 1 or chosen.size == 0:
        raise ValueError(f"seeds must be a number of at least 1 or a list, got {seeds!r}")
    if len(set(chosen.tolist())) < len(chosen):
        raise ValueError(f"seeds must differ, got {seeds!r}: equal seeds make equal trials")
    repeated = jax.tree.map(lambda values: np.repeat(values, len(chosen)), settings)
    return repeated._replace(seed=_checked("seed", np.tile(chosen, len(settings.seed))))


def describe_trials(trials: Trials) -> dict[str, np.ndarray]:
    """Returns name -> [R] for records, with names such as gate_bias_f and zoneout_h."""
    fields = {name: values for name, values in trials._asdict().items() if values is not None}
    for kind in ("zoneout", "gate_bias"):
        values = fields.pop(kind)
        fields |= {f"{kind}_{name}": values[name] for name in sorted(values)}
    return fields


def _named(field: str, values: Mapping[str, Values] | None) -> dict[str, Values]:
    if values is not None and not isinstance(values, Mapping):
        raise ValueError(f"{field} must map names to numbers or lists, got {values!r}")
    return dict(values or {})


def _is_column(value: Any) -> bool:
    return value is not None and not isinstance(value, (Trials, dict))


def _count(columns: Mapping[str, np.ndarray]) -> int:
    lengths = {name: len(values) for name, values in columns.items() if values.ndim == 1}
    for name, values in columns.items():
        if values.ndim > 1 or values.size == 0:
            raise ValueError(f"{name} must be a number or a list of them, got shape {values.shape}")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lists of one number a trial must be of equal length, got {lengths}")
    return max(lengths.values(), default=1)


class _Range(NamedTuple):
    words: str
    holds: Callable[[np.ndarray], np.ndarray]


_POSITIVE = _Range("positive and finite", lambda v: (v > 0) & np.isfinite(v))
_RATE = _Range("in [0, 1)", lambda v: (v >= 0) & (v < 1))
_FROM_ZERO = _Range("at least 0 and finite", lambda v: (v >= 0) & np.isfinite(v))
_RANGES = {  # by field; the values of a mapping share one range
    "learning_rate": _POSITIVE,
    "decay": _Range("positive (inf for never)", lambda v: v > 0),
    "warmup": _POSITIVE,
    "b1": _RATE,
    "b2": _RATE,
    "clip": _Range("positive (inf for none)", lambda v: v > 0),
    "weight_decay": _FROM_ZERO,
    "init_scale": _POSITIVE,
    "dropout": _RATE,
    "input_dropout": _RATE,
    "recurrent_dropout": _RATE,
    "weight_drop": _RATE,
    "input_noise": _FROM_ZERO,
    "zoneout": _RATE,
}
_FINITE = _Range("finite", np.isfinite)
_SEED = _Range(f"a whole number in [0, {MAX_SEED}]", lambda v: (v >= 0) & (v <= MAX_SEED))


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    """Returns the values as float32 (seeds as uint32), checked after rounding."""
    if name == "seed":
        kind, dtype, wanted = "iu", np.uint32, _SEED
    else:
        kind, dtype, wanted = "iuf", np.float32, _RANGES.get(name.partition("[")[0], _FINITE)
    if values.dtype.kind not in kind:
        raise ValueError(f"{name} must be {wanted.words}, got {values.tolist()}")
    with np.errstate(over="ignore"):
        rounded = values if name == "seed" else values.astype(dtype)
    if not wanted.holds(rounded).all():
        trial = int(np.argmin(wanted.holds(rounded)))
        raise ValueError(f"{name} must be {wanted.words}, got {values[trial]} for trial {trial}")
    return rounded.astype(dtype)
