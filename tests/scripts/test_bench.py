"""The benchmarks run, whoever is there to be measured; nothing here is timed."""

import json
import math
import os
import select
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from lstm_jax.data import Series
from scripts import _bench_digits as digits
from scripts import _bench_flax as flax
from scripts import _bench_forecast as forecasts
from scripts import _bench_gpu as gpu
from scripts import _bench_jobs as jobs
from scripts import _bench_own_data as own
from scripts import _bench_training as training
from scripts import _gpu
from tests.compiling import CHEAP
from tests.processes import LIMIT, run

ROOT = Path(__file__).parents[2]
SHAPE = (5, 2, 3, 4)


@pytest.fixture
def few(monkeypatch) -> None:
    """One rival of each kind, and one sweep: little to compile."""
    names = ("scan bf16", "pallas bf16", "torch tf32", "haiku tf32", "flax linen bf16")
    monkeypatch.setattr(gpu, "RIVALS", {name: gpu.RIVALS[name] for name in names})
    monkeypatch.setattr(gpu, "OURS", {"scan bf16": gpu.OURS["scan bf16"]})
    monkeypatch.setattr(gpu, "SWEEPERS", gpu.OURS)
    monkeypatch.setattr(gpu, "SWEEPS", gpu.SWEEPS[:1])
    monkeypatch.setattr(gpu, "CELLS", {name: gpu.CELLS[name] for name in ("LSTM", "Leaky")})
    monkeypatch.setattr(gpu, "ENGINES", ("scan",))


@pytest.fixture
def alone(monkeypatch) -> None:
    """A machine where no other library can be imported."""
    for library in ("torch", "flax.linen", "haiku", "flashrnn"):
        monkeypatch.setitem(sys.modules, library, None)


def test_absent_rivals_are_named_and_the_table_comes_last(few, alone, capsys) -> None:
    saved = []
    rows = gpu.run(1, 60, [SHAPE], tiny=True, save=lambda rows: saved.append(len(rows)))
    assert [row["kind"] for row in rows] == ["step", "step", "per gate", "errors", "forward"]
    assert saved == [1, 2, 3, 4, 5]
    json.dumps(rows)
    assert set(rows[0]["median_ms"]) == set(rows[4]["median_ms"]) == {"scan bf16"}
    assert rows[1]["shape"] == [4, 4, 4, 4, 4]
    assert set(rows[2]["relative"]) == {"scan LSTM", "scan Leaky"}
    error = rows[3]["relative"]["scan bf16"]
    assert 1e-4 < error["h"] < 3e-2 and 1e-4 < error["gradients"] < 5e-2
    printed = capsys.readouterr()
    assert printed.out.startswith("| Forward / training step, ms, at T,B,D,H | 4,2,3,4 |")
    why = "it is a kernel for a gpu or a tpu, not for a cpu; 'reference' and 'scan' can"
    told = f"ValueError: engine='pallas' cannot run LSTM(hidden=4): {why}"
    assert f"left out: pallas bf16 ({told})" in printed.out
    for name in ("torch tf32", "haiku tf32", "flax linen bf16"):
        assert f"left out: {name} (ModuleNotFoundError" in printed.out
    assert "step (4, 2, 3, 4)" in printed.err


def test_on_a_gpu_the_kernels_serve_every_cell_that_is_timed() -> None:
    H = gpu.SHAPES[0][-1]
    for make in gpu.CELLS.values():
        assert "pallas" in gpu.lj.engines.serves(make(H), "gpu", gpu.TERMS["bf16"][0])
    assert "pallas" not in gpu.lj.engines.serves(gpu.lj.cells.LSTM(H), "gpu", gpu.TERMS["f32"][0])


def test_a_cell_of_ones_own_is_measured_gate_by_gate(monkeypatch) -> None:
    medians = {"scan LSTM": 4.0, "scan Coupled": 4.5, "scan Leaky": 1.0, "pallas Leaky": 1.0}

    def compared(makers, shape, kind, repeats):
        assert kind == "step" and set(medians) < set(makers)
        return {"shape": list(shape), "kind": kind, "skipped": {}, "median_ms": medians}

    monkeypatch.setattr(gpu, "compared", compared)
    row = gpu.per_gate(SHAPE, 1, "f32", gpu.ENGINES)
    assert row["relative"] == {"scan LSTM": 1.0, "scan Coupled": 1.5, "scan Leaky": 0.5}


@pytest.mark.slow
def test_rivals_that_are_here_are_measured() -> None:
    pytest.importorskip("torch")
    names = ("scan bf16", "torch tf32", "haiku tf32")
    row = gpu.compared({name: gpu.RIVALS[name] for name in names}, SHAPE, "forward", 2)
    present = {"scan bf16", "torch tf32"}
    assert present <= set(row["median_ms"])
    assert set(row["median_ms"]) | set(row["skipped"]) == set(names)
    assert all(row["median_ms"][name] > 0 for name in present)


def test_what_does_not_fit_the_time_is_left_out(capsys) -> None:
    rows = gpu.run(1, 0, [SHAPE])
    assert {row["kind"] for row in rows} == {"left out"}
    assert "left out: sweep (1056, 200, 32, 8, 32) (no time)" in capsys.readouterr().out


def test_verdicts_are_on_equal_terms() -> None:
    first = {"scan bf16": 2.0, "pallas bf16": 1.0, "torch bf16": 4.0, "torch fp16": 2.0}
    second = {"scan bf16": 6.0, "torch bf16": 3.0, "scan tf32": 1.0}
    sweep = {"kind": "step", "shape": [2, 1, 1, 1, 1], "median_ms": {"scan bf16": 9.0}}
    rows = [
        {"kind": "step", "shape": [1, 1, 1, 1], "median_ms": first},
        {"kind": "step", "shape": [2, 2, 2, 2], "median_ms": second},
        {"kind": "forward", "shape": [2, 2, 2, 2], "median_ms": {"scan bf16": 0.5}},
        sweep,
    ]
    assert gpu.verdicts(rows) == "16 bits, best of torch: 1.00 of theirs, worst 2.00 at 2,2,2,2"
    table = gpu.tables(rows)
    assert "| scan bf16 | - / 2 | 0.5 / 6 |" in table
    assert "| scan bf16 | 9 |" in table


@pytest.mark.slow
def test_the_whole_benchmark_of_a_gpu_runs_unattended_on_a_cpu(tmp_path) -> None:
    """As `scripts/gpu bench` starts it, all its rivals and parts, shapes shrunk."""
    command = _gpu.command("peers", _gpu.Request([], tmp_path, 60, tiny=True), 3600)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": CHEAP}
    done = run(command, env=environment, check=True, timeout=1800)
    rows = json.loads((tmp_path / "peers.json").read_text())["rows"]
    kinds = [row["kind"] for row in rows]
    assert list(dict.fromkeys(kinds)) == ["step", "per gate", "errors", "forward"]
    for row in rows:
        found = row.get("median_ms", {}) | row.get("relative", {})
        assert any(name.startswith("scan") for name in found)
    known = set(rows[0]["median_ms"]) | set(rows[0]["skipped"])
    assert known == set(gpu.RIVALS)
    assert done.stdout.startswith("| Forward / training step")


# Training. ----------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch, standard_promotion) -> None:
    sizes = dict(LENGTH=6, BATCH=2, HIDDEN=2, TRIAL_STEPS=8, LEAST_STEPS=2, ALONE=2, LAG=3)
    for name, value in {**sizes, "CHECKPOINTS": 2}.items():
        monkeypatch.setattr(training, name, value)


@pytest.mark.slow
def test_throughput_counts_trial_steps_for_every_way_to_run_them(small, capsys) -> None:
    (row,) = training.throughput([2], 1, 60)
    assert set(row["median"]) == {"one by one", "2 by map", "2 by vmap"}
    assert all(rate > 0 for rate in row["median"].values())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| one by one", "| 2"]


@pytest.mark.slow
def test_precision_compares_seed_by_seed(small, capsys) -> None:
    rows = training.precision(2, 4, 1e-2)
    assert [row["step"] for row in rows] == [2, 4]
    for row in rows:
        assert 0 < abs(row["difference"]) < 0.05 * row["float32"]
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_standard_error_is_of_pairs() -> None:
    single, half = training.np.array([1.0, 2.0, 3.0]), training.np.array([1.1, 2.1, 3.4])
    row = training.paired(5, single, half)
    assert row["difference"] == pytest.approx(0.2)
    assert row["standard_error"] == pytest.approx(0.1)  # of 0.1, 0.1, 0.4: sd sqrt(.03), / sqrt(3)
    assert row["spread_over_seeds"] == pytest.approx(1.0)


def test_the_layer_of_a_policy_is_timed_beside_linens() -> None:
    row = flax.policy(SHAPE, repeats=1)
    json.dumps(row)
    assert set(row["median_ms"]) == set(row["temporaries_MiB"]) == {"ScannedRNN", "ours"}


# Jobs. --------------------------------------------------------------------------------------------


@pytest.fixture
def invented(monkeypatch) -> None:
    """A job whose rivals do nothing, one with other results; torch does a tenth of it."""
    results = {jobs.OURS: 0.9, "torch": 0.9, "Flax": 0.5}
    calls = {name: lambda n, value=value: [value + n / 100] for name, value in results.items()}
    goals = {"torch": (0.5, 0.8)}
    job = jobs.Job("a job", lambda: calls, 3, goals, "accuracy", {"torch": 10.0})
    monkeypatch.setattr(jobs, "JOBS", {"a": job})


def test_a_job_is_compared_only_with_equal_results(invented) -> None:
    row = jobs.measure("a")
    json.dumps(row)
    assert {len(each) for each in row["seconds"].values()} == {3}
    row["seconds"] = {jobs.OURS: [1.0, 2.0, 3.0], "torch": [4.0, 4.0, 8.0], "Flax": [1.0] * 3}
    assert jobs.ratio(row, "torch") == (0.5, 0.125, 0.75)
    ours, torch, linen = jobs.table([row]).splitlines()[2:]
    assert "| 2 | 1 to 3 | accuracy 0.910 [0.885, 0.935] |" in ours
    assert torch.endswith("| 0.50 | 0.5 | 0.8 |") and "torch *" in torch
    assert linen.endswith("| results differ |  |  |")
    assert jobs.draw([row]).startswith(b"\x89PNG")


def test_a_sample_is_multiplied_to_the_whole_job(invented, monkeypatch) -> None:
    second = jobs.np.array([1000.0])
    monkeypatch.setattr(jobs, "interleaved", lambda calls, n, warm: dict.fromkeys(calls, second))
    assert jobs.measure("a")["seconds"] == {jobs.OURS: [1.0], "torch": [10.0], "Flax": [1.0]}


def test_an_unknown_job_is_refused(invented) -> None:
    with pytest.raises(jobs.app.UsageError, match="--jobs=a,z: need some of a"):
        jobs.jobs(None, ["a", "z"], math.inf, lambda rows: None, False)


@pytest.mark.slow
def test_flax_searches_in_one_program(monkeypatch, standard_promotion) -> None:
    monkeypatch.setattr(digits, "IMAGES", 200)
    found = digits.with_flax(digits.digits(1), [1e-3, 1e-2], [1.0, 1.0], [0, 1])
    assert len(found) == 2 and all(0 <= accuracy <= 1 for accuracy in found)


def test_a_job_that_does_not_fit_the_time_ends_with_what_it_started() -> None:
    sleep = "[sys.executable, '-c', 'import time; time.sleep(60)'], close_fds=False"
    starts = f"import subprocess, sys; subprocess.run({sleep})"
    read, write = os.pipe()
    end = time.monotonic() + 1
    assert not jobs.finishes([sys.executable, "-c", starts], end, pass_fds=[write])
    os.close(write)
    assert select.select([read], [], [], 10)[0], "a process still holds the other end"
    os.close(read)
    long = time.monotonic() + LIMIT
    assert jobs.finishes([sys.executable, "-c", ""], long)
    with pytest.raises(subprocess.CalledProcessError):
        jobs.finishes([sys.executable, "-c", "raise SystemExit(3)"], long)


def test_a_job_without_torch_has_the_other_rivals(monkeypatch, capsys) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert set(digits.one_training()) == {jobs.OURS}
    assert "bench: torch left out" in capsys.readouterr().err


def test_own_data_and_forecasts_are_measured_without_torch(monkeypatch, capsys) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(own.TRAIN, jobs.OURS, lambda problem: np.full((4, 4), 0.5))
    row = own.own_data(own.Problem("rows", None, 2, 1), 1)
    assert list(row["accuracy"]) == [jobs.OURS]
    data = types.SimpleNamespace(series=Series(np.arange(1.0, 60)), horizon=2)
    monkeypatch.setattr(forecasts.competitions, "competition", lambda *given: data)
    monkeypatch.setitem(forecasts.TRAIN, jobs.OURS, lambda task, n: [0.5, 0.6])
    (row,) = forecasts.forecast(1)
    assert list(row["mase"]) == [jobs.OURS]
    printed = capsys.readouterr()
    assert "torch" not in printed.out and "MASE of a network: lstm_jax 0.550" in printed.out
