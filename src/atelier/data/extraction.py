"""One member's bytes out of a ZIP archive: streamed, in bounded memory whatever they decode to, checked to the end."""

import bz2
import copy
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from atelier.files import filling, reason

CHUNK = 2**20  # bytes that are read, and decoded, at once
DICTIONARY_LIMIT = 2**28  # bytes of memory that a member packed with LZMA may ask for
DAMAGE = (  # exceptions that zipfile and its decoders raise on malformed data
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,  # a feature that Python does not know
    RuntimeError,
    ValueError,  # a name that is not UTF-8, an offset before the file
    OverflowError,
    MemoryError,
)
DAMAGED = "damaged: not of the size and checksum (CRC-32) that the archive states"


class DamagedMember(ValueError):
    """One member that cannot be read; its text is the reason without the member's name."""


def extract(packed: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """Write one member; DamagedMember, and no file, if it cannot be read to its end, with the size that it states."""
    size = crc = 0
    with filling(target.parent):
        try:
            with target.open("wb") as file:
                for data in _content(packed, info):
                    size, crc = size + len(data), zlib.crc32(data, crc)
                    if size > info.file_size:
                        break
                    file.write(data)
            if (size, crc) != (info.file_size, info.CRC):
                raise DamagedMember(DAMAGED)
        except DamagedMember:
            target.unlink()
            raise


def _content(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """A member's bytes, piece by piece. What fails in writing them passes; DamagedMember for what fails in reading."""
    bounded = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    try:
        if bounded:
            with packed.open(info) as member:
                while data := member.read(CHUNK):
                    yield data
        else:  # zipfile decodes all that it has read of these at once: 45 bytes of bzip2 may be 45 MB of zeros
            with packed.open(_as_stored(info)) as member:
                yield from _decoded(member, _decoder(member, info))
    except OSError as fault:
        if fault.errno is not None:  # of the disk; bzip2's complaints about data have none
            raise
        raise DamagedMember(f"damaged ({reason(fault)})") from None
    except DAMAGE as fault:
        raise DamagedMember(DAMAGED if "CRC-32" in str(fault) else f"damaged ({reason(fault)})") from None


def _as_stored(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """The entry under which zipfile gives a member's packed bytes, unchecked."""
    stored = copy.copy(info)
    stored.compress_type, stored.file_size = zipfile.ZIP_STORED, info.compress_size
    del stored.CRC
    return stored


def _decoder(member: IO[bytes], info: zipfile.ZipInfo) -> bz2.BZ2Decompressor | lzma.LZMADecompressor:
    if info.compress_type == zipfile.ZIP_BZIP2:
        return bz2.BZ2Decompressor()
    # version, length of properties (5), properties; an .lzma file begins with these and the size, -1: to an end mark
    properties = member.read(9)[4:]
    size = -1 if info.flag_bits & 0x2 else info.file_size
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=DICTIONARY_LIMIT)
    decoder.decompress(properties + struct.pack("<q", size), 0)
    return decoder


def _decoded(member: IO[bytes], decoder: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> Iterator[bytes]:
    while not decoder.eof:
        data = member.read(CHUNK) if decoder.needs_input else b""
        if decoder.needs_input and not data:
            raise EOFError("its data end too early")
        yield decoder.decompress(data, CHUNK)
