"""Checks of arguments that every room shares."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any


def check_size(name: str, value: object, least: int = 1) -> None:
    """Raises ValueError unless `value` is an int of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        convertible = hasattr(value, "__index__") and not isinstance(value, int)
        hint = f": write int({value!r})" if convertible else ""
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}{hint}")


def check_is(name: str, value: object, kind: Any, right: str) -> None:
    """Raises TypeError, which says what would be right, unless `value` is of a kind."""
    if not isinstance(value, kind):
        is_long = not isinstance(value, type) and len(repr(value)) > 60
        raise TypeError(
            f"{name} must be {right}, got {type(value).__name__ if is_long else repr(value)}"
        )


def check_key(key: object) -> None:
    """Raises TypeError unless `key` is an array, as PRNG keys are."""
    if not hasattr(key, "dtype"):
        raise TypeError(f"key must be a PRNG key such as jax.random.key(0), got {key!r}")


def check_choice(name: str, value: object, choices: Collection) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")


def check_names(
    call: str, given: Mapping[str, Any], known: Collection[str], advice: Mapping[str, str]
) -> None:
    """Raises TypeError for an argument that `call` does not take.

    Args:
      call: the name of the function.
      given: its arguments.
      known: the names that it takes.
      advice: part of a name -> the advice for such names; others get the nearest known name.
    """
    for name, value in given.items():
        if name not in known:
            found = [words for part, words in advice.items() if part in name]
            words = found[0] if found else _nearest(name, known)
            raise TypeError(f"{call} takes no {name}, got {name}={value!r:.60}: {words}")


def _nearest(name: str, known: Collection[str]) -> str:
    """Returns the advice to use a name with these initials, or one that is spelt alike."""
    initials = [k for k in known if "".join(word[0] for word in k.split("_")) == name]
    alike = initials or difflib.get_close_matches(name, known, n=1)
    return f"did you mean {alike[0]}?" if alike else f"need one of {', '.join(known)}"
