"""MNIST as a task: files checked by their hash, fetched where they are absent."""

import dataclasses
import functools
import gzip
import hashlib
import io
import zlib
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

import lstm_jax as lj
from experiments.common.circumstances import user_cache
from lstm_jax.runs import replace_file

SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES = {  # name -> MD5 of the unpacked file
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}
SIDE = 28
VALIDATION = 5000  # of the 60,000 training images
SEED = 0  # of the split and of the permutation


class Images(NamedTuple):
    """The images of training, then those of test: bytes [70000, 784] and labels [70000]."""

    pixels: np.ndarray
    labels: np.ndarray
    test: int


@dataclasses.dataclass(frozen=True)
class MNIST(lj.tasks.Images):
    """Classify a handwritten digit after its 784 pixels, row after row, one per time step.

    The last 5,000 of the 60,000 training images, in a fixed random order, are for validation. The
    10,000 test images are for test.
    """

    folder: str  # of the four files
    permuted: bool = False  # reads the pixels in one fixed random order

    name: ClassVar = "mnist"
    output_size: ClassVar = 10
    chance: ClassVar = 1 / 10
    length: ClassVar = SIDE * SIDE

    def arrays(self) -> dict[str, Any]:
        """Returns the pixels in the order they are read, the labels and the splits."""
        return _arrays(self.folder, self.permuted)


@functools.cache
def _arrays(folder: str, permuted: bool) -> dict[str, Any]:
    pixels, labels, test = read(folder)
    rng = np.random.default_rng(SEED)
    rows = rng.permutation(len(labels) - test).astype(np.int32)
    order = rng.permutation(SIDE * SIDE) if permuted else slice(None)
    splits = {
        "train": np.sort(rows[:-VALIDATION]),
        "validation": np.sort(rows[-VALIDATION:]),
        "test": np.arange(len(rows), len(labels), dtype=np.int32),
    }
    arrays = {"pixels": pixels[:, order], "label": labels, "splits": splits}
    for array in jax.tree.leaves(arrays):
        array.setflags(write=False)
    return arrays


@functools.cache
def read(folder: str) -> Images:
    """Returns the images of a folder.

    Raises:
      ValueError: a file is absent or damaged; the message names it.
    """
    train, train_labels, test, test_labels = (checked(Path(folder) / name) for name in FILES)
    pixels = np.concatenate([train, test]).reshape(-1, SIDE * SIDE)
    labels = np.concatenate([train_labels, test_labels]).astype(np.int32)
    return Images(pixels, labels, len(test_labels))


def checked(path: Path) -> np.ndarray:
    """Returns the array of one of the files, whose hash must be right."""
    array = lj.data.read_idx(path)
    if not is_right(path.read_bytes(), path.name):
        right = f"have the MD5 {FILES[path.name]} when unpacked"
        raise ValueError(f"{path} must {right}: remove it, and the next run fetches it again")
    return array


def is_right(packed: bytes, name: str) -> bool:
    """Returns whether the packed bytes are those of a file of MNIST."""
    try:
        content = gzip.decompress(packed)
    except (EOFError, OSError, zlib.error):
        return False
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == FILES[name]


def folder_of(given: str) -> str:
    """Returns the folder of the files, the user's cache by default, with every file in it."""
    folder = Path(given) if given else user_cache() / "mnist"
    for name in FILES:
        if not (folder / name).is_file():
            fetch(folder / name)
    return str(folder)


def fetch(path: Path) -> None:
    """Downloads a file, and writes it whole once its hash is right, or not at all."""
    url = SOURCE + path.name
    reason = f"holds no file with the MD5 {FILES[path.name]}"
    try:
        packed = download(url)
        if is_right(packed, path.name):
            path.parent.mkdir(parents=True, exist_ok=True)
            return replace_file(path, packed)
    except OSError as error:  # those of requests are, too
        reason = f"cannot be fetched ({error.strerror or type(error).__name__})"
    right = "put the file there, or name a folder that has it"
    raise ValueError(f"{path} is absent, and {url} {reason}: {right}")


def download(url: str) -> bytes:
    """Returns the content of an address, with a progress bar."""
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "fetching MNIST needs pooch: pip install 'lstm_jax[experiments]'"
        ) from error
    content = io.BytesIO()
    pooch.HTTPDownloader(progressbar=True)(url, content, None)
    return content.getvalue()
