"""The arrays that a function captures from globals, closures and caches."""

import hashlib
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core


def fingerprint(function: Callable, *args: Any) -> str:
    """Returns a checksum of a function's trace: its operations and the arrays it captures.

    A compiled function keeps the arrays that its trace captured. A cache with this checksum in its
    key never returns a function that captured other arrays. An inner `jax.jit` has a cache of its
    own. A warning names draws from `numpy.random` or `random`, which happen in the trace alone.

    Args:
      function: a pure function; this call traces it again.
      args: arrays or their shapes.
    """
    before = _global_randomness()
    traced = jax.make_jaxpr(lambda *args: function(*args))(*args)
    if _global_randomness() != before:
        warnings.warn(
            "the task or the model draws from numpy.random or random, so all batches get the same "
            "numbers: use jax.random with the given key",
            stacklevel=2,
        )
    digest = hashlib.blake2b(str(traced).encode(), digest_size=16)
    for array in map(np.asarray, _constants(traced)):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _global_randomness() -> bytes:
    return pickle.dumps((np.random.get_state(), random.getstate()))  # noqa: NPY002


def _constants(jaxpr: Any) -> Iterator[Any]:
    """Yields the captured arrays of a jaxpr and of the jaxprs inside its operations."""
    yield from getattr(jaxpr, "consts", ())
    for operation in jaxpr.eqns:
        for parameter in jax.tree.leaves(list(operation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(parameter):
                yield from _constants(parameter)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.ClosedJaxpr | core.Jaxpr)
