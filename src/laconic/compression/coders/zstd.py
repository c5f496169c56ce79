"""Coders 0x32 `zstd` and 0x33 `packed+zstd`: Zstandard (RFC 8878) over raw or packed codes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import zstandard

from laconic.compression.bits import Codes, pack, packed_size, unpack
from laconic.compression.coders.raw import checked
from laconic.compression.wire import Reader, varint
from laconic.errors import LimitExceeded, Malformed

# Every zstd frame begins with these four bytes; laconic's frames leave them out.
_MAGIC = zstandard.FRAME_HEADER
_MAX_WINDOW = 1 << 23

# To make a decompressor takes twice as long as to inflate ten kilobytes; one is used by one thread at a time,
# and there are as many as there were threads at once.
_IDLE: deque[zstandard.ZstdDecompressor] = deque()


@dataclass(frozen=True, slots=True)
class ZstdStream:
    """A view of one zstd frame without its magic number."""

    data: memoryview
    count: int
    width: int
    packed: bool

    @property
    def coder(self) -> str:
        """Name of the coder."""
        return (PACKED_ZSTD if self.packed else ZSTD).name

    def codes(self) -> Codes:
        """Decompress. Raises `Malformed` or `LimitExceeded`."""
        if self.packed:
            return unpack(inflate(self.data, packed_size(self.count, self.width)), self.count, self.width)
        return checked(np.frombuffer(inflate(self.data, self.count), np.uint8), self.width)


@dataclass(frozen=True, slots=True)
class Zstd:
    """A varint length, then one zstd frame without its magic number."""

    number: int
    name: str
    packed: bool

    def encode(self, codes: Codes, width: int, level: int) -> bytes:
        """Compress at `level`, with the content's size in the header and no checksum."""
        return deflate(pack(codes, width) if self.packed else codes.tobytes(), level)

    def read(self, reader: Reader, count: int, width: int) -> ZstdStream:
        """Take the length and the frame."""
        size = reader.varint("length of a zstd stream")
        return ZstdStream(reader.take(size, "zstd stream"), count, width, self.packed)


ZSTD = Zstd(0x32, "zstd", packed=False)
PACKED_ZSTD = Zstd(0x33, "packed+zstd", packed=True)


def deflate(plain: bytes, level: int) -> bytes:
    """A varint length, then one zstd frame without its magic number."""
    params = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(plain), write_content_size=1, write_checksum=0, write_dict_id=0
    )
    body = zstandard.ZstdCompressor(compression_params=params).compress(plain)[len(_MAGIC) :]
    return varint(len(body)) + body


def inflate(body: memoryview, size: int) -> bytes:
    """Decompress one zstd frame that must hold exactly `size` bytes.

    zstd allocates what a frame declares, so what it declares is compared first; a frame that holds more than
    it declares does not fit what was allocated. Raises `Malformed` for anything that is not one whole
    frame of `size` bytes, `LimitExceeded` for a window beyond 8 MiB or the content.
    """
    frame = _MAGIC + bytes(body)
    try:
        header = zstandard.get_frame_parameters(frame)
        if header.content_size != size:
            raise Malformed("content size of a zstd stream", value=header.content_size, limit=size)
        if header.dict_id:
            raise Malformed("dictionary of a zstd stream", value=header.dict_id, limit=0)
        # A frame of a single segment has its content for a window, and needs no other memory.
        if header.window_size > max(_MAX_WINDOW, size):
            raise LimitExceeded("window of a zstd stream", value=header.window_size, limit=_MAX_WINDOW)
        plain = _decompressed(frame, size)
    except zstandard.ZstdError as error:
        raise Malformed(f"zstd stream: {error}") from error
    return plain


def _decompressed(frame: bytes, size: int) -> bytes:
    if size > _MAX_WINDOW:
        window = 1 << (size - 1).bit_length()
        return zstandard.ZstdDecompressor(max_window_size=window).decompress(frame, allow_extra_data=False)
    try:
        decompressor = _IDLE.pop()
    except IndexError:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    try:
        return decompressor.decompress(frame, allow_extra_data=False)
    finally:
        _IDLE.append(decompressor)
