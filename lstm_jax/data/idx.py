"""Arrays of bytes in idx files, the format of MNIST."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

BYTES = 0x08  # the number of the type, the third byte of a file


def read_idx(path: str | Path) -> np.ndarray:
    """Returns the array of an idx file of unsigned bytes; .gz files are unpacked.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is damaged or holds another type; the message names the file and the
        place.
    """
    path, content = Path(path), _unpacked(path)
    axes = content[3] if len(content) > 3 else 0
    begin = 4 + 4 * axes
    if content[:3] != bytes([0, 0, BYTES]) or not axes or len(content) < begin:
        right = "the header of an idx file of unsigned bytes, 00 00 08 and the number of axes"
        raise ValueError(f"{path} must begin with {right}, got {content[:4].hex(' ') or 'nothing'}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", axes, offset=4))
    need, have = math.prod(shape), len(content) - begin
    if have != need:
        right = f"{need} bytes after byte {begin}, for the shape {list(shape)} of its header"
        raise ValueError(f"{path} must hold {right}, got {have}; get the file again")
    return np.frombuffer(content, np.uint8, offset=begin).reshape(shape)


def _unpacked(path: str | Path) -> bytes:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path must be a file, got {str(path)!r}")
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        reason = f"{str(error).rstrip('.')} in its {len(content)} bytes"
        raise ValueError(
            f"{path} must be a whole gzip file, got: {reason}; get the file again"
        ) from None
