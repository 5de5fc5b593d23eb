"""Time from the start of Python: imports, compilation of a training step, and the first update.

Imports and first updates run in processes of their own. Imports and compilations are measured in
processor seconds, on which other processes of the machine have less influence.
"""

import functools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

import lstm_jax as lj
from lstm_jax.report.tables import markdown
from scripts._rivals import ignoring, interleaved, summary

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = {"lstm_jax": "import lstm_jax", "needed": "import jax, flax.nnx, optax, chex"}
B, D, H = 32, 64, 128
LENGTHS = (100, 101)  # the second is prime: no chunk divides it
LAYERS = (1, 3)

TRAINING = """
import jax, optax
import jax.numpy as jnp
from flax import nnx
{imports}

class Reader(nnx.Module):
    def __init__(self, rngs):
        self.rnn = {layer}
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        return self.head({outputs}[-1])

@nnx.jit
def update(model, optimizer, x, y):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()
    optimizer.update(model, nnx.grad(loss)(model))

model = Reader(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
update(model, optimizer, jnp.ones((64, 32, 1)), jnp.zeros(32, jnp.int32))
jax.block_until_ready(nnx.state(model, nnx.Param))
"""
FIRST_UPDATES = {
    "lstm_jax": TRAINING.format(
        imports="import lstm_jax as lj",
        layer="lj.nn.Recurrent(lj.cells.LSTM(64), 1, rngs=rngs)",
        outputs="self.rnn(x)[1]",
    ),
    "Flax NNX": TRAINING.format(
        imports="",
        layer="nnx.RNN(nnx.OptimizedLSTMCell(1, 64, rngs=rngs), time_major=True)",
        outputs="self.rnn(x)",
    ),
}


def start(repeats: int) -> list[dict[str, Any]]:
    """Measures processor seconds of imports, and of compilations of a training step."""
    calls = {name: functools.partial(python, "-c", text) for name, text in IMPORTS.items()}
    times = interleaved({n: ignoring(c) for n, c in calls.items()}, repeats, clock=of_children)
    rows = [{"kind": "import"} | summary(times)]
    for layers in LAYERS:
        for T in LENGTHS:
            made = {"lstm_jax": ours(layers), "flax linen": flax_linen(layers)}
            calls = {n: ignoring(functools.partial(compile_step, *m, T)) for n, m in made.items()}
            times = interleaved(calls, repeats, clock=time.process_time)
            rows.append({"kind": "compile", "layers": layers, "T": T} | summary(times))
    print(start_tables(rows))
    return rows


def start_tables(rows: list[dict[str, Any]]) -> str:
    """Returns the section of docs/benchmarks.md."""
    median = rows[0]["median_ms"]
    ours, needed = median["lstm_jax"] / 1e3, median["needed"] / 1e3
    words = (
        f"`import lstm_jax` takes {ours:.2f} processor seconds, {ours / needed:.2f} of the imports "
        f"that it cannot avoid (jax, flax.nnx, optax, chex; {needed:.2f} s)."
    )
    lines = []
    for row in rows[1:]:
        ours, theirs = (row["median_ms"][name] / 1e3 for name in ("lstm_jax", "flax linen"))
        times = {"lstm_jax": ours, "Flax linen": theirs, "ratio": ours / theirs}
        words_of = {name: f"{time:.2f}" for name, time in times.items()}
        lines.append({"layers": row["layers"], "T": row["T"], **words_of})
    return f"{words}\n\n{markdown(lines)}"


def ours(layers: int) -> tuple[Callable, Any]:
    """Returns a stack of our LSTM, as a function of parameters and x, and its parameters."""
    cell = lj.cells.LSTM(H)
    widths = [D] + [H] * (layers - 1)

    def run(params, x):
        for layer in params:
            x = lj.unroll(cell, layer, x)[1]
        return x

    return run, [lj.init(cell, jax.random.key(0), width) for width in widths]


def flax_linen(layers: int) -> tuple[Callable, Any]:
    """Returns a stack of Flax's faster LSTM."""
    rnns = [linen.RNN(linen.OptimizedLSTMCell(H), time_major=True) for _ in range(layers)]
    model = linen.Sequential(rnns)
    return model.apply, model.init(jax.random.key(0), jnp.zeros((1, 1, D)))


def compile_step(run: Callable, params: Any, T: int) -> None:
    """Lowers and compiles the gradient of mean(h^2) in parameters and input, without caches."""
    jax.clear_caches()
    gradient = jax.grad(lambda params, x: jnp.mean(run(params, x) ** 2), (0, 1))
    jax.jit(gradient).lower(params, jax.ShapeDtypeStruct((T, B, D), jnp.float32)).compile()


def python(*arguments: str, cache: str | None = None) -> None:
    """Runs Python with these arguments, with a compilation cache in the folder `cache` or none."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    command = [sys.executable, "-P", *arguments]
    subprocess.run(command, check=True, env=environment, cwd=ROOT, capture_output=True)


def of_children() -> float:
    """Returns the processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def first_update() -> dict[str, Callable[[int], list[float]]]:
    """Returns calls that start Python, make a model and update it once, without a cache."""

    def alone(text, n):
        python("-c", text)
        return []

    return {name: functools.partial(alone, text) for name, text in FIRST_UPDATES.items()}


def first_result() -> dict[str, Callable[[int], list[float]]]:
    """Returns calls of `long_memory --quick` with an empty and with a filled cache."""
    folder = tempfile.mkdtemp()

    def run(name, n):
        out = f"--workdir={folder}/{name}-{n}"
        python("-m", "experiments.long_memory", "--quick", out, cache=f"{folder}/{name}")
        return []

    run("warm", "first")
    return {"cold cache": lambda n: run(f"cold-{n}", n), "warm cache": lambda n: run("warm", n)}
