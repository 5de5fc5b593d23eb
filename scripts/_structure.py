"""The structure of the package: lines of each file, imports between rooms, and the law of imports.

A room is a folder or a file of `lstm_jax/`. It may import from the rooms that `ABOVE` lists for it.
This file needs the standard library alone: it reads the package and does not import it.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "lstm_jax"

# The rooms in their order, and the rooms above from which each may import.
ABOVE: dict[str, set[str]] = {
    "checks": set(),
    "types": set(),
    "metrics": {"types"},
    "cells": {"checks", "types"},
    "engines": {"types", "cells"},
    "diagnostics": {"types", "cells", "engines"},
    "nn": {"checks", "types", "cells", "engines"},
    "linen": {"checks", "types", "cells", "engines", "nn"},
    "testing": {"types", "cells", "engines", "nn"},
    "interop": {"checks", "types", "cells", "engines", "nn"},
    "data": {"checks", "types"},
    "tasks": {"checks", "types", "metrics", "data"},
    "runs": {"types"},
    "training": {"checks", "types", "metrics", "interop", "data", "tasks", "runs"},
    "report": set(),
    "search": {"checks", "types", "cells", "engines", "nn", "tasks", "runs", "training", "report"},
}
NOWHERE = {"absl", "experiments", "scripts", "tests"}
JAX = {"jax", "jaxlib", "flax", "optax", "chex", "orbax"}


def imported(source: str, package: str) -> Iterator[str]:
    """Yields the dotted names that a module inside `package` imports, also within functions."""
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


def room_of(path: str) -> str:
    """Returns the room of a file of the package, its path relative to the root."""
    return Path(path).with_suffix("").parts[1]


def names_in(path: str, source: str) -> list[str]:
    """Returns the imports of the file at `path`, as dotted names."""
    return list(imported(source, ".".join(Path(path).with_suffix("").parts[:-1])))


def violations(path: str, source: str) -> list[str]:
    """Returns the imports of the file at `path` that break the law."""
    room, found = room_of(path), []
    for name in names_in(path, source):
        library, _, rest = name.partition(".")
        if library == PACKAGE:
            # Other names are those of the package's __init__, which lies below every room.
            if rest.partition(".")[0] not in ABOVE[room] | {room}:
                found.append(name)
        elif library in NOWHERE or (room == "report" and library in JAX):
            found.append(name)
    return found


def sources() -> dict[str, str]:
    """Returns the text of every file of the package but its __init__, by relative path."""
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    inner = [file for file in files if file != ROOT / PACKAGE / "__init__.py"]
    return {str(f.relative_to(ROOT)): f.read_text(encoding="utf-8") for f in inner}


def graph(texts: dict[str, str]) -> dict[str, set[str]]:
    """Returns the other rooms that each room imports from."""
    found: dict[str, set[str]] = {room: set() for room in ABOVE}
    for path, source in texts.items():
        names = (name.split(".") for name in names_in(path, source))
        found[room_of(path)] |= {name[1] for name in names if name[0] == PACKAGE and name[1:]}
    return {room: found[room] - {room} for room in ABOVE}


def lines_of(folder: str) -> dict[str, int]:
    """Returns the lines of each Python file below a folder, the longest first."""
    files = (ROOT / folder).rglob("*.py")
    counts = {str(f.relative_to(ROOT)): len(f.read_bytes().splitlines()) for f in files}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def main() -> int:
    """Prints the structure; returns 1 if an import breaks the law."""
    for folder in (PACKAGE, "experiments", "scripts"):
        counts = lines_of(folder)
        print(f"{sum(counts.values()):6,} {folder}/")
        for path, count in counts.items():
            print(f"{count:8,} {path}")
    texts = sources()
    print("\nroom: the rooms it imports from, all of them above it")
    for room, others in graph(texts).items():
        print(f"  {room}: {', '.join(other for other in ABOVE if other in others) or '-'}")
    broken = [(path, name) for path, text in texts.items() for name in violations(path, text)]
    for path, name in broken:
        print(f"{path} must not import {name}")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
