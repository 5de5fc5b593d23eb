"""Rows of sequences as arrays, and as scaled inputs of a model without missing numbers."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from lstm_jax.data import Sequences, frames, joining, scaling
from lstm_jax.types import Array

Arrays = dict[str, Any]


def arrays_of(data: Sequences) -> Arrays:
    """Returns the inputs of all rows as arrays, without entries that no row needs."""
    arrays: Arrays = {"x": data.x}
    if np.any(data.lengths < data.steps):
        arrays["lengths"] = data.lengths
    for name in ("mask", "static", "weight"):
        if getattr(data, name) is not None:
            arrays[name] = getattr(data, name)
    return arrays


def fit(data: Sequences, rows: np.ndarray) -> Arrays:
    """Returns the constants of the inputs, fitted on these rows.

    Raises:
      ValueError: a feature is missing in all of these rows.
    """
    fitted: Arrays = {}
    if data.x.ndim == 3:
        names = tuple(f"feature {name} of x" for name in frames.numbered(data.names, data.width))
        fitted["x"] = scaling.fit(data.x, data.valid(), rows, names)
    if data.static is not None:
        numbers = tuple(f"static[:, {n}]" for n in range(data.static.shape[1]))
        names = data.static_names or numbers
        always = np.ones(len(data), bool)
        fitted["static"] = scaling.fit(data.static, always, rows, names)
    return fitted


def symbols(data: Sequences, rows: np.ndarray) -> int:
    """Returns the number of symbols of these rows plus one for all others; 0 for numbers."""
    return int(data.x[rows].max(where=data.valid(rows), initial=0)) + 2 if data.x.ndim == 2 else 0


def width(data: Sequences) -> int:
    """Returns D: features, indicators of missing numbers, and static features."""
    static = 0 if data.static is None else data.static.shape[1]
    return data.width * (2 if data.missing == "indicator" else 1) + static


def check_form(data: Sequences, known: Any, symbols: bool, missing: str) -> None:
    """Raises ValueError unless rows have the form of the training rows, which `known` has."""
    fitted = known.arrays["fitted"]
    joining.check_names(data, known.names, known.static_names)
    if data.missing != missing:
        raise ValueError(f"missing must be {missing!r}, as for training, got {data.missing!r}")
    if symbols != (data.x.ndim == 2):
        wanted = "integer symbols [N, T]" if symbols else "numbers [N, T, D]"
        raise ValueError(f"x must hold {wanted}, as the training rows do, got {data}")
    if not symbols and data.width != len(fitted["x"].mean):
        width = len(fitted["x"].mean)
        names = frames.numbered(known.names, width)
        wanted = f"the {width} features {', '.join(names[:8])}"
        hint = "; one sequence alone is x[None]" if data.width == 1 else ""
        raise ValueError(f"x must have {wanted}, got {data.width}{hint}")
    wanted = len(fitted["static"].mean) if "static" in fitted else 0
    found = 0 if data.static is None else data.static.shape[1]
    if wanted != found:
        raise ValueError(f"static must have the {wanted} features of training, got {found}")


def flat(fitted: Arrays) -> dict[str, np.ndarray]:
    """Returns the constants as arrays with names."""
    leaves = {}
    for name, value in fitted.items():
        fields = value._asdict() if isinstance(value, scaling.Scale) else {"": value}
        leaves |= {f"{name}.{field}".rstrip("."): leaf for field, leaf in fields.items()}
    return leaves


def unflat(leaves: dict[str, np.ndarray]) -> Arrays:
    """Returns the inverse of `flat`."""
    fitted: Arrays = {name: leaf for name, leaf in leaves.items() if "." not in name}
    for name in {name.split(".")[0] for name in leaves if "." in name}:
        fitted[name] = scaling.Scale(leaves[f"{name}.mean"], leaves[f"{name}.scale"])
    return fitted


def gather(
    arrays: Arrays, index: Array, symbols: int, indicator: bool
) -> tuple[Array, Array | None]:
    """Returns x [T, B, D] and mask [T, B]; the mask is None if all time steps count.

    Args:
      arrays: the result of `arrays_of`, with the constants as "fitted".
      index: [B] int32, row numbers.
      symbols: their number, with the last for all unknown ones; 0 for numbers.
      indicator: appends an input for each feature, 1 where the number is missing.
    """
    x, mask = jnp.swapaxes(jnp.asarray(arrays["x"])[index], 0, 1), _mask(arrays, index)
    if symbols:
        x = jnp.clip(x, 0, symbols - 1)
        return (x if mask is None else jnp.where(mask, x, 0)), mask
    gone = jnp.isnan(x)
    known = ~gone if mask is None else ~gone & mask[..., None]
    parts = [_scaled(x, known, arrays["fitted"]["x"])]
    if indicator:
        parts.append((gone if mask is None else gone & mask[..., None]).astype(x.dtype))
    if "static" in arrays:
        static = jnp.asarray(arrays["static"])[index][None]
        static = _scaled(static, ~jnp.isnan(static), arrays["fitted"]["static"])
        parts.append(jnp.broadcast_to(static, (*x.shape[:2], static.shape[-1])))
    return jnp.concatenate(parts, axis=-1), mask


def _mask(arrays: Arrays, index: Array) -> Array | None:
    """Returns [T, B] bool, or None if all time steps count."""
    mask = None
    if "lengths" in arrays:
        step = jnp.arange(arrays["x"].shape[1], dtype=jnp.int32)[:, None]
        mask = step < jnp.asarray(arrays["lengths"])[index][None]
    if "mask" in arrays:
        given = jnp.swapaxes(jnp.asarray(arrays["mask"])[index], 0, 1)
        mask = given if mask is None else mask & given
    return mask


def _scaled(values: Array, known: Array, scale: scaling.Scale) -> Array:
    """Returns the scaled values [T, B, D], 0 where they are unknown."""
    mean, deviation = (jnp.asarray(leaf)[None, None] for leaf in scale)
    return jnp.where(known, (values - mean) / deviation, jnp.zeros_like(values))
