"""What the parts of scripts/gpu share: flags, rows, engines, and compiling ahead."""

import argparse
import collections
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

import lstm_jax as lj
from scripts._rivals import Result


def arguments(part: str) -> argparse.Namespace:
    """Returns the flags of a part; ends the program where neither a GPU nor --tiny is there."""
    parser = argparse.ArgumentParser(prog=f"gpu {part}")
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), help="folder of results")
    parser.add_argument("--minutes", type=float, default=3.0, help="no step begins that ends later")
    parser.add_argument("--tiny", action="store_true", help="small shapes, kernels interpreted")
    given = parser.parse_args()
    if jax.default_backend() != "gpu" and not given.tiny:
        parser.error(f"jax runs on {jax.default_backend()}: need a GPU, or --tiny for any machine")
    given.out.mkdir(parents=True, exist_ok=True)
    return given


def rows_in(path: Path) -> Callable[[dict[str, Any]], None]:
    """Returns a function that writes a row to a new file of JSON lines at once."""
    path.write_text("")

    def add(row: dict[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    return add


def engine_for(name: str, cell: lj.Cell, dtype: Any, interpret: bool) -> Any:
    """Returns the engine of a GPU called `name`, interpreted on request; may refuse the cell."""
    engine = lj.engines.resolve(name, cell, "gpu", dtype)
    if interpret and isinstance(engine, lj.engines.Pallas | lj.engines.Mosaic):
        return dataclasses.replace(engine, interpret=True)
    return engine


def compiled_ahead(
    lowered: Iterable[tuple[Any, dict[str, Any]]],
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yields each key with its programs, compiled, or the errors where they do not compile.

    A few entries of `lowered` are compiled at a time, on all cores, while the next are traced. An
    entry that is an error already stays what it is.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = collections.deque()
        for key, programs in lowered:
            waiting.append((key, {n: _submitted(pool, p) for n, p in programs.items()}))
            if len(waiting) > 4:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())


def _submitted(pool: ThreadPoolExecutor, program: Any) -> Any:
    return program if isinstance(program, Exception) else pool.submit(program.compile)


def _finished(key: Any, programs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return key, {name: _result(program) for name, program in programs.items()}


def _result(program: Future | Exception) -> Any:
    return program if isinstance(program, Exception) else attempt(program.result)


def attempt(call: Callable[[], Result]) -> Result | Exception:
    """Returns the result of a call, or its error: one failure must not end the whole."""
    try:
        return call()
    except Exception as error:
        return error


def arrays(program: Any, *given: Any) -> Any:
    """Returns the results of a compiled program as arrays of NumPy; raises if it is an error."""
    if isinstance(program, Exception):
        raise program
    return jax.tree.map(np.asarray, program(*given))
