"""Measure speed and memory against other libraries.

    peers       forward and training step of one layer: our engines, Flax linen, torch, and with the
                batch spread over a device a core; on a GPU more rivals and dtypes, sweeps,
                user-defined cells, errors (scripts/_bench_gpu.py)
    trials      a training step of one trial alone, and of many in one program
    throughput  trial-steps per second of 1 to 256 trials (4096 on a GPU), and of trials one by one
    precision   the loss of a task in bfloat16 and float32, seed by seed
    memory      memory and time of a training step on long sequences: our engines and Flax linen
    cells       a training step of every cell of the catalogue, relative to the LSTM's
    own         a training step of user-defined cells: time per gate, relative to the LSTM's
    own_data    16 trainings on real sequences: one program of ours, torch one after another
    forecast    eight networks that forecast M3 quarterly: one program of ours, one network of torch
    policy      the gradient of a recurrent policy's layer in linen, and of ours in its place
    agent       recurrent PPO of both layers: scores over eight seeds, environment steps per second
    linear      forward and training step of the MinGRU: as a loop, and as an associative scan
    jobs        whole trainings, searches, PPO, first updates; --write puts them into the docs
    start       processor seconds of imports, and of compilations beside those of Flax linen

A training step is the gradient of mean(h^2) in parameters and input. Figures are medians. All
rivals run in one process: each repetition calls all of them in random order on one of four inputs.
A rival that is not installed is named and left out. Where nothing can be installed,
`PYTHONPATH=. python scripts/_bench.py` runs with the installed libraries.
"""

import functools
import importlib
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

import lstm_jax as lj
from lstm_jax import nn, tasks
from lstm_jax.report import tables
from scripts import _bench_flax, _bench_gpu, _bench_start, _bench_training
from scripts._catalogue import CATALOGUE
from scripts._rivals import (
    Rival,
    Shape,
    compared,
    flax_linen,
    geometric_mean,
    interleaved,
    left_out,
    machine,
    ours,
    spread_rival,
    summary,
    torch_lstm,
)

PEER_SHAPES = (
    (512, 32, 64, 128), (200, 64, 256, 256), (100, 20, 512, 512), (784, 128, 1, 128),
    (100, 128, 8, 64), (100, 16, 8, 32), (110, 1, 2, 8),
)  # fmt: skip
MEMORY_SHAPE = (4096, 32, 64, 128)
MEMORY_TIMES = (256, 1024, 4096, 16384, 65536, 100_000)
CELL_SHAPES = ((100, 16, 8, 32), (200, 64, 64, 128))
POLICY_SHAPES = ((128, 64, 128, 128), (1024, 64, 128, 128))
LINEAR_SHAPES = tuple((T, 16, H, H) for H in (32, 128) for T in (64, 256, 1024, 4096))

REPEATS = flags.DEFINE_integer("repeats", 15, "timed calls of each rival at each shape", 1)
SHAPES = flags.DEFINE_multi_string("shape", [], "T,B,D,H instead of the usual ones; repeatable")
TRIALS = flags.DEFINE_list("trials", None, "numbers of trials (suites trials, throughput)")
GPU = flags.DEFINE_boolean("gpu", None, "the suites of a GPU; by default if jax runs on one")
TINY = flags.DEFINE_boolean("tiny", False, "shapes of a few units, to check that --gpu runs")
MINUTES = flags.DEFINE_float("minutes", 7.5, "on a GPU, start no part that may end later", 0.0)
JOBS = flags.DEFINE_list("jobs", None, "jobs to measure, such as a,c; all by default (suite jobs)")
WRITE = flags.DEFINE_boolean("write", False, "write docs/benchmarks.md and its figure (suite jobs)")
JSON = flags.DEFINE_string("json", None, "file to write the figures to")
RIVAL = flags.DEFINE_string("rival", None, "one alone (suites memory and jobs call themselves so)")


Make = Callable[[Shape], Rival]
RIVALS: dict[str, Make] = {
    **{engine: functools.partial(ours, engine, "usual") for engine in ("scan", "reference")},
    "flax linen": functools.partial(flax_linen, "usual"),
    "torch": functools.partial(torch_lstm, "float32"),
}
UNCHECKED = functools.partial(spread_rival, checks=False)
SPREAD: dict[str, Make] = {  # where all devices share the batch
    "scan, spread": functools.partial(ours, "scan", "usual", rival=spread_rival),
    "flax linen, spread": functools.partial(flax_linen, "usual", rival=UNCHECKED),
}
MEMORY_RIVALS: dict[str, Make] = {
    **{
        f"scan, {kept}": functools.partial(ours, lj.engines.Scan(residuals=kept), "usual")
        for kept in ("sqrt", "rebuilt", "saved")
    },
    "reference": RIVALS["reference"],
    "flax linen": RIVALS["flax linen"],
    "flax linen, remat": functools.partial(flax_linen, "usual", remat=True),
}


def on_gpu() -> bool:
    """Returns whether to run the suites of a GPU."""
    return jax.default_backend() == "gpu" if GPU.value is None else GPU.value


def peers() -> list[dict[str, Any]]:
    """Times forward and training step of every rival at every shape; on a GPU, its benchmark."""
    if on_gpu():
        given = shapes(_bench_gpu.SHAPES), TINY.value
        return _bench_gpu.run(REPEATS.value, MINUTES.value, *given, save)
    rows = []
    for shape in shapes(PEER_SHAPES):
        divides = jax.device_count() > 1 and shape[1] % jax.device_count() == 0
        rivals = RIVALS | SPREAD if divides else RIVALS
        for kind in ("forward", "step"):
            rows.append(compared(rivals, shape, kind, REPEATS.value))
            show(rows[-1], "flax linen")
    steps = [r["median_ms"] for r in rows if r["kind"] == "step" and r["shape"][3] > 32]
    for base in ("flax linen", "torch"):
        print_means(steps, base)
    return rows


def print_means(rows: list[dict[str, float]], base: str) -> None:
    """Prints the training step of each rival relative to `base`: mean over shapes, and worst."""
    for name in rows[0] if rows and base in rows[0] else ():
        ratios = [row[name] / row[base] for row in rows]
        mean, worst = geometric_mean(ratios), max(ratios)
        print(f"{name}: {mean:.2f} of {base} at H > 32 (geometric mean), worst {worst:.2f}")


def cells() -> list[dict[str, Any]]:
    """Times the training step of every cell under `auto`, relative to the LSTM's."""
    made = {n: functools.partial(ours, "auto", "usual", make=m) for n, m in CATALOGUE.items()}
    rows = [compared(made, shape, "step", REPEATS.value) for shape in shapes(CELL_SHAPES)]
    head = "step / that of the LSTM"
    ratios = {str(row["shape"]): relative(row["median_ms"], "LSTM(H)") for row in rows}
    print(tables.text([{head: n, **{s: r[n] for s, r in ratios.items()}} for n in CATALOGUE]))
    return rows


def relative(times: dict[str, float], base: str) -> dict[str, float]:
    """Returns the times relative to that of `base`."""
    return {name: time / times[base] for name, time in times.items()}


def own() -> list[dict[str, Any]]:
    """Times the training step of three user-defined cells, by gate."""
    cpu = jax.default_backend() == "cpu"
    given = ("f32", ("scan",)) if cpu else ("bf16", _bench_gpu.ENGINES)
    rows = [_bench_gpu.per_gate(s, REPEATS.value, *given) for s in shapes(CELL_SHAPES)]
    print(_bench_gpu.tables(rows))
    return rows


def own_data() -> list[dict[str, Any]]:
    """Times whole trainings on real sequences; test accuracies."""
    own, sequential = late("_bench_own_data"), late("_bench_digits")
    problems = own.japanese_vowels(), sequential.digits(sequential.EPOCHS)
    return [own.own_data(problem, at_most(3)) for problem in problems]


def linear() -> list[dict[str, Any]]:
    """Times forward and training step of the MinGRU under two engines."""
    rows = []
    for shape in shapes(LINEAR_SHAPES):
        made = {
            engine: functools.partial(ours, engine, "usual", make=lj.cells.MinGRU)
            for engine in ("scan", "associative")
        }
        for kind in ("forward", "step"):
            rows.append(compared(made, shape, kind, REPEATS.value))
            show(rows[-1], "scan")
    return rows


def trials() -> list[dict[str, Any]]:
    """Times a trial-step of R trials in one program, sampling and AdamW included."""
    task = tasks.Recall(lag=99)
    model = nn.SequenceSpec(lj.cells.LSTM(32), task.input_size, task.output_size)
    counts, steps = numbers_of_trials((1, 8, 32)), 100

    def call(R, n):
        given = lj.make_trials(seed=list(range(n * R, n * R + R)), learning_rate=1e-4)
        lj.fit(task, model, given, steps, optimizer="adamw", progress=False)

    times = interleaved({f"R = {R}": functools.partial(call, R) for R in counts}, REPEATS.value)
    times = {f"R = {R}": times[f"R = {R}"] / (R * steps) for R in counts}
    row = {"shape": [100, 16, task.input_size, 32], "kind": "trial-step"} | summary(times)
    show(row, f"R = {counts[0]}")
    return [row]


def policy() -> list[dict[str, Any]]:
    """Times a scanned GRU with resets, and our layer in its place; temporary memory."""
    rows = [_bench_flax.policy(shape, REPEATS.value) for shape in shapes(POLICY_SHAPES)]
    for row in rows:
        show(row, "ScannedRNN")
        print("    temporaries, MiB:", row["temporaries_MiB"])
    return rows


def throughput() -> list[dict[str, Any]]:
    """Measures trial-steps per second by the number of trials in one program."""
    most = 256 if jax.default_backend() == "cpu" else 4096
    usual = tuple(2**n for n in range(13) if 2**n <= most)
    return _bench_training.throughput(numbers_of_trials(usual), at_most(3), minutes())


def late(module: str) -> Any:
    """Returns a module of scripts, imported only now: it may need libraries of the experiments."""
    return importlib.import_module(f"scripts.{module}")


def at_most(repeats: int) -> int:
    """Returns the repetitions of a suite whose calls are long."""
    return min(REPEATS.value, repeats)


def minutes() -> float:
    """Returns the minutes of a suite, which are limited on a GPU alone."""
    return MINUTES.value if on_gpu() else math.inf


def numbers_of_trials(usual: tuple[int, ...]) -> list[int]:
    """Returns the numbers of --trials, by default `usual`."""
    given = TRIALS.value or usual
    if not all(str(R).isdigit() and int(R) > 0 for R in given):
        words = ",".join(map(str, given))
        raise app.UsageError(f"--trials={words}: need whole numbers of at least 1")
    return [int(R) for R in given]


def memory() -> list[dict[str, Any]]:
    """Measures memory and time of a training step, and its temporary memory by T."""
    rows = []
    for shape in shapes((MEMORY_SHAPE,)):
        made = {name: make(shape) for name, make in MEMORY_RIVALS.items()}
        rows.append({"shape": list(shape), "kind": "memory", "peak_MB": peaks(made, shape)})
        print(f"{shape!s:22} added, MB: {in_words(rows[-1]['peak_MB'])}", flush=True)
        rows.append(compared(MEMORY_RIVALS, shape, "step", REPEATS.value))
        show(rows[-1], "scan, rebuilt")
        for T in dict.fromkeys((*MEMORY_TIMES, shape[0])):
            sizes = {name: temporaries(rival, T, shape) for name, rival in made.items()}
            rows.append({"shape": [T, *shape[1:]], "kind": "temporaries", "temporaries_MB": sizes})
            print(f"T = {T:<18} temporaries, MB: {in_words(sizes)}", flush=True)
    return rows


def in_words(sizes: dict[str, float]) -> str:
    """Returns the sizes of all rivals on one line."""
    return "  ".join(f"{name} {size:.0f}" for name, size in sizes.items())


def temporaries(rival: Rival, T: int, shape: Shape) -> float:
    """Returns the temporary memory that XLA plans for a training step, in megabytes."""
    assert rival.temporaries is not None
    return rival.temporaries((T, *shape[1:3])) / 1e6


def peaks(names: Iterable[str], shape: Shape) -> dict[str, float]:
    """Returns the peak memory of one training step, each rival in a process of its own."""
    found = {}
    for name in names:
        flag = ["--rival", name, "--shape", ",".join(map(str, shape))]
        child = [sys.executable, "-P", __file__, "memory", *flag]
        output = subprocess.run(child, check=True, stdout=-1).stdout
        found[name] = json.loads(output)["resident, added (MB)"]
    return found


def memory_of(name: str, shape: Shape) -> None:
    """Prints by how much one training step raises this process's peak memory, as JSON."""
    rival = MEMORY_RIVALS[name](shape)
    x = rival.place(np.random.default_rng(0).standard_normal(shape[:3], np.float32))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rival.step(x)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"resident, added (MB)": (after - before) / 1024}))


def show(row: dict[str, Any], base: str) -> None:
    """Prints one line of the table: medians, and their ratio to `base`; and who is left out."""
    medians = row["median_ms"]
    ratios = relative(medians, base)
    cells = (f"{name} {t:.3g} ({ratios[name]:.2f})" for name, t in medians.items())
    shape = ",".join(map(str, row["shape"]))
    print(f"{shape:16} {row['kind']:10} ms: {'  '.join(cells)}", flush=True)
    for line in left_out([row]):
        print(f"bench: {line}", file=sys.stderr)


def shapes(usual: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """Returns the shapes of --shape, by default `usual`."""
    return tuple(parsed(text) for text in SHAPES.value) or usual


def parsed(text: str) -> Shape:
    """Returns T,B,D,H as four whole numbers."""
    try:
        T, B, D, H = (int(n) for n in text.split(","))
    except ValueError:
        raise app.UsageError(f"--shape={text}: need four whole numbers T,B,D,H") from None
    return T, B, D, H


def save(rows: list[dict[str, Any]]) -> None:
    """Writes all rows so far to the file of --json, if given."""
    if JSON.value:
        Path(JSON.value).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


SUITES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "peers": peers,
    "trials": trials,
    "throughput": throughput,
    "precision": _bench_training.precision,
    "memory": memory,
    "cells": cells,
    "own": own,
    "own_data": own_data,
    "forecast": lambda: late("_bench_forecast").forecast(at_most(3)),
    "policy": policy,
    "agent": lambda: late("_bench_agent").agent(at_most(3)),
    "linear": linear,
    "jobs": lambda: late("_bench_jobs").jobs(RIVAL.value, JOBS.value, minutes(), save, WRITE.value),
    "start": lambda: _bench_start.start(at_most(5)),
}


def main(arguments: list[str]) -> None:
    """Runs one suite."""
    suite = arguments[1] if len(arguments) > 1 else "peers"
    if suite not in SUITES or len(arguments) > 2:
        raise app.UsageError(f"SUITE={' '.join(arguments[1:])}: need one of {', '.join(SUITES)}")
    if RIVAL.value and suite == "memory":
        memory_of(RIVAL.value, shapes(())[0])
        return
    logging.set_verbosity(logging.WARNING)
    save(SUITES[suite]())


if __name__ == "__main__":
    # torch needs memory on the same GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.6")
    suite = next((word for word in sys.argv[1:] if not word.startswith("-")), "peers")
    if suite in ("peers", "trials", "throughput", "precision", "own_data", "forecast"):
        # One host device a core, as the experiments have it; before any backend starts.
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    app.run(main)
