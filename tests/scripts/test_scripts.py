"""The commands a person types, copied to a machine where only Python is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import run

ROOT = Path(__file__).parents[2]
TOOLS = ("basename", "bash", "cat", "cksum", "cp", "dirname", "mkdir")

EXPERIMENT = '''"""The claim of {name}.

Command: scripts/run {name}
Cost: {cost}
"""
raise RuntimeError("read, never imported")
'''

# A python3 that writes down what it is asked for; the environments it makes have itself in them.
PYTHON3 = """#!/bin/sh
case "$*" in
  --version) echo Python 3.99; exit ;;
  "-c import"*) exit ;;
  *_experiments.py*) exec '{python}' "$@" ;;
  "-m venv"*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
esac
echo "$@" >> '{log}'
"""
OLD_PYTHON3 = """#!/bin/sh
case "$*" in --version) echo Python 3.8.18 ;; *) exit 1 ;; esac
"""


class Machine:
    """A checkout with two experiments, and the few programs that the scripts may rely on."""

    def __init__(self, folder: Path):
        self.checkout, self.programs, self.log = folder / "repo", folder / "bin", folder / "log"
        shutil.copytree(ROOT / "scripts", self.checkout / "scripts")
        shutil.copy(ROOT / "setup.cfg", self.checkout)
        experiments = self.checkout / "experiments"
        experiments.mkdir()
        for name, cost in (("near", "a minute"), ("far", "15 minutes")):
            experiments.joinpath(f"{name}.py").write_text(EXPERIMENT.format(name=name, cost=cost))
        experiments.joinpath("runner.py").write_text('"""What experiments share."""\n')
        self.programs.mkdir()
        for tool in TOOLS:
            self.programs.joinpath(tool).symlink_to(str(shutil.which(tool)))
        self.install_python3(PYTHON3.format(python=sys.executable, log=self.log))

    def install_python3(self, script: str, name: str = "python3") -> None:
        python3 = self.programs / name
        python3.write_text(script)
        python3.chmod(0o755)

    def __call__(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script from another folder."""
        command = [self.checkout / "scripts" / script, *arguments]
        return run(command, env={"PATH": str(self.programs)}, cwd=self.programs)

    def asked(self) -> list[str]:
        """What Python was asked for since the last look."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    def installation(self, extras: str) -> str:
        options = "install -qq --disable-pip-version-check --editable"
        return f"-m pip {options} {self.checkout}[{extras}]"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    folder = tmp_path / "a name with spaces"
    folder.mkdir()
    return Machine(folder)


def test_run_alone_lists_experiments_with_claim_and_cost(machine: Machine) -> None:
    listing = machine("run")
    assert listing.returncode == 0
    lines = [line.strip() for line in listing.stdout.splitlines() if line]
    assert lines[1:] == [
        *("far", "The claim of far.", "Cost: 15 minutes"),
        *("near", "The claim of near.", "Cost: a minute"),
    ]
    assert machine.asked() == []  # no environment is made for it


def test_an_unknown_experiment_is_refused_by_name(machine: Machine) -> None:
    refusal = machine("run", "runner", "--quick")
    assert refusal.returncode == 2
    assert refusal.stderr == "run: no experiment 'runner': choose from far, near\n"
    assert machine.asked() == []


def test_run_sets_up_the_first_time_and_passes_its_arguments_on(machine: Machine) -> None:
    venv = machine.checkout / ".venv"
    running = "-P -m experiments.near --quick --lags=10,30"
    first = machine("run", "near", "--quick", "--lags=10,30")
    assert first.returncode == 0, first.stderr
    assert machine.asked() == [
        f"-m venv --clear {venv}",
        machine.installation("experiments"),
        running,
    ]
    assert len(first.stderr.splitlines()) == 3  # one line for each
    machine("run", "near", "--quick", "--lags=10,30")
    assert machine.asked() == [running]


def test_the_commands_share_one_environment(machine: Machine) -> None:
    machine("test", "-k", "law")
    asked = [machine.installation("experiments,test"), "-m pytest -n auto --dist loadfile -k law"]
    assert machine.asked()[1:] == asked
    machine("run", "far")
    assert machine.asked() == ["-P -m experiments.far"]
    machine("test", "--all")
    for_tpus = ["-m venv --clear {}-tpu".format(machine.checkout / ".venv")]
    for_tpus += [machine.installation("experiments,tpu")]
    everything = machine.installation("experiments,test,rivals")
    assert machine.asked() == [*for_tpus, everything, "-m pytest -n auto --dist loadfile --all"]
    machine("check")
    assert machine.asked() == ["-m ruff check", "-m ruff format --check", "-m pyright"]


def test_another_python_has_an_environment_of_its_own(machine: Machine) -> None:
    healthy = PYTHON3.format(python=sys.executable, log=machine.log)
    machine.install_python3(healthy, "python3.99")
    machine.install_python3(OLD_PYTHON3)
    assert machine("test", "-k", "law", "--python=3.99", "-x").returncode == 0
    making = "-m venv --clear {}-3.99".format(machine.checkout / ".venv")
    installing = machine.installation("experiments,test")
    assert machine.asked() == [making, installing, "-m pytest -n auto --dist loadfile -k law -x"]
    refusal = machine("test", "--python=3.98")
    assert refusal.returncode == 2
    needed = "Python 3.11 or newer is needed, found no python3.98: install one as python3.98"
    assert refusal.stderr == f"test: {needed}\n"
    assert machine.asked() == []


def test_the_compiler_for_tpus_has_an_environment_of_its_own(machine: Machine) -> None:
    venv, script = machine.checkout / ".venv-tpu", machine.checkout / "scripts" / "_compile_tpu.py"
    compiling = machine("compile_tpu", "--topology=v6e:2x2")
    assert compiling.returncode == 0, compiling.stderr
    assert machine.asked() == [
        f"-m venv --clear {venv}",
        machine.installation("experiments,tpu"),
        f"-P {script} --topology=v6e:2x2",
    ]
    assert not machine.checkout.joinpath(".venv").exists()


def test_a_gpu_is_used_with_the_python_that_is_there(machine: Machine) -> None:
    assert machine("gpu", "check", "--minutes=3").returncode == 0
    script = machine.checkout / "scripts" / "_gpu.py"
    assert machine.asked() == [f"-P {script} check --minutes=3"]
    assert not list(machine.checkout.glob(".venv*"))


def test_other_dependencies_are_installed(machine: Machine) -> None:
    machine("run", "far")
    machine.asked()
    with machine.checkout.joinpath("setup.cfg").open("a") as setup:
        setup.write("    another\n")
    machine("run", "far")
    assert machine.asked() == [machine.installation("experiments"), "-P -m experiments.far"]


def test_a_failed_installation_is_tried_again(machine: Machine) -> None:
    healthy = PYTHON3.format(python=sys.executable, log=machine.log)
    failing = healthy.replace("  --version)", '  *"pip install"*) exit 1 ;;\n  --version)')
    machine.install_python3(failing)
    assert machine("run", "far").returncode == 1
    machine.asked()
    machine.install_python3(healthy)
    shutil.copy(machine.programs / "python3", machine.checkout / ".venv" / "bin" / "python")
    assert machine("run", "far").returncode == 0
    assert machine.asked() == [machine.installation("experiments"), "-P -m experiments.far"]


@pytest.mark.parametrize(
    "command", [("run",), ("run", "far"), ("test",), ("check",), ("compile_tpu",), ("gpu",)]
)
def test_a_python_too_old_is_named(machine: Machine, command: tuple[str, ...]) -> None:
    machine.install_python3(OLD_PYTHON3)
    refusal = machine(*command)
    assert refusal.returncode == 2
    needed = "Python 3.11 or newer is needed, found Python 3.8.18: install one as python3"
    assert refusal.stderr == f"{command[0]}: {needed}\n"
