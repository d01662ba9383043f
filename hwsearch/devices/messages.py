"""Messages between a worker process and its parent: JSON headers and raw arrays on a pipe.

A message is 4 bytes of magic, the length of a JSON header, the header, and the raw bytes of the
arrays that the header's ``arrays`` field lists as (dtype, shape).
"""

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Header = dict[str, Any]
Arrays = list[NDArray[Any]]

_MAGIC = b"hws1"
_PREFIX = struct.Struct("<4sI")


class MessageError(Exception):
    """The stream ended, or holds something that is no message."""


def write_message(stream: BinaryIO, header: Header, arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Write a JSON header, without the field ``arrays``, and numeric or boolean arrays."""
    whole = [np.asarray(array, order="C") for array in arrays]
    for array in whole:
        if array.dtype.kind not in "biuf":
            raise MessageError(f"an array of dtype {array.dtype} cannot be sent")
    listed = [(array.dtype.str, array.shape) for array in whole]
    text = json.dumps({**header, "arrays": listed}).encode()
    stream.write(_PREFIX.pack(_MAGIC, len(text)) + text)
    for array in whole:
        stream.write(array.reshape(-1).view(np.uint8).data)
    stream.flush()


def read_message(stream: BinaryIO, *, skip: bool = False) -> tuple[Header, Arrays]:
    """Wait for one message and return its header and arrays (writable, C order).

    ``skip`` skips bytes before the message, such as text that was printed.
    """
    prefix = bytes(_exactly(stream, _PREFIX.size))
    while skip and not prefix.startswith(_MAGIC):
        prefix = prefix[1:] + bytes(_exactly(stream, 1))
    magic, length = _PREFIX.unpack(prefix)
    if magic != _MAGIC:
        raise MessageError(f"expected a message, found {magic!r}")
    header: Header = json.loads(_exactly(stream, length))
    arrays: Arrays = []
    for text, shape in header.pop("arrays"):
        dtype = np.dtype(text)
        n_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(_exactly(stream, n_bytes), dtype).reshape(shape))
    return header, arrays


def _exactly(stream: BinaryIO, n_bytes: int) -> bytearray:
    data = bytearray(n_bytes)
    view = memoryview(data)
    done = 0
    while done < n_bytes:
        got = stream.readinto(view[done:])  # type: ignore[attr-defined] # every raw stream has it
        if not got:
            raise MessageError("the stream ended")
        done += got
    return data
