"""char_lm: n-grams, texts and their errors, and a tiny run on a file whose model predicts."""

import math

import numpy as np
import pytest

from experiments import char_lm
from experiments.char_lm import EXPERIMENT
from experiments.common import ngrams, runner, tunes
from lstm_jax.report.claims import FAILS, REPRODUCES, UNDECIDED
from tests.experiments.serving import predicted

pytestmark = pytest.mark.usefixtures("standard_promotion")

TEXT = "the cat sat on the mat, and the dog ate the rat. " * 8


@pytest.mark.parametrize("order", [0, 1, 3])
def test_probabilities_of_n_grams_sum_to_one_after_any_context(order):
    symbols = sorted(set(TEXT))
    for context in ("the", "att", "zq,"):
        p = [ngrams.probabilities(TEXT, context + w, order)[order, -1] for w in symbols]
        np.testing.assert_allclose(sum(p), 1, rtol=1e-9)


def test_n_grams_of_order_0_are_discounted_shares_and_longer_contexts_are_certain():
    # a thrice and b twice: one discount, as there are no counts of one to estimate others.
    p = ngrams.probabilities("ababa", "ab", 0)[0]
    spared = 2 * ngrams.PLAIN / 5 / 2
    np.testing.assert_allclose(
        p, [(3 - ngrams.PLAIN) / 5 + spared, (2 - ngrams.PLAIN) / 5 + spared]
    )
    bits = ngrams.bits(TEXT, TEXT, 6)
    assert bits[0] > bits[2] > bits[5] and bits[6] < 0.3


def test_a_symbol_that_was_not_seen_counts_nowhere():
    np.testing.assert_array_equal(
        np.isnan(ngrams.probabilities("abab", "aXb", 1)), [[False, True, False]] * 2
    )
    assert np.isfinite(ngrams.bits("abab", "aXbab", 1)).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "path must be a file"),
        (b"", "text must be long enough for two symbols"),
        (b"abc\n\xe9", "byte 0xe9 in line 2"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_in_one_line(content, words, tmp_path, capsys):
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    run = tmp_path / "run"
    assert runner.main(EXPERIMENT, ["char_lm", f"--text_file={file}", f"--workdir={run}"]) == 2
    said = capsys.readouterr().err
    assert f"--text_file={file}: " in said and words in said and said.count("\n") == 1
    assert not run.exists()


def test_tunes_keep_their_music_and_lose_their_notes():
    tune = "1\nT: A\nN: slow\nZ: me\nB: 1850\nK:G\nGABc|\n"
    assert tunes._kept(tune) == ["1", "T: A", "K:G", "GABc|"]
    assert tunes.parses("X:1\nT:A\nM:4/4\nL:1/8\nK:G\nGABc d2d2|\n")
    assert not tunes.parses("nothing")


@pytest.mark.parametrize(
    ("bits", "parsed", "verdicts"),
    [
        ((1.9, 1.91), 6, [REPRODUCES, REPRODUCES]),
        ((2.1, 2.11), 5, [FAILS, FAILS]),
        ((1.9, 2.1), None, [UNDECIDED]),
    ],
)
def test_verdicts_come_from_the_margin_over_the_order_that_is_best_on_validation(
    bits, parsed, verdicts
):
    records = [
        {"kind": "result", "group": char_lm.NGRAMS, "order": n, "validation_bits": v,
         "test_bits": t}
        for n, (v, t) in enumerate([(3.0, 1.0), (2.0, 2.0)])
    ]  # fmt: skip
    records += [
        {"kind": "result", "group": "LSTM-reported", "test_loss": b * math.log(2),
         "parsed": parsed}
        for b in bits
    ]  # fmt: skip
    config = EXPERIMENT.scales["small"]
    rows = EXPERIMENT.summarise(config, records)
    assert [claim.verdict for claim in EXPERIMENT.claims(config, rows)] == verdicts


def test_a_tiny_run_saves_a_model_and_draws(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runner, "start", lambda platform: None)
    monkeypatch.setattr(char_lm, "DRAWN", 20)
    monkeypatch.setattr(char_lm, "WARM_UP", 20)
    file, run = tmp_path / "text.txt", tmp_path / "run"
    file.write_text(TEXT)
    given = ["--quick", "--steps=2", "--hidden=4", "--batch_size=2", "--window=8", "--order=2"]
    given += ["--tied", "--embedding=4"]
    given += [f"--text_file={file}", f"--workdir={run}", "--prompt=the dog"]
    assert runner.main(EXPERIMENT, ["char_lm", *given]) == 0
    assert "\nthe dog" in capsys.readouterr().out
    assert {p.name for p in (run / "figures").iterdir()} == {"unit.png"}
    file.write_text("the cat")
    lines = predicted(run / "models" / "LSTM-reported", file)
    assert "".join(line["symbol"] for line in lines) == "the cat"
    assert all(line["next"] in TEXT for line in lines)
