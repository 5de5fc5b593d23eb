"""The description of a model as JSON: frozen dataclasses by the names of their classes and fields.

    LSTM(8)                      ->  {"class": "LSTM", "hidden": 8}
    SequenceSpec(LSTM(8), 3, 2)  ->  {"class": "SequenceSpec", "cell": {...}, "input_size": 3, ...}

Reading makes only the classes of a registry, so a file cannot run code of its own.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lstm_jax import cells, engines, nn
from lstm_jax.checks import check_is
from lstm_jax.nn import initializers

# Every public dataclass of the rooms that a model is described with.
REGISTRY: dict[str, type] = {
    name: value
    for room in (cells, engines, initializers, nn)
    for name, value in vars(room).items()
    if isinstance(value, type) and dataclasses.is_dataclass(value)
}

NESTED = 32  # deeper is no description, and Python's stack has an end


def registry(classes: Iterable[type]) -> dict[str, type]:
    """Returns the library's classes and `classes`, by name.

    Raises:
      TypeError: `classes` is no list of classes; ValueError: one of them has the name of another.
    """
    known = dict(REGISTRY)
    for one in listed(classes):
        if known.setdefault(one.__name__, one) is not one:
            raise ValueError(f"classes has a second {one.__name__}: give it a name of its own")
    return known


def listed(classes: Iterable[type]) -> tuple[type, ...]:
    """Returns a user's classes as a tuple; raises TypeError if they are no list of classes."""
    right = "a list of classes, such as [MyCell]"
    check_is("classes", classes, Iterable, right)
    classes = tuple(classes)
    for one in classes:
        check_is("classes", one, type, f"{right}, not an instance")
    return classes


def encode(value: Any, at: str = "spec") -> Any:
    """Returns `value` in types of JSON; `at` is its place for error messages.

    Raises:
      TypeError: it is, or holds, something other than dataclasses, tuples, dtypes, numbers, strings
        and None; ValueError: a class has the name of one of the library's, or values are nested too
        deeply.
    """
    _check_nesting(at)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.dtype):
        return {"dtype": value.name}
    if isinstance(value, tuple):
        return [encode(item, f"{at}[{i}]") for i, item in enumerate(value)]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"{at} must be a dataclass, a tuple, a number or a word, got {value!r}")
    name = type(value).__name__
    registry([type(value)])
    fields = [field.name for field in dataclasses.fields(value) if field.init]
    return {"class": name} | {f: encode(getattr(value, f), f"{at}.{f}") for f in fields}


def decode(content: Any, known: Mapping[str, type], at: str = "spec") -> Any:
    """Returns what `encode` was given, made of the classes of `known`.

    Raises:
      ValueError: a class is unknown, has other fields, or refuses their values, or values are
        nested too deeply.
    """
    _check_nesting(at)
    if isinstance(content, list):
        return tuple(decode(item, known, f"{at}[{i}]") for i, item in enumerate(content))
    if not isinstance(content, dict):
        return content
    for word, make in {"dtype": jnp.dtype, "float": float}.items():
        if content.keys() == {word}:
            return _made(at, make, content[word])
    fields = {f: decode(v, known, f"{at}.{f}") for f, v in content.items() if f != "class"}
    return _instance(content.get("class"), fields, known, at)


def _check_nesting(at: str) -> None:
    if at.count(".") + at.count("[") > NESTED:
        raise ValueError(f"spec must not be nested more than {NESTED} deep, got {at}")


def _instance(name: Any, fields: dict[str, Any], known: Mapping[str, type], at: str) -> Any:
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{at} is a {name}, which is unknown here: pass its class in `classes`")
    own = {field.name: field for field in dataclasses.fields(known[name]) if field.init}
    given = fields.keys() | {f for f in own if not _required(own[f])}  # an older file lacks a few
    for field in sorted(given ^ own.keys()):
        word = "lacks" if field in own else "has an unknown"
        raise ValueError(f"{at}, a {name}, {word} field {field!r}")
    if known[name] is initializers.gate_bias:  # written with keywords, not with its field
        return _made(at, lambda values: initializers.gate_bias(**dict(values)), **fields)
    return _made(at, known[name], **fields)


def _required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _made(at: str, make: Callable, *values: Any, **fields: Any) -> Any:
    try:
        return make(*values, **fields)
    except Exception as error:  # a class may refuse values as it likes
        raise ValueError(f"{at} cannot be made: {error}") from error
