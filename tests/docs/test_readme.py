"""The README: its Python runs, its commands and links exist, its figures are the recorded ones."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lstm_jax.report.claims import FAILS, PARTLY, REPRODUCES
from scripts._experiments import FOLDER, experiments

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs/results.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def section(text: str, title: str) -> str:
    """The text under one heading, to the next of its level."""
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(title: str) -> list[list[str]]:
    """The body of the table in one section of the README."""
    lines = [line for line in section(README, title).splitlines() if line.startswith("|")]
    return [cells(line) for line in lines[2:]]


def test_the_python_of_the_readme_runs(standard_promotion, capsys, tmp_path, monkeypatch):
    """With two seeds and fewer epochs."""
    pytest.importorskip("aeon")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "readme"}
    with jax.numpy_rank_promotion("allow"):  # as readers have it
        for block in blocks("python"):
            block = block.replace("epochs=30, seeds=8", "epochs=10, seeds=2")
            exec(compile(block, "README.md", "exec"), names)
    assert not np.any(np.asarray(names["h"])[:, 3]), "a row of length 0 has outputs of zero"
    assert names["result"].evaluate("test").metric.min() > 0.9
    assert "['1' '1' '1' '1' '1']" in capsys.readouterr().out


def test_a_cell_is_six_lines_and_is_checked():
    body = next(block for block in blocks("python") if "class CIFG" in block)
    lines = body.split("class CIFG(lj.Cell):\n")[1].split("\n\n")[0].splitlines()
    assert len(lines) == 6
    assert "check_cell(CIFG(" in body


def test_commands_exist():
    commands = [line.split() for block in blocks("sh") for line in block.splitlines()]
    commands += [text.split() for text in re.findall(r"`(scripts/[^`]*)`", README)]
    for command, *rest in commands:
        if command.startswith("scripts/"):
            assert (ROOT / command).is_file(), command
        if command == "scripts/run" and rest and rest[0] != "NAME":
            assert (ROOT / f"experiments/{rest[0]}.py").is_file(), rest


def test_links_lead_to_files_and_headings():
    for file, _, anchor in re.findall(r"\]\(([^)#:]+)(#?)([^)]*)\)", README):
        text = (ROOT / file).read_bytes()
        if anchor:
            titles = re.findall(r"^#+ (.*)$", text.decode(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
            assert anchor in slugs, (file, anchor)


def test_the_readme_is_short_and_opens_its_sentences_with_a_subject():
    assert len(README.splitlines()) <= 130
    for line in PROSE.splitlines():
        for sentence in re.split(r"(?<=[.:?!|]) +|^[-*|] *", line):
            assert not re.match(r"(What|Who|Whose|Of|There (is|are))\b", sentence), sentence


def test_the_results_have_every_experiment_in_few_words():
    names = [re.fullmatch(r"\[(\w+)\]\(.*\)", name) for name, *_ in rows("Results")]
    tools = {"predict", "train"}  # of your own files: they have no results
    assert {match[1] for match in names if match} == set(experiments(FOLDER)) - tools
    for _, question, outcome, minutes in rows("Results"):
        assert len(question.split()) <= 8, question
        assert len(outcome.replace(" %", "%").split()) <= 12, outcome
        assert minutes.isdigit(), minutes


def test_the_minutes_are_those_of_the_experiments_page():
    page = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    costs = dict(re.findall(r"^\| \[(\w+)\]\(#\1\) \|.*\| (\d+) \|$", page, re.MULTILINE))
    ours = {name[1:].split("]")[0]: minutes for name, *_, minutes in rows("Results")}
    assert ours == costs | {"all": str(sum(map(int, costs.values())))}
    ran = re.findall(r"^\| (\w+) \| [\d.]+ \|", section(RESULTS, "Cost"), re.MULTILINE)
    together = sum(int(costs[name]) for name in ran if name != "together")
    assert f"take {together} minutes and all experiments {ours['all']}" in RESULTS
    assert f"# {ours['all']} minutes on two idle cores" in page


OUTCOMES = {row[0][1:].split("]")[0]: row[2] for row in rows("Results")}


@pytest.mark.parametrize("name", sorted(OUTCOMES.keys() - {"all"}))
def test_an_outcome_is_the_recorded_one(name):
    outcome = OUTCOMES[name]
    text = section(RESULTS, name)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    claims = text.split("| verdict |\n")[-1].split("\n\n")[0].splitlines()[1:]
    verdicts = {cells(line)[-1] for line in claims if line.startswith("|")}
    mixed = PARTLY if verdicts & {REPRODUCES, PARTLY} else FAILS
    verdict = mixed if len(verdicts) > 1 else (verdicts or {"no claim"}).pop()
    assert outcome.startswith(f"{verdict.capitalize()}:"), (outcome, verdict)
    recorded = "\n".join(lines).replace("/", " of ")
    for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?: of \d+)?(?![\w])", outcome):
        assert number in recorded or number == "1997", (number, outcome)


def test_the_figures_of_speed_are_the_measured_ones():
    (ours,) = rows("Benchmarks")
    text = section(BENCHMARKS, "A training step of one layer, milliseconds")
    measured = [cells(line) for line in text.splitlines() if line.startswith(f"| {ours[0]} |")]
    medians = [re.sub(r" <sub>.*?</sub>", "", cell) for cell in measured[0]]
    assert [cell.strip("*") for cell in ours] == medians[:7]
    layer, trials, gate = (figure for _, figure, _ in rows("Advantages"))
    torch, flax = re.findall(r"\d\.\d\d", layer)
    assert f"scan, spread {torch} of\ntorch, 0.54 of Flax, {flax} of Flax, spread" in text
    assert f"costs {trials.split()[0]} of one alone" in BENCHMARKS
    limits = section(README, "Limitations")
    (torch,) = re.findall(r"takes (\d\.\d\d) times as long as in torch", limits)
    (forward,) = re.findall(r"a forward pass (\d\.\d\d)", limits)
    assert f"of Flax, {torch} of torch" in text
    assert f"of Flax, {forward} of torch" in section(BENCHMARKS, "Forward alone, milliseconds")
    policy = section(BENCHMARKS, "A recurrent policy in linen").split("Temporaries")[0]
    for ratio in re.findall(r"\| (\d\.\d\d) \|$", policy, re.MULTILINE):
        assert ratio in limits
    wide = section(BENCHMARKS, "Cells of one's own").split("| 100,16,8,32")[0]
    ratios = re.findall(r"\| (\d\.\d\d) \|$", wide, re.MULTILINE)
    assert max(ratios) == re.findall(r"\d\.\d\d", gate)[0], "the slowest cell at that shape"
