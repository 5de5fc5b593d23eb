"""Trials: the settings that may differ between the training runs of one compiled program."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_jax.types import Array

Values = float | Sequence[float] | np.ndarray

MAX_SEED = 2**32 - 1


class Trials(NamedTuple):
    """R training runs that differ in numbers alone; inside a trial every field is a scalar.

    All are traced: one compiled program serves any values. A model reads from its trial what
    concerns it (`init_scale`, `gate_bias` when it draws its parameters, `dropout`, `zoneout` when
    it is applied), `fit` the rest.

    Attributes:
      seed: [R] uint32; data, initial parameters and noise of a trial depend on it alone.
      learning_rate: [R].
      b1: [R] momentum, or Adam's first decay.
      b2: [R] decay of the second moment (Adam, RMSProp).
      clip: [R] largest global norm of a gradient; inf for no clipping.
      weight_decay: [R] decoupled from the gradient: p <- p - learning_rate weight_decay p.
      init_scale: [R] the model multiplies its initial weights by it, biases apart.
      dropout: [R] rate at which a unit is dropped.
      zoneout: [R] rate at which a unit keeps its old state.
      gate_bias: block name -> [R] initial bias of that block; blocks not named keep the cell's own.
    """

    seed: Any
    learning_rate: Any
    b1: Any
    b2: Any
    clip: Any
    weight_decay: Any
    init_scale: Any
    dropout: Any
    zoneout: Any
    gate_bias: dict[str, Any]


class Keys(NamedTuple):
    """The independent streams of random numbers of one trial, a key for each use."""

    init: Array
    data: Array
    noise: Array
    evaluation: Array


def keys(trial: Trials) -> Keys:
    """Returns the keys of one trial; they depend on its seed alone."""
    root = jax.random.key(trial.seed, impl="threefry2x32")
    return Keys(*jax.random.split(root, len(Keys._fields)))


def make_trials(
    *,
    seed: Values = 0,
    learning_rate: Values = 1e-3,
    b1: Values = 0.9,
    b2: Values = 0.999,
    clip: Values = np.inf,
    weight_decay: Values = 0.0,
    init_scale: Values = 1.0,
    dropout: Values = 0.0,
    zoneout: Values = 0.0,
    gate_bias: Mapping[str, Values] | None = None,
) -> Trials:
    """Returns Trials from numbers (the same for every trial) and lists of one number a trial.

    For three seeds of one setting: `make_trials(seed=[0, 1, 2], learning_rate=3e-3)`.

    Raises:
      ValueError: a value out of its range, or lists of different lengths; the message names it.
    """
    numbers = dict(
        seed=seed, learning_rate=learning_rate, b1=b1, b2=b2, clip=clip, weight_decay=weight_decay,
        init_scale=init_scale, dropout=dropout, zoneout=zoneout,
    )  # fmt: skip
    biases = {f"gate_bias[{block!r}]": values for block, values in (gate_bias or {}).items()}
    columns = {name: np.asarray(values) for name, values in (numbers | biases).items()}
    count = _count(columns)
    arrays = {name: _checked(name, np.broadcast_to(v, count)) for name, v in columns.items()}
    by_block = {block: arrays[f"gate_bias[{block!r}]"] for block in gate_bias or {}}
    return Trials(**{name: arrays[name] for name in numbers}, gate_bias=by_block)


def describe_trials(trials: Trials) -> dict[str, np.ndarray]:
    """Returns field name -> [R], with `gate_bias` as gate_bias_f and so on: what records say."""
    fields = trials._asdict()
    biases = fields.pop("gate_bias")
    return fields | {f"gate_bias_{block}": biases[block] for block in sorted(biases)}


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
_RANGES = {
    "learning_rate": _POSITIVE,
    "b1": _RATE,
    "b2": _RATE,
    "clip": _Range("positive (inf for none)", lambda v: v > 0),
    "weight_decay": _Range("at least 0 and finite", lambda v: (v >= 0) & np.isfinite(v)),
    "init_scale": _POSITIVE,
    "dropout": _RATE,
    "zoneout": _RATE,
}
_FINITE = _Range("finite", np.isfinite)
_SEED = _Range(f"a whole number in [0, {MAX_SEED}]", lambda v: (v >= 0) & (v <= MAX_SEED))


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    """Returns the values as float32 (seeds as uint32), each inside its range after rounding."""
    if name == "seed":
        kind, dtype, wanted = "iu", np.uint32, _SEED
    else:
        kind, dtype, wanted = "iuf", np.float32, _RANGES.get(name, _FINITE)
    if values.dtype.kind not in kind:
        raise ValueError(f"{name} must be {wanted.words}, got {values.tolist()}")
    with np.errstate(over="ignore"):
        rounded = values if name == "seed" else values.astype(dtype)
    if not wanted.holds(rounded).all():
        trial = int(np.argmin(wanted.holds(rounded)))
        raise ValueError(f"{name} must be {wanted.words}, got {values[trial]} for trial {trial}")
    return rounded.astype(dtype)
