"""Frames between two machines: a JSON object and raw bytes, with their lengths in front."""

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

from hwsearch.files import MAX_BYTES, parsed_json

_LENGTHS = struct.Struct(">IQ")  # bytes of the object, and of what follows it


def write_frame(stream: BinaryIO, header: Mapping[str, Any], content: bytes = b"") -> None:
    """Write one frame and flush it."""
    text = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(text), len(content)) + text)
    stream.write(content)
    stream.flush()


def read_frame(stream: BinaryIO, most_bytes: int = 0) -> tuple[dict[str, Any], bytes]:
    """Read an untrusted frame with at most ``most_bytes`` of content.

    Raise ValueError or TypeError where it is too large or no frame, EOFError at the end.
    """
    n_text, n_content = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    if n_text > MAX_BYTES or n_content > most_bytes:
        raise ValueError(f"a frame of {n_text:,} and {n_content:,} bytes is too large")
    header = parsed_json(_exactly(stream, n_text), finite=False)
    if not isinstance(header, dict):
        raise TypeError(f"a frame holds {header!r:.80}, which is no object")
    return header, _exactly(stream, n_content)


def _exactly(stream: BinaryIO, n: int) -> bytes:
    found = stream.read(n)
    if len(found) < n:
        raise EOFError("the connection ended")
    return found
