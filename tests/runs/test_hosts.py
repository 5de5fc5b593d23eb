"""Several processes are one: equal numbers, one writer, and all of them end together."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
import types
import zlib
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
import pytest

from experiments.common import runner
from lstm_jax import evaluate, fit, make_trials
from lstm_jax.runs import hosts
from lstm_jax.runs.directory import GroupLog
from lstm_jax.tasks import Digits
from tests.experiments.common import test_runner
from tests.experiments.common.test_runner import TOY, outcome
from tests.toys import Elman
from tests.training.test_train import NETWORK, TASK

pytestmark = pytest.mark.usefixtures("standard_promotion")

ROOT = Path(__file__).parents[2]
TRIALS = make_trials(
    seed=[3, 1, 4, 1, 5], learning_rate=[1e-2, 3e-2, 1e-3, 1e-1, 1e-2], dropout=0.1, clip=1.0
)
DIGITS = Digits()


# What the processes do. ---------------------------------------------------------------------------


def numbers() -> dict[str, np.ndarray]:
    """What training and asking give, of five trials mapped and of one in a loop."""
    found: dict[str, Any] = {}
    one = jax.tree.map(lambda leaf: leaf[2:3], TRIALS)
    for name, batching, trials in (("vmap", "vmap", TRIALS), ("one", "map", one)):
        fitted = fit(TASK, NETWORK, trials, 10, batching=batching, progress=False)
        found |= {f"{name}/{key}": leaf for key, leaf in fitted.params.items()}
        found |= {f"{name}/loss": fitted.loss, f"{name}/metric": fitted.metric}
    reader = Elman(DIGITS.input_size, DIGITS.output_size)
    drawn = reader.init(jax.random.key(0), scale=1.0, gate_bias={})
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[None], drawn)
    asked = evaluate(DIGITS, reader, params, one, split="validation")  # examples shared by all
    return found | {"digits/correct": asked.correct, "digits/loss": asked.loss}


def raised(call: Any) -> str:
    try:
        return f"nothing but {call()}"
    except ValueError as error:
        return str(error)


def large(seed: int) -> bytes:
    """More than a block."""
    return np.random.default_rng(seed).bytes(hosts.BLOCK + 5)


def calls() -> int:
    """How often a process is asked what is process 0's to say."""
    called = []
    hosts.lead(lambda: called.append(1))
    return len(called)


def agreements() -> dict[str, Any]:
    """What this process hears of the others."""
    index = jax.process_index()
    return {
        "each": hosts.each(index, 7).tolist(),
        "lead": hosts.lead(lambda: ("from", index)),
        "large": zlib.crc32(hosts.lead(lambda: large(index))),
        "calls": hosts.each(calls()).tolist(),
        "error": raised(lambda: hosts.lead(lambda: [][index] if index else int("x"))),
        "alike": raised(lambda: hosts.check_alike("x", "x")),
        "different": raised(lambda: hosts.check_alike("the index", index)),
        "fits": raised(lambda: fit(TASK, NETWORK, TRIALS, 1 + index, progress=False)),
    }


def process(index: str, count: str, port: str, path: str, *arguments: str) -> None:
    """One of several processes: the toy experiment, then the rest, left beside the run."""
    place = [f"--coordinator=127.0.0.1:{port}", f"--processes={count}", f"--process={index}"]
    told = io.StringIO()  # what the program says: Gloo writes to the descriptor, in pieces
    with contextlib.redirect_stdout(told):
        code = runner.main(TOY, ["toy", *arguments, *place])
    if code == 0 and path:
        (Path(path) / f"told{index}").write_text(told.getvalue())
        heard, found = agreements(), numbers()
        (Path(path) / f"heard{index}").write_text(repr(heard))
        np.savez(Path(path) / f"numbers{index}.npz", allow_pickle=False, **found)
    sys.exit(code)


def slowly(index: str, count: str, port: str, path: str, *arguments: str) -> None:
    """The same, with a rest after each record, so that there is time for what may happen."""
    append = GroupLog.progress

    def rested(self, records):
        append(self, records)
        time.sleep(0.2)

    GroupLog.progress = rested
    process(index, count, port, path, *arguments)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(index: str, count: str, port: int, what: str, *arguments: str) -> subprocess.Popen:
    """A process with two devices (as many as there are cores) on this machine."""
    code = f"import sys; from tests.runs import test_hosts as t; t.{what}(*sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", code, index, count, str(port), *arguments],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def begun(what: str, path: str, *arguments: str) -> list[subprocess.Popen]:
    """Two processes."""
    port = free_port()
    return [start(index, "2", port, what, path, *arguments) for index in ("0", "1")]


def ended(processes: list[subprocess.Popen], seconds: float = 300) -> list[tuple[int, str, str]]:
    """Exit codes and what was said; a process that is not done in time is a failure."""
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    except subprocess.TimeoutExpired:
        hung(processes)
    return [(p.returncode, out, err) for p, (out, err) in zip(processes, said, strict=True)]


def hung(processes: list[subprocess.Popen]) -> NoReturn:
    """Ends all processes and fails with what they said and where each thread was."""
    for process in processes:
        process.send_signal(signal.SIGABRT)
    pytest.fail("\n".join(error for _, error in [process.communicate() for process in processes]))


# What came of it. ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The directory of a run in one process."""
    path = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(runner, "start", lambda platform: None)
        assert test_runner.run(f"--workdir={path}") == 0
    return path


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The directory of two processes, and what they said."""
    path = tmp_path_factory.mktemp("together")
    run = path / "run"
    said = ended(begun("process", str(path), f"--workdir={run}"))
    assert [code for code, _, _ in said] == [0, 0], said
    return path, said


def test_two_processes_leave_the_bytes_of_one(alone, together):
    path, _ = together
    assert outcome(path / "run") == outcome(alone)
    config = (path / "run" / "config.json").read_text()
    assert '"processes": 2' in config and "coordinator" not in config.split('"about"')[0]


def test_one_process_writes_and_tells(together):
    path, _ = together
    told = (path / "told0").read_text().splitlines()
    assert told[0] == told[-1] == f"run directory: {path / 'run'}"
    assert (path / "told1").read_text() == ""


def test_what_two_processes_compute_is_what_one_does(together):
    """With map bit for bit, as the runs above; with vmap to rounding, which Adam amplifies."""
    path, _ = together
    first, second = (dict(np.load(path / f"numbers{index}.npz")) for index in range(2))
    wanted = numbers()
    assert first.keys() == second.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(first[name], second[name])
        if values.dtype.kind == "f" and name.startswith("vmap"):
            np.testing.assert_allclose(first[name], values, rtol=1e-3, atol=1e-5)
        else:
            np.testing.assert_array_equal(first[name], values, err_msg=name)


def test_processes_hear_each_other(together):
    path, _ = together
    first, second = (eval((path / f"heard{i}").read_text(), {"np": np}) for i in range(2))
    assert first == second
    assert first["each"] == [[0, 7], [1, 7]] and first["lead"] == ("from", 0)
    assert first["calls"] == [[1], [0]], "who does not lead touches no disk"
    assert first["large"] == zlib.crc32(large(0)) and "invalid literal for int()" in first["error"]
    same = "must be the same in every process: process 1 has another"
    assert first["alike"] == "nothing but None" and first["different"] == f"the index {same}"
    assert first["fits"] == f"the settings of group 'main' {same}"


def test_a_process_that_is_alone_agrees_with_itself():
    assert hosts.each(3, 4).tolist() == [[3, 4]] and hosts.lead(lambda: 5) == 5
    hosts.check_alike("x", object())
    hosts.check_devices()
    assert hosts.leads() and not hosts.several() and hosts.leave(7) == 7


def test_hosts_of_unequal_devices_are_refused(monkeypatch):
    devices = [types.SimpleNamespace(process_index=index) for index in (1, 0, 1)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    with pytest.raises(ValueError, match=r"^every process must have as many .*, got 1, 2$"):
        hosts.check_devices()


def test_one_of_several_leaves_at_once_with_its_code_and_says_who_is_lost(monkeypatch):
    def gone(*_, **__):
        raise jax.errors.JaxRuntimeError("connection closed\nby peer")

    def exited(code):
        raise SystemExit(code)

    monkeypatch.setattr(hosts, "several", lambda: True)
    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", gone)
    monkeypatch.setattr(hosts.os, "_exit", exited)
    for call in (lambda: hosts.each(1), lambda: hosts.lead(int)):
        with pytest.raises(hosts.Lost, match=r"^another process has died: connection closed$"):
            call()
    with pytest.raises(SystemExit) as left:
        hosts.leave(3)
    assert left.value.code == 3


def test_joining_leaves_sigterm_to_python_and_detects_nothing_where_it_is_told(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: asked.append((a, k)))
    monkeypatch.setattr(jax.config, "update", lambda *told: asked.append(told))
    monkeypatch.setattr(hosts.rendezvous, "meet", lambda *told: asked.append(told))
    hosts.join("host:1", 2, 1)
    hosts.join()
    (met, off, (told, how), _, (nothing, detected)) = asked
    assert met == ("host:1", 2, 1, 60) and how["initialization_timeout"] == 60
    assert off == ("jax_enable_preemption_service", False) and told == ("host:1", 2, 1)
    assert how["cluster_detection_method"] == "deactivate"
    assert nothing == (None,) * 3 and detected["cluster_detection_method"] is None


def test_a_cluster_that_is_none_is_refused_by_flag(tmp_path, monkeypatch, capsys):
    def nothing(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", nothing)
    assert test_runner.run("--distributed", f"--workdir={tmp_path / 'run'}") == 2
    said = capsys.readouterr().err
    assert said == "toy: --distributed: coordinator_address should be defined.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_processes_that_do_not_fit_are_refused_by_flag_with_nothing_made(tmp_path):
    """As real processes: jax would abort, or take them."""
    port = free_port()
    first, second = (
        start(index, count, port, "process", "", f"--workdir={tmp_path / 'run'}")
        for index, count in (("0", "3"), ("1", "2"))
    )
    for code, _, error in ended([first, second]):
        assert code == 2 and error.splitlines()[-1] == (
            f"toy: --coordinator=127.0.0.1:{port}: processes must be the same in every process: "
            "2 in process 1, 3 in process 0"
        )
    assert list(tmp_path.iterdir()) == []


# What ends one ends all. --------------------------------------------------------------------------

LONG = "--steps=40"


def lines(path: Path, count: int, processes: list[subprocess.Popen]) -> None:
    """Waits until so many lines are on the ledger."""
    ledger, end = path / "records.jsonl", time.monotonic() + 300
    while not ledger.exists() or ledger.read_bytes().count(b"\n") < count:
        if time.monotonic() > end or any(process.poll() is not None for process in processes):
            hung(processes)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """The directory of a longer run in one process."""
    path = tmp_path_factory.mktemp("longer") / "run"
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(runner, "start", lambda platform: None)
        assert test_runner.run(f"--workdir={path}", LONG) == 0
    return path


def resumed(path: Path) -> dict[str, bytes]:
    """What a run leaves once one process has gone on with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "start", lambda platform: None)
        assert test_runner.run(f"--resume={path}") == 0
    return outcome(path)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_process_is_killed_the_other_ends(victim, longer, tmp_path):
    path = tmp_path / "run"
    processes = begun("slowly", "", f"--workdir={path}", LONG)
    lines(path, 4, processes)
    processes[victim].kill()
    said = ended(processes)
    code, _, error = said[1 - victim]
    assert code != 0 and ("another process has died" in error or "another task died" in error)
    assert resumed(path) == outcome(longer)


@pytest.mark.slow
def test_sigterm_on_one_stops_all_with_everything_saved(longer, tmp_path):
    """On process 1, which has no say in anything else."""
    path = tmp_path / "run"
    processes = begun("slowly", "", f"--workdir={path}", LONG)
    lines(path, 4, processes)
    processes[1].send_signal(signal.SIGTERM)
    said = ended(processes)
    assert [code for code, _, _ in said] == [143, 143]
    assert f"stopped; to continue: --resume={path}" in said[0][2]
    assert list((path / "checkpoints").glob("first/*"))
    again = ended(begun("process", "", f"--resume={path}"))  # and two may go on
    assert [code for code, _, _ in again] == [0, 0]
    assert outcome(path) == outcome(longer)
