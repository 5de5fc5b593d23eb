"""TensorBoard curves: written as they come; their failure is a line and stops nothing."""

import struct
import sys
from typing import Any

import pytest
from tensorboardX import record_writer
from tensorboardX.proto import event_pb2

from lstm_jax.runs.curves import Curves

messages: Any = event_pb2


def events(directory):
    """The events of one file; TFRecord: length, its checksum, content, its checksum."""
    (path,) = directory.glob("events*")
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(messages.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def test_curves_are_on_the_disk_once_flushed_and_replace_those_from_their_step_on(tmp_path):
    curves = Curves(tmp_path / "tensorboard" / "a", 7)
    curves.add(8, {"loss": 0.5, "metric": 2.0})
    curves.flush()
    version, start, *points = events(tmp_path / "tensorboard" / "a")
    assert version.file_version == "brain.Event:2"
    assert start.step == 7 and start.session_log.status == start.session_log.START
    (loss,), (metric,) = (point.summary.value for point in points)
    assert [point.step for point in points] == [8, 8]
    assert (loss.tag, loss.simple_value) == ("loss", 0.5)
    assert (metric.tag, metric.simple_value) == ("metric", 2.0)
    curves.close()


@pytest.mark.parametrize("moment", ["open", "add", "flush", "close"])
def test_curves_end_with_a_line_when_the_disk_is_full(moment, tmp_path, monkeypatch, capsys):
    buffering = {"open": 0, "add": 1024}.get(moment, 1 << 20)
    monkeypatch.setattr(
        record_writer,
        "open_file",
        lambda path: open("/dev/full", "wb", buffering),  # noqa: SIM115
    )
    curves = Curves(tmp_path / "a", 0)
    for step in range(100):
        curves.add(step, {"loss": 1.0})
        if moment == "flush":
            curves.flush()
    curves.close()
    said = capsys.readouterr().err
    reason = "no curves from here on (No space left on device); the run goes on"
    assert said == f"note: {tmp_path / 'a'}: {reason}\n"


def test_curves_need_an_extra_that_a_run_does_without(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    curves = Curves(tmp_path / "a", 0)
    curves.add(1, {"loss": 1.0})
    curves.close()
    said = capsys.readouterr().err
    assert "(they need tensorboardX)" in said and said.count("\n") == 1
