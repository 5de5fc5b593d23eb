"""Search the fastest tiles of the fused engine's kernels on this GPU, by dtype and width.

All candidates are compiled. Candidates whose gradients differ from the scan engine's are left out,
the others time a training step of an LSTM. The table is written after every width.
"""

import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import lstm_jax as lj
from lstm_jax.engines import Pallas, Tiles, tiles
from scripts import _gpu_part as part
from scripts._gpu_check import TOLERANCES, largest_difference
from scripts._rivals import TERMS, Clock, interleaved, reason, summary

SHAPE, TINY_SHAPE = (200, 64, 64), (3, 4, 2)  # T,B,D
WIDTHS = (("bf16", 128), ("bf16", 64), ("tf32", 32), ("bf16", 32), ("tf32", 16), ("bf16", 16))
CANDIDATES = tuple(
    itertools.starmap(Tiles, itertools.product((16, 32, 64), (2, 4, 8, 16), (True, False)))
)
TINY_CANDIDATES = (Tiles(), Tiles(32, 4, False))
GAIN = 0.97  # other tiles than the defaults must take less than this part of their time


class Search(NamedTuple):
    """A search for one entry of the table."""

    terms: str  # of `TERMS`
    H: int  # the width
    shape: tuple[int, int, int]  # T,B,D of the training step that is timed

    @property
    def dtype(self) -> Any:
        """Returns the dtype of x."""
        return jnp.dtype(TERMS[self.terms][0])


def problem(search: Search) -> tuple[lj.Cell, Any, list[Any]]:
    """Returns a cell, its parameters, and four inputs."""
    cell, draw = lj.cells.LSTM(search.H), np.random.default_rng(0)
    params = lj.init(cell, jax.random.key(0), search.shape[-1])
    inputs = (draw.standard_normal(search.shape, np.float32) for _ in range(4))
    return cell, params, [jnp.asarray(x, search.dtype) for x in inputs]


def lowered(search: Search, engine: Any) -> Any:
    """Returns the lowered training step: the gradient of mean(h²) in parameters and input."""
    cell, params, (x, *_) = problem(search)

    def loss(params, x):
        h = lj.unroll(cell, params, x, engine=engine)[1]
        return jnp.mean(h.astype(jnp.float32) ** 2)

    def step(params, x):
        with jax.default_matmul_precision(TERMS[search.terms][1] or "float32"):
            return jax.grad(loss, (0, 1))(params, x)

    return jax.jit(step).lower(params, x)


def programs(
    searches: Iterable[Search], candidates: Iterable[Tiles], clock: Clock, interpret: bool
) -> Iterator[tuple[Search, dict[Any, Any]]]:
    """Yields each search with the lowered programs of all candidates, {} if no time is left."""
    for search in searches:
        engines: dict[Any, Any] = {tile: Pallas("gpu", interpret, tile) for tile in candidates}
        engines["scan"] = lj.engines.resolve("scan", lj.cells.LSTM(search.H), "gpu")
        calls = {n: functools.partial(lowered, search, e) for n, e in engines.items()}
        yield search, {n: part.attempt(c) for n, c in calls.items()} if clock.fits() else {}


def measured(search: Search, compiled: dict[Any, Any], repeats: int) -> dict[str, Any]:
    """Returns the times of the correct candidates, the faults of the others, and the best."""
    _, params, inputs = problem(search)
    want = part.arrays(compiled.pop("scan"), params, inputs[0])
    calls, skipped = {}, {}
    for tile, program in compiled.items():
        why = part.attempt(lambda p=program: fault(search, p, params, inputs[0], want))
        if why is None:
            calls[named(tile)] = lambda n, p=program: jax.block_until_ready(
                p(params, inputs[n % 4])
            )
        else:
            skipped[named(tile)] = reason(why) if isinstance(why, Exception) else why
    found = summary(interleaved(calls, repeats, warm=True))["median_ms"]
    best = choice({tile: found[named(tile)] for tile in compiled if named(tile) in found})
    return {
        "device": jax.devices()[0].device_kind, "dtype": search.dtype.name, "H": search.H,
        "shape": search.shape, "median_ms": found, "skipped": skipped,
        "best": best and best._asdict(),
    }  # fmt: skip


def fault(search: Search, program: Any, params: Any, x: Any, want: Any) -> str | None:
    """Returns the largest error of a program's gradients, None if they are correct."""
    worst = largest_difference(part.arrays(program, params, x), want)
    wrong = worst["error"] > TOLERANCES[search.terms]
    return f"wrong: {worst['argument']} by {worst['error']:.1e}" if wrong else None


def choice(median_ms: dict[Tiles, float]) -> Tiles | None:
    """Returns the fastest tiles, the defaults if these are about as fast, None if none is timed."""
    if not median_ms:
        return None
    best = min(median_ms, key=median_ms.__getitem__)
    usual = median_ms.get(Tiles())
    return best if usual is None or median_ms[best] < GAIN * usual else Tiles()


def named(tile: Tiles) -> str:
    """Returns tiles as a short text."""
    return f"{tile.rows} rows, {tile.warps} warps{', ahead' * tile.prefetch}"


def with_row(table: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Returns the table of `lstm_jax.engines.tiles` with the best tiles of a row."""
    by_dtype = table.get(row["device"], {})
    by_width = by_dtype.get(row["dtype"], {}) | {str(row["H"]): row["best"]}
    return table | {row["device"]: by_dtype | {row["dtype"]: by_width}}


def run(
    searches: Iterable[Search], candidates: Iterable[Tiles], repeats: int, minutes: float,
    add: Callable[[dict[str, Any]], None], save: Callable[[dict[str, Any]], None], interpret: bool,
) -> dict[str, Any]:  # fmt: skip
    """Searches one width after another while time is left; returns the table.

    `add` gets each row and `save` the whole table as soon as they are found.
    """
    clock, table = Clock(minutes), tiles.table()
    ahead = part.compiled_ahead(programs(searches, candidates, clock, interpret))
    while (entry := clock.timed(lambda: next(ahead, None))) is not None:
        search, compiled = entry
        if not compiled:
            print(f"left out: {search.terms} H = {search.H} (no time)", flush=True)
            continue
        row = clock.timed(lambda s=search, c=compiled: measured(s, c, repeats))
        add(row)
        print(text(row), flush=True)
        if row["best"]:
            table = with_row(table, row)
            save(table)
    return table


def text(row: dict[str, Any]) -> str:
    """Returns a row as text, the fastest tiles first."""
    times = sorted(row["median_ms"].items(), key=lambda item: item[1])
    lines = [f"{row['dtype']} H = {row['H']}: {row['best']}"]
    lines += [f"  {ms:8.3f} ms  {name}" for name, ms in times]
    lines += [f"  left out: {name} ({why})" for name, why in row["skipped"].items()]
    return "\n".join(lines)


def write(paths: list[Path], table: dict[str, Any]) -> None:
    """Writes the table to each of `paths`."""
    for path in paths:
        path.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> int:
    """Writes the table to the results, and to the package if a GPU was measured."""
    given = part.arguments("tiles")
    paths = [given.out / "tiles.json", *[tiles.PATH] * (not given.tiny)]
    add, save = part.rows_in(given.out / "tiles.jsonl"), functools.partial(write, paths)
    widths, shape, candidates, repeats = WIDTHS, SHAPE, CANDIDATES, 15
    if given.tiny:
        widths, shape, candidates, repeats = WIDTHS[:1], TINY_SHAPE, TINY_CANDIDATES, 1
    searches = [Search(terms, H, shape) for terms, H in widths]
    run(searches, candidates, repeats, given.minutes, add, save, interpret=given.tiny)
    return 0


if __name__ == "__main__":
    sys.exit(main())
