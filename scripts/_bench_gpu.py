"""Benchmark of a GPU: one layer against every rival, sweeps, user-defined cells, and errors.

It runs unattended where nothing can be installed. A rival that is missing or fails, and a part that
does not fit the time, are left out and named with the reason. With `tiny` the same code runs on a
CPU, as a test of the code and no measurement.
"""

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lstm_jax as lj
from lstm_jax.report.tables import markdown
from scripts._catalogue import OWN
from scripts._rivals import (
    TERMS,
    Clock,
    Rival,
    Shape,
    compared,
    flash_rnn,
    flax_linen,
    geometric_mean,
    haiku,
    jax_cudnn,
    left_out,
    our_run,
    ours,
    reason,
    torch_lstm,
)

SHAPES = (
    (512, 64, 64, 128), (200, 64, 256, 256), (784, 128, 1, 128), (256, 64, 512, 512),
    (128, 128, 1024, 1024),
)  # fmt: skip
SWEEPS = ((132, 200, 32, 8, 128), (132, 200, 32, 8, 64), (1056, 200, 32, 8, 32))  # N,T,B,D,H
ERROR_SHAPE = (2048, 16, 64, 128)
TINY = 4  # longest axis of a test run

ENGINES = ("scan", "pallas")

Make = Callable[..., Rival]  # of a shape


CELLS: dict[str, Callable[[int], lj.Cell]] = {"LSTM": lj.cells.LSTM, **OWN}


OURS: dict[str, Make] = {
    f"{engine} {terms}": functools.partial(ours, engine, terms)
    for engine in ENGINES
    for terms in ("f32", "tf32", "bf16")
}
RIVALS: dict[str, Make] = {
    **OURS,
    "torch tf32": functools.partial(torch_lstm, "float32"),
    "torch fp16": functools.partial(torch_lstm, "float16"),
    "torch bf16": functools.partial(torch_lstm, "bfloat16"),
    "flax linen tf32": functools.partial(flax_linen, "tf32"),
    "flax linen bf16": functools.partial(flax_linen, "bf16"),
    "haiku tf32": functools.partial(haiku, "tf32"),
    "jax cuDNN tf32": functools.partial(jax_cudnn, "tf32"),
    "flashrnn bf16": functools.partial(flash_rnn, "bfloat16"),
}
SWEEPERS: dict[str, Make] = {
    **{name: make for name, make in OURS.items() if "bf16" in name or "tf32" in name},
    "reference bf16": functools.partial(ours, "reference", "bf16"),
}
# Rivals of equal precision: ours, theirs.
EQUAL_TERMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "16 bits, best of torch": (("scan bf16", "pallas bf16"), ("torch fp16", "torch bf16")),
    "tf32, torch": (("scan tf32", "pallas tf32"), ("torch tf32",)),
    "bf16, Flax": (("scan bf16", "pallas bf16"), ("flax linen bf16",)),
    "tf32, Flax": (("scan tf32", "pallas tf32"), ("flax linen tf32",)),
}


def per_gate(shape: Shape, repeats: int, terms: str, engines: Iterable[str]) -> dict[str, Any]:
    """Returns the training step of user-defined cells: time per gate, relative to the LSTM's."""
    makers: dict[str, Make] = {
        f"{engine} {name}": functools.partial(ours, engine, terms, make=make)
        for engine in engines
        for name, make in CELLS.items()
    }
    row = compared(makers, shape, "step", repeats)
    gates = {name: len(CELLS[name.split()[1]](1).gates) for name in row["median_ms"]}
    gate_ms = {name: ms / gates[name] for name, ms in row["median_ms"].items()}
    relative = {
        name: ms / gate_ms[base]
        for name, ms in gate_ms.items()
        if (base := f"{name.split()[0]} LSTM") in gate_ms
    }
    return row | {"kind": "per gate", "relative": relative}


def errors(shape: Shape) -> dict[str, Any]:
    """Returns relative errors of outputs and gradients against float64, on random weights."""
    T, B, D, H = shape
    cell = lj.cells.LSTM(H)
    params = lj.init(cell, jax.random.key(0), D)
    numbers = np.random.default_rng(0)
    x, d_h = (numbers.standard_normal((T, B, n), np.float32) for n in (D, H))

    def results(run, params, x, dtype, precision=None):
        def score(params, x):
            with jax.default_matmul_precision(precision or "float32"):
                h = run(params, x)
            return jnp.sum(h.astype(params.b.dtype) * jnp.asarray(d_h, params.b.dtype)), h

        def within(params, x):
            with jax.default_matmul_precision(precision or "float32"):
                return jax.grad(score, (0, 1), has_aux=True)(params, x)

        (d_params, d_x), h = jax.jit(within)(params, jnp.asarray(x, dtype))
        leaves = {"h": h, "gradients": (d_params, d_x)}
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), leaves)
        return {name: jax.tree.leaves(tree) for name, tree in wide.items()}

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), params)
        run = our_run("reference", shape)[0]
        truth = results(run, wide, x, jnp.float64)
    found, skipped = {}, {}
    for name in OURS:
        engine, terms = name.split()
        try:
            made = results(our_run(engine, shape)[0], params, x, *TERMS[terms])
            found[name] = {k: relative_error(made[k], truth[k]) for k in truth}
        except Exception as error:
            skipped[name] = reason(error)
    return {"shape": list(shape), "kind": "errors", "skipped": skipped, "relative": found}


def relative_error(found: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Returns the largest |found - truth| / |truth| of the arrays, by their norms."""
    sizes = [(np.linalg.norm(f - t), np.linalg.norm(t)) for f, t in zip(found, truth, strict=True)]
    return float(max(error / size for error, size in sizes if size))


def run(
    repeats: int,
    minutes: float,
    shapes: Iterable[Shape] = SHAPES,
    tiny: bool = False,
    save: Callable[[list], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """Measures part by part, the most important first, while time is left; then prints tables.

    Args:
      repeats: timed calls of each rival at each shape.
      minutes: a part starts only if it would end in time, were it as long as the longest so far.
      shapes: T,B,D,H of the single layers.
      tiny: shrinks every shape; of equal ones one is left.
      save: gets all rows after every part.
    """
    clock, rows = Clock(minutes), []
    for name, part in parts(repeats, shapes, tiny):
        if not clock.fits():
            rows.append({"kind": "left out", "part": name})
            continue
        print(f"bench: {name}", file=sys.stderr, flush=True)
        rows.append(clock.timed(part))
        save(rows)
        jax.clear_caches()
    print(tables(rows), flush=True)
    return rows


def parts(
    repeats: int, shapes: Iterable[Shape], tiny: bool
) -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    """Returns the parts by name, the most important first."""

    def small(shapes: Iterable[tuple[int, ...]]) -> list[Any]:
        shrunk = [tuple(min(n, TINY) for n in shape) if tiny else shape for shape in shapes]
        return list(dict.fromkeys(shrunk))

    def layers(kind):
        return [
            (f"{kind} {shape}", functools.partial(compared, RIVALS, shape, kind, repeats))
            for shape in small(shapes)
        ]

    sweeps = [
        (f"sweep {shape}", functools.partial(compared, SWEEPERS, shape, "step", repeats))
        for shape in small(SWEEPS)
    ]
    cells = functools.partial(per_gate, *small(SHAPES[:1]), repeats, "bf16", ENGINES)
    error = functools.partial(errors, *small([ERROR_SHAPE]))
    others = [("user-defined cells", cells), ("errors against float64", error)]
    return [*layers("step"), *sweeps, *others, *layers("forward")]


def tables(rows: list[dict[str, Any]]) -> str:
    """Returns all results as Markdown, and at the end what was left out and why."""
    timed = [row for row in rows if "median_ms" in row and "relative" not in row]
    single = [row for row in timed if len(row["shape"]) == 4]
    sweeps = [row for row in timed if len(row["shape"]) == 5]
    late = [f"left out: {row['part']} (no time)" for row in rows if row["kind"] == "left out"]
    blocks = [
        times("Forward / training step, ms, at T,B,D,H", single),
        times("Training step of N layers, ms, at N,T,B,D,H", sweeps),
        *(relative(row) for row in rows if "relative" in row),
        verdicts(rows),
        "\n".join([*left_out(rows), *late]),
    ]
    return "\n\n".join(block for block in blocks if block)


def times(title: str, rows: list[dict[str, Any]]) -> str:
    """Returns a table with a row for each rival and a column for each shape."""
    kinds = [kind for kind in ("forward", "step") if any(row["kind"] == kind for row in rows)]
    cells = {(label(row), row["kind"], n): ms for row in rows for n, ms in row["median_ms"].items()}
    lines = []
    for name in dict.fromkeys(name for row in rows for name in row["median_ms"]):
        line = {title: name}
        for shape in dict.fromkeys(label(row) for row in rows):
            found = [cells.get((shape, kind, name)) for kind in kinds]
            line[shape] = " / ".join("-" if ms is None else f"{ms:.3g}" for ms in found)
        lines.append(line)
    return markdown(lines) if lines else ""


def relative(row: dict[str, Any]) -> str:
    """Returns a table of times per gate relative to the LSTM's, or of relative errors."""
    word = "time of a gate / the LSTM's" if row["kind"] == "per gate" else "relative error"
    lines = []
    for name, value in row["relative"].items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        words = ", ".join(f"{k} {v:.3g}".strip() for k, v in parts)
        lines.append({f"{word} at {label(row)}": name, "": words})
    return markdown(lines)


def verdicts(rows: list[dict[str, Any]]) -> str:
    """Returns our best training step over theirs at equal precision: mean of shapes, and worst."""
    lines = []
    for terms, sides in EQUAL_TERMS.items():
        ratios = {}
        for row in rows:
            if row["kind"] == "step" and len(row["shape"]) == 4:
                ms = row["median_ms"]
                mine, best = ([ms[n] for n in names if n in ms] for names in sides)
                if mine and best:
                    ratios[label(row)] = min(mine) / min(best)
        if ratios:
            worst = max(ratios, key=ratios.__getitem__)
            mean = geometric_mean(list(ratios.values()))
            lines.append(f"{terms}: {mean:.2f} of theirs, worst {ratios[worst]:.2f} at {worst}")
    return "\n".join(lines)


def label(row: dict[str, Any]) -> str:
    """Returns a shape as on the command line."""
    return ",".join(map(str, row["shape"]))
