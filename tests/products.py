"""Parameters of which a few are tested by default, and all with --all."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def mostly_slow(every: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """Returns every parameter (or tuple of them); those not among the quick ones are slow."""
    return [p if p in quick else slow(p) for p in every]


def slow(parameter: Any) -> Any:
    values = parameter if type(parameter) is tuple else (parameter,)
    return pytest.param(*values, marks=pytest.mark.slow)
