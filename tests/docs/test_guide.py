"""The guide and the reference: every block of Python runs, and every public name has an entry."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import jax
import pytest

import lstm_jax as lj
from tests.docs.test_docs import python

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "index.md", *sorted((DOCS / "guide").glob("*.md"))]
OTHERS = {"from_torch": "torch", "from_keras": "keras"}  # pages that import another library
# What compiles most; tests of exports, reports and policies run their parts by default.
SLOW = {*OTHERS, "own_data", "forecasting", "sweeps", "export", "recurrent_policies", "reports"}
SLOW |= {"flax_models", "own_loop"}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * (page.stem in SLOW))
        for page in PAGES
    ],
)
def test_the_python_of_a_page_runs(page, standard_promotion, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # it is TensorFlow by default
    if page.stem in OTHERS:
        pytest.importorskip(OTHERS[page.stem])
    names: dict[str, Any] = {"__name__": page.stem}
    with jax.numpy_rank_promotion("allow"):  # as readers have it
        for block in python(page.read_text(encoding="utf-8")):
            exec(compile(block, f"<{page.name}>", "exec"), names)


def documented() -> list[Any]:
    """Returns the objects that the reference pages name, and what `__all__` of a module names."""
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("reference/*.md"))
    found = [_object(path) for path in re.findall(r"^::: (\S+)$", text, re.MULTILINE)]
    modules = [thing for thing in found if inspect.ismodule(thing)]
    return found + [getattr(m, name) for m in modules for name in getattr(m, "__all__", dir(m))]


def _object(path: str) -> Any:
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            thing = getattr(thing, name)
        return thing
    raise ModuleNotFoundError(path)


def test_every_public_name_has_an_entry_in_the_reference():
    known = documented()
    face = {f"lj.{name}": getattr(lj, name) for name in lj.__all__}
    rooms = {name: room for name, room in face.items() if inspect.ismodule(room)}
    public = {
        f"{name}.{n}": getattr(room, n) for name, room in rooms.items() for n in _public(room)
    }
    public |= {name: thing for name, thing in face.items() if name not in rooms}
    entries = {name: thing for name, thing in public.items() if callable(thing)}
    assert [name for name, thing in entries.items() if not any(thing is k for k in known)] == []


def _public(room: Any) -> list[str]:
    own = [
        n for n, thing in vars(room).items() if getattr(thing, "__module__", "") == room.__name__
    ]
    return list(getattr(room, "__all__", [n for n in own if not n.startswith("_")]))


def test_the_pages_of_the_site_are_those_on_the_disk():
    config = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    linked = set(re.findall(r"[\w/]+\.md$", config, re.MULTILINE))
    assert linked == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
