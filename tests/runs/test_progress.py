"""Progress: nothing when not wanted, a bar in a terminal, a line now and then elsewhere."""

import contextlib
import fcntl
import io
import os
import pty
import struct
import sys
import termios

import pytest
import tqdm

from lstm_jax import fit, make_trials
from lstm_jax.runs import progress
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


def test_a_terminal_without_tqdm_gets_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    train(group="lag=3")
    assert "lag=3: 100%, loss " in screen.getvalue()


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (tqdm, ["130/230 [00:02<00:10, 10.0 trial-steps/s"]),
        (None, ["x: 48%, loss 1, 2 trials running\n", "10 trial-steps/s, 11 s left\n"]),
    ],
)
def test_the_time_left_does_not_count_compilation(extra, expected, monkeypatch):
    """It comes before the first update; the rate is that of the updates behind it."""
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    monkeypatch.setattr("tqdm.std.time", lambda: now)
    monkeypatch.setitem(sys.modules, "tqdm", extra)
    now = 0.0
    meter = progress.meter(True, "x", done=100)
    for done in (110, 120, 130):
        now = 1000.0 + (done - 110) / 10
        meter.update(done, 230, 1.0, 2)
    meter.close()
    assert all(words in screen.getvalue() for words in expected)


def test_nothing_left_to_do_is_all_done(monkeypatch, capfd):
    """As when every trial diverged at its first batch."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    trials = make_trials(seed=[0, 1], init_scale=1e30)
    fit(Line(), Slope(), trials, 10, optimizer="sgd")
    assert capfd.readouterr().err == "main: 100%, loss nan, 0 trials running\n"


@pytest.mark.parametrize("rows", [0, 1, 24])
def test_a_bar_is_drawn_whatever_rows_a_terminal_reports(rows, monkeypatch):
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        meter = progress.meter(True, "x", 0)
        meter.update(0, 40, 1.0, 2)
        meter.update(40, 40, 1.0, 2)
        meter.close()
    shown = b""
    with contextlib.suppress(OSError):  # at the end, on Linux
        while part := os.read(screen, 4096):
            shown += part
    os.close(screen)
    assert "x: 100%" in shown.decode() and "hidden" not in shown.decode()
