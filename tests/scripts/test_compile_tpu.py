"""Ahead of time for TPUs: the real programs fit and keep to themselves; bad input is refused."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import _compile_tpu
from tests import processes

ROOT = Path(__file__).resolve().parents[2]
FIND = "import importlib.util, sys; sys.exit(importlib.util.find_spec('libtpu') is None)"


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python that has libtpu: that of scripts/compile_tpu, or this one."""
    for candidate in (ROOT / ".venv-tpu" / "bin" / "python", Path(sys.executable)):
        if candidate.exists() and processes.run([candidate, "-c", FIND]).returncode == 0:
            return candidate
    pytest.skip("libtpu is not installed: scripts/compile_tpu installs it")


def run(python: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return processes.run([python, "-P", *command], env=environment | {"PYTHONPATH": str(ROOT)})


def compile_tpu(python: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return run(python, "scripts/_compile_tpu.py", *flags)


@pytest.mark.slow
def test_long_memory_and_a_sweep_of_it_fit_without_a_collective(python, tmp_path):
    told = compile_tpu(python, "--topology=v5e:2x2", f"--json={tmp_path / 'table.json'}")
    assert told.returncode == 0, told.stderr
    table = json.loads((tmp_path / "table.json").read_text())
    assert "Scan(product='hoisted'" in table["model"] and "chrono" in table["model"]
    rows = {(row["program"], row["chips"], row["trials"]): row for row in table["rows"]}
    assert set(rows) == {(name, *n) for name in ("begin", "run") for n in ((1, 1), (4, 32))}
    for row in rows.values():
        assert row["fits"] == "yes" and row["collectives"] == "none"
    step, sweep = rows["run", 1, 1], rows["run", 4, 32]
    assert step["peak_MB"] < sweep["peak_MB"] < 16e3
    # The eight trials of a chip go together: XLA reckons with far less than eight times one.
    assert step["step_cycles"] < sweep["step_cycles"] < 4 * step["step_cycles"]


@pytest.mark.slow
def test_the_kernels_are_in_what_trains(python, tmp_path):
    """Forward and backward, in the step of one trial and in a sweep of 32 on four chips."""
    table = tmp_path / "table.json"
    told = compile_tpu(python, "--engine=pallas", "--topology=v5e:2x2,v6e:2x2", f"--json={table}")
    assert told.returncode == 0, told.stderr
    rows = json.loads(table.read_text())["rows"]
    assert {row["topology"] for row in rows} == {"v5e:2x2", "v6e:2x2"}
    assert {row["kernels"] for row in rows if row["program"] == "begin"} == {None}
    for row in rows:
        assert row["fits"] == "yes" and row["collectives"] == "none"
        assert row["program"] == "begin" or row["kernels"] == 2


def test_a_kernel_that_is_not_there_is_missed():
    row = {"fits": "yes", "collectives": "none", "kernels": None}
    assert _compile_tpu.good(row) and _compile_tpu.good({**row, "kernels": 2})
    assert not _compile_tpu.good({**row, "kernels": 0})


FAILING = """
import json, os
import jax
from jax.sharding import NamedSharding, PartitionSpec
from lstm_jax.training import parallel
from scripts import _compile_tpu

jax.config.update("jax_platforms", "cpu")
os.environ.update(_compile_tpu.ENVIRONMENT)
mesh, shards = parallel.everywhere(_compile_tpu.chips("v5e:2x2")), PartitionSpec("trials")

def talking(x):
    def body(x):
        return x - jax.lax.psum(x, "trials") + jax.lax.ppermute(x, "trials", [(0, 1), (1, 0)])
    return jax.lax.while_loop(lambda x: x.sum() > 0, body, x)

def large(x):
    return jax.numpy.sort(x.T @ x)[: len(x)]

def row(f, *shape):
    sharded = jax.shard_map(f, mesh=mesh, in_specs=shards, out_specs=shards, check_vma=False)
    x = jax.ShapeDtypeStruct(shape, "float32", sharding=NamedSharding(mesh, shards))
    row = _compile_tpu.measured(jax.jit(sharded).lower(x))
    return {**row, "good": _compile_tpu.good(row)}

print(json.dumps([row(talking, 64, 128), row(large, 64, 100_000)]))
"""


@pytest.mark.slow
def test_what_talks_in_its_loop_or_does_not_fit_is_seen(python):
    told = run(python, "-c", FAILING)
    assert told.returncode == 0, told.stderr
    talking, large = json.loads(told.stdout)
    assert talking["collectives"] == "1 all-reduce, 1 collective-permute"
    assert talking["fits"] == "yes" and not talking["good"]
    assert large["fits"].startswith("no: RESOURCE_EXHAUSTED") and not large["good"]


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v9:2x2", "v5e:3x7"])
def test_an_unknown_topology_is_refused_in_one_line(python, topology):
    told = compile_tpu(python, f"--topology={topology}")
    assert told.returncode == 2 and told.stdout == ""
    wanted = f"compile_tpu: --topology={topology}: need chips and their grid, such as v5e:2x2"
    assert told.stderr.startswith(wanted) and told.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--experiment=nope"], "--experiment=nope: need one of all, "),
        (["--group=nope"], "--group=nope: need one of recall_10-rnn-tuning, "),
        (["--trials=0"], "--trials=0: need a whole number, 1 or more"),
        (["--trials=some"], "--trials=some: need a whole number, 1 or more"),
        (["--json=/nowhere/x.json"], "--json=/nowhere/x.json: there is no folder /nowhere"),
        (["--topology="], "--topology=: need one or more, such as v5e:2x2"),
        (["--hidden=0"], "--hidden=0: need 1 to 1000000"),
        (["--hiden=3"], "Unknown command line flag 'hiden'"),
        (["--platform=gpu"], "--platform=gpu: need tpu, or none"),
        (
            ["--engine=pallas", "--hidden=2000"],
            "engine='pallas' cannot run LSTM(hidden=2000): its ",
        ),
        (["--workdir=runs/x"], "--workdir=runs/x: leave it out, nothing is run"),
    ],
)
def test_bad_input_is_named(flags, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}[^\n]*$"):
        _compile_tpu.read(["compile_tpu", *flags])


def test_without_libtpu_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'--topology=v5e:2x2: need libtpu: .*"\.\[tpu\]"'):
        _compile_tpu.read(["compile_tpu"])
