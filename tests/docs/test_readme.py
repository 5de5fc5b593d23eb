"""The README does what it says: its Python runs, in order, and its commands exist."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_of_the_readme_runs(standard_promotion, capsys):
    names: dict[str, Any] = {"__name__": "readme"}
    with jax.numpy_rank_promotion("allow"):  # as readers have it
        for block in blocks("python"):
            exec(compile(block, "README.md", "exec"), names)
    assert not np.any(np.asarray(names["h"])[:, 3]), "a row of length 0 is silent"
    np.testing.assert_allclose(names["y_t"], names["y"][-1], atol=1e-5)
    assert names["test"].n.tolist() == [500] * 8
    losses = np.asarray(names["losses"])
    assert losses.shape == (8, 50) and losses[4, -1] < losses[4, 0]
    assert "right" in capsys.readouterr().out


def test_a_cell_is_six_lines():
    body = next(block for block in blocks("python") if "class CIFG" in block)
    lines = body.split("class CIFG(lj.Cell):\n")[1].strip().splitlines()
    assert len(lines) == 6
    told = "".join(blocks("python"))
    for use in ("check_cell(CIFG(", "SequenceSpec(CIFG(", "unroll(CIFG("):
        assert use in told, "checked, trained, and swept with vmap"


def test_commands_and_links_lead_somewhere():
    commands = [line.split() for block in blocks("sh") for line in block.splitlines()]
    commands += [text.split() for text in re.findall(r"`(scripts/[^`]*)`", README)]
    for command, *rest in commands:
        assert (ROOT / command).is_file(), command
        if command == "scripts/run" and rest:
            assert (ROOT / f"experiments/{rest[0]}.py").is_file(), rest
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
