"""Shared by the parts of scripts/gpu: flags, rows, engines, and compiling ahead."""

import argparse
import collections
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

import lstm_jax as lj
from scripts._rivals import Result


def arguments(part: str) -> argparse.Namespace:
    """Returns the flags of a part; ends the program without a GPU, unless --tiny is given."""
    parser = argparse.ArgumentParser(prog=f"gpu {part}")
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), help="folder of results")
    parser.add_argument("--minutes", type=float, default=3.0, help="no step may end later")
    parser.add_argument("--tiny", action="store_true", help="small shapes, kernels interpreted")
    given = parser.parse_args()
    if jax.default_backend() != "gpu" and not given.tiny:
        parser.error(f"jax runs on {jax.default_backend()}: need a GPU, or --tiny for any machine")
    given.out.mkdir(parents=True, exist_ok=True)
    return given


def rows_in(path: Path) -> Callable[[dict[str, Any]], None]:
    """Returns a function that appends a row to a new file of JSON lines."""
    path.write_text("")

    def add(row: dict[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    return add


def engine_for(name: str, cell: lj.Cell, dtype: Any, interpret: bool) -> Any:
    """Returns the GPU engine called `name`, interpreted on request; it may refuse the cell."""
    engine = lj.engines.resolve(name, cell, "gpu", dtype)
    if interpret and isinstance(engine, lj.engines.Pallas | lj.engines.Mosaic):
        return dataclasses.replace(engine, interpret=True)
    return engine


def compiled_ahead(
    lowered: Iterable[tuple[Any, dict[str, Any]]],
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yields each key with its programs compiled, an error in place of one that does not compile.

    A few entries of `lowered` compile at a time, one on each core, while the next are traced. A
    program that already is an error stays so.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = collections.deque()
        for entry in lowered:
            waiting.append(pool.submit(_compiled, *entry))
            if len(waiting) > 4:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _compiled(key: Any, programs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Returns the programs compiled, or their errors."""
    errors = {n: p for n, p in programs.items() if isinstance(p, Exception)}
    return key, {n: errors.get(n) or attempt(p.compile) for n, p in programs.items()}


def attempt(call: Callable[[], Result]) -> Result | Exception:
    """Returns the result of a call or its error, so that one failure does not end the rest."""
    try:
        return call()
    except Exception as error:
        return error


def arrays(program: Any, *given: Any) -> Any:
    """Returns the results of a compiled program as NumPy arrays; raises a program's error."""
    if isinstance(program, Exception):
        raise program
    return jax.tree.map(np.asarray, program(*given))
