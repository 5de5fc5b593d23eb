"""memory_rl: plan, table, claims and figures as functions of records; one tiny run, killed."""

import jax
import numpy as np
import pytest

from experiments import memory_rl
from experiments.common import runner
from experiments.memory_rl import SCALES, MemoryRL
from lstm_jax.report import figures
from lstm_jax.report.claims import FAILS, REPRODUCES, UNDECIDED

CONFIG = MemoryRL(environments=("t_maze", "masked_cartpole"), lengths=(5, 20), seeds=3)
TINY = [
    "--environments=t_maze", "--lengths=1,2", "--policies=lstm", "--hidden=4", "--steps=2",
    "--horizon=8", "--batch_size=4", "--learning_rates=1e-3,1e-2", "--seeds=2",
    "--tuning_seeds=1", "--episodes=4", "--platform=cpu",
]  # fmt: skip


def recorded(score=lambda name, length: 1.0) -> list[dict]:
    """The records of a finished run, with two tuning trials in each group."""
    records = []
    for problem in CONFIG.problems:
        for name in CONFIG.policies:
            for n in range(2 + CONFIG.seeds):
                value = score(name, problem.length) if n >= 2 else 0.0
                shown = {"input": np.zeros((3, 6)).tolist(), "action": [0] * 6}
                shown |= {key: np.zeros((4, 6)).tolist() for key in "ifgoc"}
                records.append(
                    {"kind": "result", "group": problem.group(name), "seed": n,
                     "phase": "reported" if n >= 2 else "tuning", "learning_rate": 1e-3,
                     "score": value, "return": 2 * value, "curve": [[10, None], [20, value]],
                     **({"shown": shown} if name == "lstm" and n == 2 else {})}
                )  # fmt: skip
    return records


def verdicts(score) -> dict[str, str]:
    rows = memory_rl.summarise(CONFIG, recorded(score))
    return {claim.claim: claim.verdict for claim in memory_rl.claims(CONFIG, rows)}


def test_a_group_is_one_policy_on_one_problem():
    names = [group.name for group in memory_rl.plan(CONFIG, [])]
    assert len(names) == len(set(names)) == 3 * len(CONFIG.policies)
    assert "t_maze_20-gru" in names and "masked_cartpole-gru" in names


def test_the_table_is_of_reported_seeds_alone():
    for row in memory_rl.summarise(CONFIG, recorded()):
        assert str(row["solved"]).startswith("3/3") and row["score"].value == 1


def test_the_numbers_are_a_line_for_each_policy():
    lines = memory_rl.numbers(CONFIG, memory_rl.summarise(CONFIG, recorded()))
    assert len(lines) == len(CONFIG.policies)
    for line in lines:
        assert next(iter(line)) == "seeds that solve" and line["t_maze 20"] == "3/3"


def test_verdicts_follow_from_scores():
    alone, reaches, helps = (
        "t_maze: without memory no policy scores above 0.5, its known ceiling",
        "t_maze: an LSTM policy reaches the optimum at length 20",
        "t_maze: chrono biases help an LSTM policy at length 20",
    )
    found = verdicts(lambda name, length: 0.5 if name == "feedforward" else 1.0)
    assert found == {alone: REPRODUCES, reaches: UNDECIDED, helps: UNDECIDED}  # three seeds
    found = verdicts(lambda name, length: 1.0 if name == "lstm_chrono" else 0.6)
    assert found[alone] == FAILS and found[helps] == REPRODUCES


def test_figures_are_drawn_from_records():
    records = recorded()
    drawn = memory_rl.draw(CONFIG, memory_rl.summarise(CONFIG, records), records)
    assert [picture.name for picture in drawn] == ["success", "learning", "episode"]
    assert all(figures.png(picture.figure) for picture in drawn)


def test_both_lstms_share_a_program_and_only_chrono_biases_differ():
    assert CONFIG.policy("lstm") == CONFIG.policy("lstm_chrono")
    problem, policy = CONFIG.problems[1], CONFIG.policy("lstm")
    key, env = jax.random.key(0), problem.environment
    plain, chrono = (
        policy.init(key, env, **memory_rl.biases(problem, name)) for name in ("lstm", "lstm_chrono")
    )
    assert (plain["cell"].w_h == chrono["cell"].w_h).all()
    assert (plain["cell"].b != chrono["cell"].b).any()


def test_tuning_and_report_of_the_usual_scale_share_a_program():
    config = SCALES["small"]
    assert len(config.tuned) * len(config.learning_rates) == config.seeds


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, monkeypatch, capsys, standard_promotion):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = lambda *more: ["memory_rl", *more]  # noqa: E731
    assert runner.main(memory_rl.EXPERIMENT, command(f"--workdir={whole}", *TINY)) == 0
    results, calls = memory_rl.results, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 4:  # between tuning and report of the second group
            raise KeyboardInterrupt
        return results(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(memory_rl, "results", stopped)
        assert runner.main(memory_rl.EXPERIMENT, command(f"--workdir={killed}", *TINY)) == 130
    assert runner.main(memory_rl.EXPERIMENT, command(f"--resume={killed}")) == 0
    for name in ("records.jsonl", "summary.csv"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    params = sorted(path.name for path in (whole / "params").iterdir())
    assert len(params) == 2
    for name in params:
        assert (whole / "params" / name).read_bytes() == (killed / "params" / name).read_bytes()


@pytest.mark.parametrize("name", SCALES)
def test_scales_are_sound(name):
    assert memory_rl.plan(SCALES[name], [])
