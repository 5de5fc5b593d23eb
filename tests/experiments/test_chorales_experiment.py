"""chorales: rates by validation loss, claims by intervals, notes and MIDI of frames; one run."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import chorales
from experiments.chorales import Chorales
from experiments.common import networks, runner
from lstm_jax import tasks
from lstm_jax.tasks import chorales as music
from tests.experiments.serving import predicted

FRAMES = [[60, 64], [60], [], [60, 67]]
NOTES = [(60, 0, 2), (64, 0, 1), (60, 3, 4), (67, 3, 4)]


@pytest.fixture
def scores(monkeypatch):
    """Chorales of 30 frames, in each of which a fixed chord alternates with another."""
    frames = np.zeros((20 * 30, music.KEYS), bool)
    frames[::2, [30, 40]] = frames[1::2, [35, 45]] = True
    made = music.Scores(frames, np.full(20, 30))
    monkeypatch.setattr(music, "_scores", lambda: made)
    music._starts.cache_clear()
    yield
    music._starts.cache_clear()


def test_a_key_that_goes_on_sounding_is_one_note():
    assert chorales.notes(FRAMES) == NOTES


def test_a_midi_file_has_the_notes(tmp_path):
    music21 = pytest.importorskip("music21")
    (tmp_path / "a.mid").write_bytes(chorales.midi(FRAMES))
    read = music21.converter.parse(tmp_path / "a.mid").flatten().notes
    found = sorted(
        (float(n.offset), pitch.midi, float(n.quarterLength)) for n in read for pitch in n.pitches
    )
    assert found == sorted((begin, key, end - begin) for key, begin, end in NOTES)


def test_a_continuation_begins_as_given_and_draws_what_the_network_is_sure_of(scores):
    task = tasks.Chorales(24)
    model = networks.network("lstm", task, 3, "reference")
    params = model.init(jax.random.key(0))
    sure = np.where(np.arange(88) % 7 == 0, 50.0, -50.0).astype(np.float32)
    params["head"] = {"kernel": jnp.zeros((3, 88)), "bias": jnp.asarray(sure)}
    beginning = task.examples("test").x[: chorales.PRIMED, 0]
    frames = chorales.continue_from(model, params, beginning, jax.random.key(1))
    np.testing.assert_array_equal(frames[: chorales.PRIMED], beginning)
    np.testing.assert_array_equal(frames[chorales.PRIMED :], np.tile(sure > 0, (40, 1)))


def test_a_tiny_run_ends_with_table_figures_midi_and_a_model(
    monkeypatch, tmp_path: Path, standard_promotion, scores
):
    pytest.importorskip("music21")
    monkeypatch.setattr(runner, "start", lambda platform: None)
    tiny = "--networks=rnn --learning_rates=1e-2 --seeds=2 --steps=2 --hidden=2 --batch_size=2"
    path = tmp_path / "run"
    line = ["chorales", *tiny.split(), "--engine=reference", f"--workdir={path}"]
    assert runner.main(chorales.EXPERIMENT, line) == 0
    (row,) = csv.DictReader((path / "summary.csv").read_text().splitlines())
    assert row["network"] == "tanh RNN"
    assert {file.name for file in (path / "figures").iterdir()} == {
        "chorales.png",
        "piano_roll.png",
    }
    assert (path / "files" / "rnn.mid").read_bytes().startswith(b"MThd")
    assert "files/rnn.mid" in (path / "report.html").read_text(encoding="utf-8")
    assert Chorales().networks == ("lstm", "gru", "rnn")
    np.savez(tmp_path / "new.npz", x=np.eye(9, 88)[None])
    lines = predicted(path / "models" / "rnn-reported", tmp_path / "new.npz")
    assert [int(line["step"]) for line in lines] == list(range(9))
    assert {lines[0][f"prediction_{key}"] for key in range(88)} <= {"0", "1"}
