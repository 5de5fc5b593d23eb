"""idx files: arrays as written; a damaged file is named with the place of its damage."""

import gzip
import re

import numpy as np
import pytest

from lstm_jax.data import read_idx

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
CONTENT = bytes([0, 0, 8, 3]) + np.array(ARRAY.shape, ">u4").tobytes() + ARRAY.tobytes()
PACKED = gzip.compress(CONTENT, mtime=0)


@pytest.mark.parametrize(
    ("name", "content"), [("a", CONTENT), ("a.gz", PACKED)], ids=["bytes", "gzip"]
)
def test_an_array_is_read_as_it_was_written(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read_idx(tmp_path / name), ARRAY)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", CONTENT[:-1], "must hold 24 bytes after byte 16, for the shape [2, 3, 4]"),
        ("a", CONTENT + b"0", "of its header, got 25; get the file again"),
        ("a", CONTENT[:10], "must begin with the header of an idx file of unsigned bytes"),
        ("a", b"", "00 00 08 and the number of axes, got nothing"),
        ("a", b"\0\0\x0d" + CONTENT[3:], "got 00 00 0d 03"),
        ("a.gz", PACKED[:20], "must be a whole gzip file, got: "),
        ("a.gz", PACKED[:-1], "; get the file again"),
        ("a.gz", CONTENT, "must be a whole gzip file, got: Not a gzipped file"),
        ("a.gz", b"", "must begin with the header"),
    ],
    ids=["short", "long", "header", "empty", "floats", "half", "tail", "unpacked", "nothing"],
)
def test_a_damaged_file_is_refused_by_name_and_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} .*{re.escape(message)}"):
        read_idx(path)


def test_a_file_that_is_absent_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path must be a file, got .*absent"):
        read_idx(tmp_path / "absent")
