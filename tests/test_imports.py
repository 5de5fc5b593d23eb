"""The import law: a room imports only from rooms above it, and what it may of other libraries."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "lstm_jax"

# The room of each module, and the rooms that a room may import from besides itself.
ROOM = dict.fromkeys((f.stem for f in (ROOT / PACKAGE).iterdir()), "learning") | {
    "types": "types",
    "cells": "instant",
    "engines": "time",
    "diagnostics": "looking",
    "initializers": "depth",
    "layers": "depth",
    "packing": "problems",
    "tasks": "problems",
    "report": "telling",
}
ABOVE = {
    "types": set(),
    "instant": {"types"},
    "time": {"types", "instant"},
    "looking": {"types", "instant", "time"},
    "depth": {"types", "instant", "time"},
    "problems": {"types"},
    "learning": {"types", "instant", "time", "depth", "problems"},
    "telling": set(),
}
JAX = {"jax", "jaxlib", "flax", "optax", "chex", "orbax"}


def imported(source: str, package: str) -> Iterator[str]:
    """The dotted names that a module inside `package` imports, wherever in its body."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -(node.level - 1) or None] if node.level else []
            origin = ".".join(above + ([node.module] if node.module else []))
            if origin == PACKAGE:  # `from lstm_jax import cells` names the module by its alias
                yield from (f"{origin}.{alias.name}" for alias in node.names)
            else:
                yield origin


def violations(path: str, source: str) -> list[str]:
    """What the file at `path` (relative to the root) imports against the law."""
    parts = Path(path).with_suffix("").parts
    room = ROOM[parts[1]]
    found = []
    for name in imported(source, ".".join(parts[:-1])):
        library, _, rest = name.partition(".")
        if library == PACKAGE:
            # A name that is no module is the front door's, which lies below every room.
            if ROOM.get(rest.partition(".")[0]) not in ABOVE[room] | {room}:
                found.append(name)
        elif library in {"absl", "experiments"} or (room == "telling" and library in JAX):
            found.append(name)
    return found


def sources() -> list[str]:
    """The files of the package but its front door, relative to the root."""
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return [str(f.relative_to(ROOT)) for f in files if f != ROOT / PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", sources())
def test_a_room_imports_only_from_rooms_above_it(path: str) -> None:
    assert violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("cells/lstm.py", "from lstm_jax import engines", ["lstm_jax.engines"]),
        ("cells/lstm.py", "from ..engines.scan import Scan", ["lstm_jax.engines.scan"]),
        ("cells/lstm.py", "from .. import engines", ["lstm_jax.engines"]),
        ("cells/lstm.py", "from lstm_jax import unroll", ["lstm_jax.unroll"]),
        ("engines/scan.py", "import lstm_jax as lj", ["lstm_jax"]),
        ("diagnostics.py", "from lstm_jax.train import fit", ["lstm_jax.train"]),
        ("diagnostics.py", "from lstm_jax.layers import drop", ["lstm_jax.layers"]),
        ("diagnostics.py", "from lstm_jax.engines import unroll\nfrom lstm_jax import cells", []),
        ("tasks/recall.py", "def f():\n    import lstm_jax.layers", ["lstm_jax.layers"]),
        ("tasks/recall.py", "from lstm_jax.cells import LSTM", ["lstm_jax.cells"]),
        ("report/html.py", "import numpy\nimport jax.numpy as jnp", ["jax.numpy"]),
        ("report/html.py", "from lstm_jax.records import RecordLog", ["lstm_jax.records"]),
        ("train.py", "from absl import flags", ["absl"]),
        ("train.py", "from experiments import runner", ["experiments"]),
        ("train.py", "from lstm_jax import types\nfrom lstm_jax.layers import Model", []),
        ("cells/lstm.py", "from . import base\nfrom .base import Cell", []),
    ],
)
def test_the_law_sees_what_breaks_it(path: str, source: str, expected: list[str]) -> None:
    assert violations(f"{PACKAGE}/{path}", source) == expected


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_the_library_imports_none_of_the_experiments_extras() -> None:
    extras = {"matplotlib", "orbax", "plotly", "scipy", "sklearn", "tensorboardX", "tqdm"}
    brought = modules_after("import lstm_jax") - modules_after("import jax, flax.nnx, optax, chex")
    assert PACKAGE in brought
    assert brought & extras == set()
