"""The import law: a room imports only from rooms above it, and what it may of other libraries."""

import re
import sys

import pytest

from scripts._structure import ABOVE, PACKAGE, ROOT, graph, imported, sources, violations
from tests.processes import run

TEXTS = sources()


@pytest.mark.parametrize("path", TEXTS)
def test_a_room_imports_only_from_rooms_above_it(path: str) -> None:
    assert violations(path, TEXTS[path]) == []


def test_every_room_is_in_the_order_and_no_arrow_runs_up() -> None:
    rooms = list(ABOVE)
    assert {path.split("/")[1].removesuffix(".py") for path in TEXTS} == set(rooms)
    for room, others in graph(TEXTS).items():
        assert all(rooms.index(other) < rooms.index(room) for other in others), room


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("cells/lstm.py", "from lstm_jax import engines", ["lstm_jax.engines"]),
        ("cells/lstm.py", "from ..engines.scan import Scan", ["lstm_jax.engines.scan"]),
        ("cells/lstm.py", "from .. import engines", ["lstm_jax.engines"]),
        ("cells/lstm.py", "from lstm_jax import unroll", ["lstm_jax.unroll"]),
        ("engines/scan.py", "import lstm_jax as lj", ["lstm_jax"]),
        ("diagnostics.py", "from lstm_jax.training.fit import fit", ["lstm_jax.training.fit"]),
        ("diagnostics.py", "from lstm_jax.nn import drop", ["lstm_jax.nn"]),
        ("diagnostics.py", "from lstm_jax.engines import unroll\nfrom lstm_jax import cells", []),
        ("tasks/recall.py", "def f():\n    import lstm_jax.nn", ["lstm_jax.nn"]),
        ("tasks/recall.py", "from lstm_jax.cells import LSTM", ["lstm_jax.cells"]),
        ("report/html.py", "import numpy\nimport jax.numpy as jnp", ["jax.numpy"]),
        (
            "report/html.py",
            "from lstm_jax.runs.records import RecordLog",
            ["lstm_jax.runs.records"],
        ),
        ("training/fit.py", "from absl import flags", ["absl"]),
        ("training/fit.py", "from experiments import runner", ["experiments"]),
        ("search/widths.py", "from lstm_jax import types\nfrom lstm_jax.nn import drop", []),
        ("training/fit.py", "from lstm_jax.nn import drop", ["lstm_jax.nn"]),
        ("cells/lstm.py", "from . import base\nfrom .base import Cell", []),
    ],
)
def test_the_law_sees_what_breaks_it(path: str, source: str, expected: list[str]) -> None:
    assert violations(f"{PACKAGE}/{path}", source) == expected


@pytest.mark.parametrize("folder", ["common", "hochreiter1997"])
def test_shared_machinery_of_experiments_imports_no_experiment(folder: str) -> None:
    shared = {"experiments.common", f"experiments.{folder}"}
    for file in (ROOT / "experiments" / folder).rglob("*.py"):
        names = imported(file.read_text(encoding="utf-8"), "")
        other = {name for name in names if name.split(".")[0] == "experiments"}
        assert {".".join(name.split(".")[:2]) for name in other} <= shared, file


def test_experiments_import_the_face_its_rooms_and_each_other() -> None:
    """No module behind a room but those of `report`, which the face leaves out for its extras."""
    behind = re.compile(rf"{PACKAGE}\.(?!report\b)\w+\.\w+|{PACKAGE}(\.\w+)*\._\w+")
    for file in (ROOT / "experiments").rglob("*.py"):
        names = imported(file.read_text(encoding="utf-8"), "")
        assert [name for name in names if behind.match(name)] == [], file


def modules_after(statement: str, before: str = "pass") -> set[str]:
    """Returns the modules that a statement brings after another one, in a fresh process."""
    code = (
        f"import sys; {before}; old = {{*sys.modules}}; {statement}; print(*{{*sys.modules}} - old)"
    )
    done = run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_library_imports_none_of_its_extras() -> None:
    extras = {"keras", "torch"}
    extras |= {"matplotlib", "orbax", "pandas", "plotly", "polars", "pyarrow", "scipy", "sklearn"}
    extras |= {"tensorboardX", "tqdm"}
    every_room = "import lstm_jax as lj; [getattr(lj, name) for name in lj.__all__]"
    brought = modules_after(every_room, "import jax, flax.nnx, optax, chex")
    assert f"{PACKAGE}.search" in brought
    assert {name.split(".")[0] for name in brought} & extras == set()


def test_the_face_imports_cells_engines_and_layers_and_the_rest_at_first_use() -> None:
    found = modules_after("import lstm_jax")
    rooms = {name.split(".")[1] for name in found if name.startswith(f"{PACKAGE}.")}
    assert rooms == {"cells", "checks", "engines", "nn", "types"}
    assert "jax.experimental.pallas" not in found
