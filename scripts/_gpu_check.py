"""Every engine against `reference` on a GPU: outputs and all gradients, cell by cell.

The problems have masks, resets, carried and initial states, and noise. `reference` runs in float32
with full products. The error of an array is the norm of its difference over the norm of itself.
"""

import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import lstm_jax as lj
from scripts import _gpu_part as part
from scripts._catalogue import CATALOGUE, OWN
from scripts._rivals import TERMS, Clock, reason

TOLERANCES = {"f32": 1e-4, "tf32": 1e-2, "bf16": 4e-2}
PLAN = (  # terms, and T,B,D,H or N,T,B,D,H, the most important first
    ("f32", (20, 18, 3, 16)), ("bf16", (20, 18, 3, 20)), ("tf32", (20, 18, 3, 16)),
    ("bf16", (20, 64, 64, 128)), ("bf16", (3, 20, 18, 3, 16)),
)  # fmt: skip
TINY_PLAN = (("f32", (4, 3, 2, 16)), ("bf16", (4, 3, 2, 16)))
ENGINES = tuple(name for name in lj.engines.ENGINES if name not in ("auto", "reference"))


class Case(NamedTuple):
    """A cell at a shape, in an entry of `TERMS`."""

    name: str
    cell: lj.Cell
    terms: str
    shape: tuple[int, ...]


class Problem(NamedTuple):
    """Arguments of `unroll`, and the cotangents of its results."""

    smooth: dict[str, Any]
    mask: Any
    reset: Any
    noise: lj.Noise
    d_final: Any
    d_h: Any


def cases(plan: Iterable[tuple[str, tuple[int, ...]]] = PLAN) -> list[Case]:
    """Returns every cell of `CATALOGUE` and `OWN` at every entry of the plan."""
    pairs = itertools.product(plan, (CATALOGUE | OWN).items())
    return [Case(name, make(shape[-1]), terms, shape) for (terms, shape), (name, make) in pairs]


def problem(case: Case) -> Problem:
    """Returns random inputs of every kind; the case's dtype represents x exactly."""
    cell, (T, B, D, H) = case.cell, case.shape[-4:]
    draw = np.random.default_rng(0)
    keys = jax.random.split(jax.random.key(0), (*case.shape[:-4], 2))
    params = parameters(cell, keys[..., 0], D)

    def normal(*shape):
        return draw.standard_normal(shape, np.float32)

    def state():  # positive, since the sLSTM divides by one of its states
        zeros = lj.initial_state(cell, (B,))
        return jax.tree.map(lambda s: draw.uniform(0.5, 1, s.shape).astype(np.float32), zeros)

    x = jnp.asarray(normal(T, B, D), TERMS[case.terms][0]).astype(jnp.float32)
    smooth = dict(params=params, x=x, state=state(), initial=state())
    time_keys = jax.random.split(jax.random.key(1), T) if cell.noisy else None
    keep = jnp.asarray(draw.uniform(size=(B, lj.cells.feedback_width(cell))), jnp.float32)
    mask, reset = draw.uniform(size=(T, B)) < 0.8, draw.uniform(size=(T, B)) < 0.1
    d_final = jax.tree.map(lambda s: normal(*s.shape), lj.initial_state(cell, (B,)))
    if case.terms != "f32":
        # Rounding decides ties of the sLSTM's maximum, on which h does not depend.
        d_final = jax.tree.map(np.zeros_like, d_final)._replace(h=d_final.h)
    return Problem(smooth, mask, reset, lj.Noise(time_keys, keep), d_final, normal(T, B, H))


def parameters(cell: lj.Cell, key: Any, D: int) -> Any:
    """Returns parameters with random biases; for N keys, those of N trials."""
    if key.ndim:
        return jax.vmap(lambda key: parameters(cell, key, D))(key)
    params = lj.init(cell, key, D)
    return params._replace(b=params.b + 0.3 * jax.random.normal(key, params.b.shape))


def results(case: Case, engine: Any, terms: str, given: Problem) -> dict[str, Any]:
    """Returns the outputs and all gradients of a case in `terms`, by name."""
    dtype, precision = TERMS[terms]

    def score(smooth):
        final, h = lj.unroll(
            case.cell, smooth["params"], smooth["x"].astype(dtype), smooth["state"],
            initial=smooth["initial"], mask=given.mask, reset=given.reset, noise=given.noise,
            engine=engine,
        )  # fmt: skip
        made = final, h.astype(jnp.float32)
        weighted = jax.tree.map(jnp.vdot, made, (given.d_final, given.d_h))
        return sum(jax.tree.leaves(weighted)), made

    def one(params):
        slopes, (final, h) = jax.grad(score, has_aux=True)({**given.smooth, "params": params})
        return {"h": h, "final": final, "gradients": slopes}

    with jax.default_matmul_precision(precision or "float32"):
        return (one if len(case.shape) == 4 else jax.vmap(one))(given.smooth["params"])


def programs(todo: Iterable[Case], clock: Clock, interpret: bool) -> Iterator[tuple]:
    """Yields each case with its problem and its lowered programs, while time is left.

    An engine that refuses the cell, or does not lower, has an error in place of a program. Cases
    for which no time is left have neither problem nor programs.
    """
    for case in todo:
        if not clock.fits():
            yield (case, None), {}
            continue
        given = problem(case)

        def lowered(name, case=case, given=given):
            engine, terms = lj.engines.Reference(), "f32"
            if name != "reference":
                terms = case.terms
                engine = part.engine_for(name, case.cell, TERMS[terms][0], interpret)
            made = jax.jit(lambda given: results(case, engine, terms, given))
            return made.lower(given)

        names = ("reference", *ENGINES)
        yield (case, given), {n: part.attempt(lambda n=n: lowered(n)) for n in names}


def checked(case: Case, given: Problem, compiled: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each engine: right, wrong, failed or refused."""
    made = {name: part.attempt(lambda p=p: part.arrays(p, given)) for name, p in compiled.items()}
    want = made.pop("reference")
    rows = []
    for name, got in made.items():
        row = {"cell": case.name, "engine": name, "terms": case.terms, "shape": case.shape}
        if isinstance(got, Exception) or isinstance(want, Exception):
            row |= verdict(got if isinstance(got, Exception) else want, case.cell)
        else:
            tolerance = TOLERANCES[case.terms]
            worst = largest_difference(got, want)
            right = worst["error"] <= tolerance
            row |= {"result": "right" if right else "wrong", "tolerance": tolerance, **worst}
        rows.append(row)
    return rows


def verdict(error: Any, cell: lj.Cell) -> dict[str, str]:
    """Returns whether an engine refused the cell or failed, and why."""
    _, refusal, why = str(error).partition(f" cannot run {cell}: ")
    return {"result": "refused" if refusal else "failed", "why": why or reason(error)}


def largest_difference(got: Any, want: Any) -> dict[str, Any]:
    """Returns the array with the largest relative error, and its entry of largest difference."""
    found = []
    leaves = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True)
    for (path, g), w in leaves:
        if not w.size:
            continue
        off = np.abs(np.where(np.isfinite(g), g - w, np.inf))
        error = np.linalg.norm(off) / (np.linalg.norm(w) + 1e-3)
        at = np.unravel_index(np.argmax(off), off.shape)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        found.append({
            "error": float(error), "argument": name, "index": [int(i) for i in at],
            "got": float(g[at]), "want": float(w[at]),
        })  # fmt: skip
    return max(found, key=lambda row: row["error"])


def run(todo: Iterable[Case], minutes: float, add: Any, interpret: bool) -> list[dict[str, Any]]:
    """Checks case by case while time is left; `add` gets each row as soon as it is found."""
    clock, rows = Clock(minutes), []
    ahead = part.compiled_ahead(programs(todo, clock, interpret))
    while (entry := clock.timed(lambda: next(ahead, None))) is not None:
        (case, given), compiled = entry
        if given is None:
            late = {"cell": case.name, "terms": case.terms, "shape": case.shape}
            found = [{**late, "engine": "all", "result": "left out", "why": "no time"}]
        else:
            found = checked(case, given, compiled)
        for row in found:
            rows.append(row)
            add(row)
            print(line(row), flush=True)
    print(report(rows), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """Returns a row as one line."""
    shape = ",".join(map(str, row["shape"]))
    said = f"{row['result']:8} {row['terms']:4} {shape:16} {row['engine']:11} {row['cell']}"
    return said + (f": {row['why']}" if "why" in row else f": {row['error']:.1e}")


def report(rows: list[dict[str, Any]]) -> str:
    """Returns the largest errors, the number of rows by result, and the first failure."""
    lines, results = [], [row["result"] for row in rows]
    for terms in dict.fromkeys(row["terms"] for row in rows):
        for engine in ENGINES:
            errors = [r["error"] for r in rows if (r["terms"], r["engine"]) == (terms, engine)
                      and "error" in r]  # fmt: skip
            if errors:
                most = f"{max(errors):.1e}, tolerance {TOLERANCES[terms]:.0e}"
                lines.append(f"{engine} in {terms}: {len(errors)} cells, largest error {most}")
    lines.append(", ".join(f"{results.count(r)} {r}" for r in dict.fromkeys(results)))
    for row in failures(rows)[:1]:
        lines += ["first failure:", *(f"  {key}: {value}" for key, value in row.items())]
    return "\n".join(lines)


def failures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows with a wrong result or an error."""
    return [row for row in rows if row["result"] in ("wrong", "failed")]


def main() -> int:
    """Returns 1 if an engine is wrong or fails."""
    given = part.arguments("check")
    add = part.rows_in(given.out / "check.jsonl")
    todo = cases(TINY_PLAN)[::20] if given.tiny else cases(PLAN)  # interpreted kernels are slow
    return bool(failures(run(todo, given.minutes, add, interpret=given.tiny)))


if __name__ == "__main__":
    sys.exit(main())
