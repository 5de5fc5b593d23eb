"""What all checks use: functions compiled in little time, and comparisons that name the law."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.cells import Cell
from lstm_jax.types import Array, Row

# The functions run once, for a few time steps: compilation dominates the time.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def quick(function: Callable) -> Callable:
    """Returns the function compiled in little time, its results in NumPy."""
    compiled = jax.jit(function, compiler_options=QUICK)
    return lambda *args: jax.device_get(compiled(*args))


def require(cell: Cell, fact: Any, law: str) -> None:
    """Raises AssertionError with the law unless the fact holds."""
    if not fact:
        raise AssertionError(f"{cell}: {law}")


def theta_of(cell: Cell, key: Array, dtype: Any) -> Row:
    """Returns the small parameters of a cell in `dtype`."""
    values = cell.init_theta(key)
    return cell.Theta({name: jnp.asarray(value, dtype) for name, value in values.items()})


def same(a: Row, b: Row) -> bool:
    """Returns whether all leaves are equal, bit for bit or both nan."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in leaves)


def agree(cell: Cell, law: str, got: Any, want: Any, tolerance: float = 1e-12) -> None:
    """Raises AssertionError unless leaves are finite and equal up to `tolerance` of their size."""
    leaves = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True)
    for (path, *pair), other in leaves:
        a, b = (np.asarray(leaf) for leaf in (*pair, other))
        where = f"{law}; {jax.tree_util.keystr(path, simple=True, separator='.')}"
        finite = np.isfinite(a).all() and np.isfinite(b).all()
        require(cell, finite, f"{where} is not finite")
        error = np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-3)
        require(cell, error <= tolerance, f"{where} differs by {error:.1e} of its size")
