"""MNIST: bytes become brightness, splits and permutation are fixed, files are checked and whole."""

import gzip
import hashlib

import numpy as np
import pytest

from experiments.common import mnist

TRAIN, TEST = 12, 5


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes(), mtime=0)


def made():
    """Four files of random images, in the order of `FILES`."""
    draw = np.random.default_rng(0).integers
    sizes = [(TRAIN, 28, 28), (TRAIN,), (TEST, 28, 28), (TEST,)]
    return [draw(0, 10 if len(size) == 1 else 256, size, np.uint8) for size in sizes]


ARRAYS = made()


@pytest.fixture
def contents(monkeypatch):
    """The packed files, which count as MNIST."""
    packed = dict(zip(mnist.FILES, map(idx, ARRAYS), strict=True))
    right = {n: hashlib.md5(gzip.decompress(c)).hexdigest() for n, c in packed.items()}
    monkeypatch.setattr(mnist, "FILES", right)
    monkeypatch.setattr(mnist, "VALIDATION", 3)
    yield packed
    mnist.read.cache_clear()
    mnist._arrays.cache_clear()


@pytest.fixture
def folder(contents, tmp_path):
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_every_image_is_in_one_split_and_bytes_become_brightness(folder):
    task = mnist.MNIST(str(folder))
    splits = task.arrays()["splits"]
    assert [len(splits[s]) for s in ("train", "validation", "test")] == [9, 3, TEST]
    assert sorted(np.concatenate([splits["train"], splits["validation"]])) == list(range(TRAIN))
    test = task.examples("test")
    assert test.x.shape == (784, TEST, 1) and test.x.dtype == np.float32
    np.testing.assert_allclose(test.x[..., 0].T, ARRAYS[2].reshape(TEST, -1) / 255, rtol=1e-6)
    np.testing.assert_array_equal(test.y.value, ARRAYS[3])


def test_the_permutation_is_one_for_all_images(folder):
    straight, permuted = (mnist.MNIST(str(folder), p).arrays()["pixels"] for p in (False, True))
    columns = {column.tobytes(): place for place, column in enumerate(straight.T)}
    order = [columns[column.tobytes()] for column in permuted.T]
    assert sorted(order) == list(range(784)) != order


def test_a_file_with_another_hash_is_refused_with_the_remedy(folder, contents):
    name = list(contents)[1]
    (folder / name).write_bytes(idx(1 - ARRAYS[1] % 2))
    with pytest.raises(ValueError, match=f"{name} must have the MD5 .*: remove it, and the next"):
        mnist.read(str(folder))


def test_absent_files_are_fetched_and_present_ones_are_not(folder, contents, monkeypatch):
    name, *_ = contents
    (folder / name).unlink()
    addresses = []
    monkeypatch.setattr(mnist, "download", lambda url: addresses.append(url) or contents[name])
    assert mnist.folder_of(str(folder)) == str(folder)
    assert addresses == [mnist.SOURCE + name]
    assert (folder / name).read_bytes() == contents[name]


@pytest.mark.parametrize(
    "content",
    [b"<html>", b"", idx(ARRAYS[1]), idx(ARRAYS[0])[:-9]],
    ids=["page", "empty", "other", "half"],
)
def test_a_wrong_download_leaves_no_file(contents, tmp_path, monkeypatch, content):
    monkeypatch.setattr(mnist, "download", lambda url: content)
    with pytest.raises(ValueError, match=r"absent, and https://.* holds no file .*: put the file"):
        mnist.folder_of(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_or_interrupted_download_leaves_no_file(contents, tmp_path, monkeypatch):
    def fail(url):
        raise failure

    monkeypatch.setattr(mnist, "download", fail)
    failure = ConnectionError("a long story of sockets")
    with pytest.raises(ValueError, match=r"cannot be fetched \(ConnectionError\): put the file"):
        mnist.folder_of(str(tmp_path))
    failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        mnist.folder_of(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
