"""Progress: nothing when not wanted, a bar in a terminal, a line now and then elsewhere."""

import io
import sys

import pytest

from lstm_jax import progress
from lstm_jax.train import fit, make_trials
from tests.toys import Line, Slope


class Terminal(io.StringIO):
    def isatty(self):
        return True


def train(**settings):
    trials = make_trials(seed=[0, 1], learning_rate=[0.1, 1e30])
    fit(Line(), Slope(), trials, 10, optimizer="sgd", chunk=3, **settings)


def test_it_is_quiet_when_not_wanted(monkeypatch, capfd):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    train(progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_log_gets_lines_now_and_then(monkeypatch, capfd):
    train()
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    train(group="lag=3")
    out, lines = capfd.readouterr()
    assert out == ""
    # One trial diverges after few steps: only the other's steps are left to do.
    assert lines.splitlines()[-1].startswith("lag=3: 100%, loss ")
    assert "1 trials running" in lines and "trial-steps/s, 0 s left" in lines


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    train(group="lag=3")
    bar = screen.getvalue()
    assert "lag=3: 100%" in bar and "trial-steps/s" in bar and "active=1" in bar and "loss=" in bar
    assert "?" not in bar.split("\r")[-1]


def test_a_bar_that_goes_on_counts_what_was_done_before(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    bar = progress.meter(True, "x", done=40)
    bar.update(50, 100, 1.0, 2)
    bar.close()
    assert "50.0/100" in screen.getvalue()


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"tqdm: pip install 'lstm_jax\[experiments\]'"):
        progress.meter(True, "x", 0)
