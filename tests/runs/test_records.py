"""The ledger: what is appended is read back, a torn end is no record, rewinding forgets."""

import errno
import json
import os

import numpy as np
import pytest

from lstm_jax.runs.records import RecordLog, plain, replace_file, temporaries


@pytest.fixture
def log(tmp_path):
    return RecordLog(tmp_path / "records.jsonl")


def test_records_come_back_in_order_and_a_missing_file_holds_none(log):
    assert log.read() == []
    log.append([{"a": 1}, {"b": "ü\n"}])
    log.append([{"c": [1.5, None]}])
    assert log.read() == [{"a": 1}, {"b": "ü\n"}, {"c": [1.5, None]}]
    assert log.path.read_bytes().count(b"\n") == 3


def test_numbers_are_short_exact_and_what_is_not_finite_is_null():
    record = {"lr": np.float32(0.1), "n": np.int32(7), "ok": np.True_, "name": np.str_("x")}
    assert plain(record) == {"lr": 0.1, "n": 7, "ok": True, "name": "x"}
    assert np.float32(plain(np.float32(1 / 3))) == np.float32(1 / 3)
    assert plain(np.array([[1, np.nan], [np.inf, 2]])) == [[1, None], [None, 2]]
    assert plain((float("nan"), np.float64(1e-300))) == [None, 1e-300]
    json.dumps(plain(record), allow_nan=False)


@pytest.mark.parametrize("torn", [b"{", b'{"a": 3}', b'{"group": "x", "ki'])
def test_a_torn_end_is_never_read_and_cut_off_before_the_next_line(log, torn):
    log.append([{"a": 1}])
    with open(log.path, "ab") as file:
        file.write(torn)
    assert log.read() == [{"a": 1}]
    log.append([{"a": 2}])
    assert log.path.read_bytes() == b'{"a": 1}\n{"a": 2}\n'


def test_rewinding_keeps_the_first_records_of_a_group_and_all_of_the_others(log):
    records = [{"group": g, "n": n} for n, g in enumerate("xyxxyx")]
    log.append([{"kind": "hello"}, *records])
    log.rewind("x", 2)
    assert [r.get("n") for r in log.read()] == [None, 0, 1, 2, 4]
    log.rewind("x", 0)
    assert [r.get("n") for r in log.read()] == [None, 1, 4]


def test_rewinding_cuts_a_torn_end_and_leaves_the_file_alone_when_nothing_is_to_do(log):
    log.append([{"group": "x"}])
    before = os.stat(log.path).st_ino
    log.rewind("x", 1)
    assert os.stat(log.path).st_ino == before
    with open(log.path, "ab") as file:
        file.write(b"{")
    log.rewind("x", 1)
    assert log.path.read_bytes() == b'{"group": "x"}\n'
    assert os.listdir(log.path.parent) == ["records.jsonl"]


def test_a_spoiled_line_in_the_middle_is_an_error_with_its_number(log):
    log.path.write_bytes(b'{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(ValueError, match="line 2 is no JSON object"):
        log.read()


def test_records_are_written_all_or_none_when_the_disk_is_full(log, monkeypatch):
    log.append([{"a": 1}])
    before, fsync = log.path.read_bytes(), os.fsync

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        log.append([{"a": 2}, {"a": 3}])
    with pytest.raises(OSError, match="No space left"):
        replace_file(log.path, b"new")
    assert log.path.read_bytes() == before and os.listdir(log.path.parent) == ["records.jsonl"]
    monkeypatch.setattr(os, "fsync", fsync)
    log.append([{"a": 4}])
    assert log.read() == [{"a": 1}, {"a": 4}]


def test_a_file_is_replaced_at_once_by_each_of_two_writers(tmp_path, monkeypatch):
    path, replace, names = tmp_path / "file", os.replace, []

    def meanwhile(temporary, target):
        names.append(temporary)
        if len(names) == 1:
            replace_file(path, b"other")
            assert path.read_bytes() == b"other"
        replace(temporary, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    replace_file(path, b"mine")
    assert path.read_bytes() == b"mine" and len(set(names)) == 2


def test_only_what_a_killed_write_left_is_temporary(tmp_path, monkeypatch):
    for name in ("mine.tmp", "file.tmp.txt", "file.12-xyz.tmp"):
        (tmp_path / name).write_text("mine")
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)  # dies before it
    with pytest.raises(ZeroDivisionError):
        replace_file(tmp_path / "file", b"new")
    (left,) = temporaries(tmp_path)
    assert left.read_bytes() == b"new"
