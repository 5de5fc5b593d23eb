"""Asking optuna: the answer follows from what is told, and is better for it."""

import math

import numpy as np
import pytest

from lstm_jax.search import studies
from lstm_jax.search.space import parse

pytest.importorskip("optuna")

SPACE = parse(
    "clip=1 learning_rate=log:1e-4:1 cell=a,b depth=int:1:4", {"cell": "ab", "depth": range(1, 5)}
)


def told(count):
    points = [SPACE.draw(0, i) for i in range(count)]
    return [(p, abs(math.log10(p["learning_rate"]) + 2) + (p["cell"] == "b")) for p in points]


@pytest.mark.parametrize("sampler", ["tpe", "multivariate_tpe"])
def test_what_is_asked_depends_on_the_arguments_alone_and_lies_in_the_space(sampler):
    known = [*told(12), (SPACE.draw(0, 99), math.inf)]
    asked = studies.propose(SPACE, known, 5, seed=1, sampler=sampler)
    assert studies.propose(SPACE, known, 5, seed=1, sampler=sampler) == asked
    assert studies.propose(SPACE, known, 5, seed=2, sampler=sampler) != asked
    for point in asked:
        assert list(point) == ["clip", "learning_rate", "cell", "depth"] and point["clip"] == 1
        assert 1e-4 <= point["learning_rate"] <= 1 and point["cell"] in "ab"
        assert point["depth"] in (1, 2, 3, 4)
    assert len({point["learning_rate"] for point in asked}) == 5


def test_what_was_told_is_used():
    asked = studies.propose(SPACE, told(60), 20, seed=0, sampler="tpe")
    distance = [abs(math.log10(point["learning_rate"]) + 2) for point in asked]
    assert np.median(distance) < 0.5  # at random 1
    assert sum(point["cell"] == "a" for point in asked) >= 14


def test_what_is_not_installed_is_told(monkeypatch):
    studies.check("tpe")
    monkeypatch.setattr(studies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="gp needs optuna and torch: pip install optuna"):
        studies.check("gp")
