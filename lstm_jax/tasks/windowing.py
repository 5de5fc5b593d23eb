"""Windows of series for a model: their units, their inputs, and the inverse of scaling."""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from lstm_jax.data import scaling
from lstm_jax.types import Array

Scaling = Literal["log_ratio", "ratio", "standard"]
LEAST_RATIO = 1e-3  # of a value to its window's mean, before the logarithm
CONSTANT = 1e-6  # a window whose spread is a smaller share of its level is constant
LARGEST = 30.0  # logarithm of a forecast's ratio to its window's mean, so that it stays finite


class Form(NamedTuple):
    """The sizes of a program.

    Attributes:
      horizon: H, the time steps of a forecast.
      context: C, the time steps read before it.
      known: number of covariates known ahead.
      past: number of covariates known only up to the present.
      static: number of constants of a series.
      season: S, the time steps of a season.
      seasonal: whether outputs are differences from the seasonal naive forecast.
      patch: number of values that the network reads at each of its C / patch time steps.
    """

    horizon: int
    context: int
    known: int
    past: int
    static: int
    season: int
    seasonal: bool
    patch: int = 1


class Window(NamedTuple):
    """The units of windows, each [B, 1] or [B, H].

    Attributes:
      level: mean of the context.
      spread: the unit of normalised values.
      unit: the unit of errors: the naive error of the series.
      offset: added to outputs: 0, or the normalised seasonal naive forecast.
    """

    level: Array
    spread: Array
    unit: Array
    offset: Array

    @property
    def wide(self) -> "Window":
        """The same with one more axis, for quantiles."""
        return Window(*(part[..., None] for part in self))


def units(scale: Scaling, arrays: dict[str, Any], member: Array, end: Array, form: Form) -> Window:
    """Returns the units of windows, of series `member` [B] before the time steps `end` [B]."""
    unit = jnp.asarray(arrays["unit"])[member]
    values = before(arrays, "values", member, end, form.context)
    level = mean_there(values, ~jnp.isnan(values), axis=0)
    if scale != "standard":
        level = jnp.where(level > 0, level, unit)
        spread = jnp.full_like(level, arrays["fitted"].get("spread", 1))
    else:
        away = jnp.abs(values - level[None])
        spread = mean_there(away, ~jnp.isnan(away), axis=0)
        spread = jnp.where(spread > CONSTANT * jnp.abs(level), spread, unit)
    window = Window(level[:, None], spread[:, None], unit[:, None], jnp.zeros_like(unit)[:, None])
    if not form.seasonal:
        return window
    return window._replace(offset=last_season(scale, arrays, member, end, form, window))


def last_season(
    scale: Scaling, arrays: dict[str, Any], member: Array, end: Array, form: Form, window: Window
) -> Array:
    """Returns the normalised values [B, H] of the last season before `end`; 0 where missing."""
    step = jnp.arange(form.horizon, dtype=jnp.int32)[None] % form.season - form.season
    z = normalise(scale, read(arrays, "values", member[:, None], end[:, None] + step), window)
    return jnp.where(jnp.isnan(z), 0, z)


def normalise(scale: Scaling, values: Array, window: Window) -> Array:
    """Returns normalised values z; the units broadcast."""
    if scale == "log_ratio":
        z = jnp.log(jnp.maximum(values / window.level, LEAST_RATIO)) / window.spread
    elif scale == "ratio":
        z = values / window.level
    else:
        z = (values - window.level) / window.spread
    return z - window.offset


def denormalise(scale: Scaling, z: Array, window: Window) -> Array:
    """Returns the values of z; the units broadcast."""
    z = z + window.offset
    if scale == "log_ratio":
        ratio = window.spread * z
        return window.level * jnp.exp(jnp.where(ratio < LARGEST, ratio, LARGEST))
    if scale == "ratio":
        return window.level * z
    return window.level + window.spread * z


def inputs(
    scale: Scaling, arrays: dict[str, Any], member: Array, end: Array, form: Form, window: Window
) -> Array:
    """Returns x [C / patch, B, D] of windows, of series `member` [B] before `end` [B]."""
    values = before(arrays, "values", member, end, form.context)
    rows = Window(*(part[None, :, 0] for part in window._replace(offset=0 * window.unit)))
    z, there = normalise(scale, values, rows), ~jnp.isnan(values)
    parts = [jnp.where(there, z, 0)[..., None], there.astype(z.dtype)[..., None]]
    fitted = arrays["fitted"]
    for name in ("known", "past"):
        if name in fitted:
            parts.append(scaled(before(arrays, name, member, end, form.context), fitted[name]))
    parts = [patched(jnp.concatenate(parts, axis=-1), form.patch)]
    fixed = []
    if "known" in fitted:
        step = steps_ahead(end, form.horizon)
        each = scaled(read(arrays, "known", member[:, None], step), fitted["known"])
        fixed.append(each.reshape(len(member), -1))
    if "static" in fitted:
        fixed.append(scaled(jnp.asarray(arrays["static"])[member], fitted["static"]))
    steps = parts[0].shape[:2]
    parts += [jnp.broadcast_to(part[None], (*steps, part.shape[-1])) for part in fixed]
    return jnp.concatenate(parts, axis=-1)


def patched(x: Array, patch: int) -> Array:
    """Returns x [C, B, D] as [C / patch, B, patch D], the values of a patch side by side."""
    C, B, D = x.shape
    return jnp.swapaxes(x.reshape(C // patch, patch, B, D), 1, 2).reshape(C // patch, B, patch * D)


def before(arrays: dict[str, Any], name: str, member: Array, end: Array, count: int) -> Array:
    """Returns the last `count` numbers [C, B, ...] of series `member` [B] before `end` [B]."""
    return read(arrays, name, member[None], steps_before(end, count))


def steps_before(end: Array, count: int) -> Array:
    """Returns the last `count` time steps [C, B] before `end` [B]."""
    return jnp.arange(-count, 0, dtype=jnp.int32)[:, None] + end[None]


def steps_ahead(end: Array, count: int) -> Array:
    """Returns the first `count` time steps [B, H] from `end` [B] on."""
    return end[:, None] + jnp.arange(count, dtype=jnp.int32)[None]


def read(arrays: dict[str, Any], name: str, member: Array, step: Array) -> Array:
    """Returns numbers at time steps of series, NaN outside; member and step broadcast."""
    offsets, numbers = jnp.asarray(arrays["offsets"]), jnp.asarray(arrays[name])
    place = offsets[member] + step
    inside = (step >= 0) & (place < offsets[member + 1])
    found = numbers[jnp.clip(place, 0, len(numbers) - 1)]
    return jnp.where(
        inside.reshape(*inside.shape, *[1] * (found.ndim - inside.ndim)), found, jnp.nan
    )


def mean_there(values: Array, there: Array, axis: int = 1) -> Array:
    """Returns the mean of the values where `there` holds, or 0 without any."""
    total = jnp.sum(jnp.where(there, values, 0), axis=axis)
    return total / jnp.maximum(jnp.sum(there, axis=axis), 1).astype(total.dtype)


def scaled(values: Array, scale: scaling.Scale) -> Array:
    """Returns covariates [..., n] scaled, 0 where they are missing."""
    shape = (1,) * (values.ndim - 1) + (-1,)
    mean, deviation = (jnp.asarray(part).reshape(shape) for part in scale)
    return jnp.where(jnp.isnan(values), 0, (values - mean) / deviation)
