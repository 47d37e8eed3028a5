"""Pack a picture folder into a ZIP with reproducible bytes, and unpack one safely.

An archive is hostile until shown otherwise. One that cannot be read, would write outside its folder or swells as bombs
do is refused before anything is written. A picture that is damaged is left out by name, like one in a folder.
"""

import io
import shutil
import stat
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from atelier.data.artemis import stop_above
from atelier.data.extraction import DAMAGE, DamagedMember, extract
from atelier.data.layout import SUFFIXES
from atelier.data.members import Member, picture_members, shortened
from atelier.files import read_bytes, reading, reason, writing
from atelier.workspace import replacing

DATE = (1980, 1, 1, 0, 0, 0)  # the ZIP format's earliest date, so that bytes do not depend on the time
# Limits of a whole archive; JPEG and PNG are compressed already, so that sound ones swell by a few percent.
MEMBERS = 2_000_000
DIRECTORY_BYTES = 2**28  # of the list of members, which is read into memory
SWELLING_IN_ALL, SWELLING_FREE = 50, 2**25  # times its size, and bytes (32 MiB) that any archive may swell by
BLOCK = 4096  # bytes in which file systems give space


class ArchiveFile(io.BufferedReader):
    """An archive's bytes, without a read larger than the list of members may be."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its list of members has {size} bytes, more than the limit of {DIRECTORY_BYTES}")
        return super().read(size)


def pack(folder: Path, archive: Path) -> None:
    """Store all pictures below ``folder`` under their relative names, uncompressed: pictures are compressed already."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    with writing(archive) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as packed:
        for path in files:
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), DATE)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            packed.writestr(info, read_bytes(path))


def unpack(
    archive: Path,
    folder: Path,
    *,
    bad_share: float = 0.01,  # of pictures, above which the archive is refused
    left_out: list[tuple[str, str]] | None = None,  # receives path and reason of each picture that is not unpacked
    counts: Counter[str] | None = None,  # receives what was unusual and accepted
) -> int:
    """Extract an archive's pictures as ``folder``, replacing it once all are there; returns their number.

    Files without a picture suffix are skipped. Bytes are streamed, so that memory does not depend on sizes.

    Raises ValueError for a file that is no ZIP or damaged as a whole; a member that would leave the folder or is a
    link or device; more than ``MEMBERS`` members; pictures that are larger in all than the archive's size explains or
    the disk has space for; and more than ``bad_share`` of pictures that are damaged, encrypted, swell as bombs do, or
    have a name that cannot be written everywhere.
    """
    with reading(archive):  # before links are followed, which may lead in a circle
        resolved = archive.resolve()
    if resolved.is_relative_to(folder.resolve()):
        raise ValueError(f"{archive}: lies in {folder}, which unpacking replaces")
    left_out, counts = [] if left_out is None else left_out, Counter() if counts is None else counts
    with reading(archive), ArchiveFile(io.FileIO(archive)) as file, _opened(archive, file) as packed:
        members = picture_members(archive, packed, file, counts)
        left_out += [(shortened(each.path), each.fault) for each in members if each.fault]
        _stop_above(bad_share, archive, left_out, len(members))
        sound = [each for each in members if not each.fault]
        _refuse_bomb(archive, folder, sound)
        with replacing(folder, sealed=False) as part:  # by the stage, with all that it unpacks
            try:
                for each in sound:
                    try:
                        extract(packed, each.info, part / each.path)
                    except DamagedMember as damage:
                        left_out.append((shortened(each.path), str(damage)))
                        _stop_above(bad_share, archive, left_out, len(members))
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    return len(members) - len(left_out)


def _opened(archive: Path, file: io.BufferedReader) -> zipfile.ZipFile:
    try:
        packed = zipfile.ZipFile(file)
    except DAMAGE as fault:
        raise ValueError(f"{archive}: not a readable ZIP archive ({reason(fault)})") from None
    if len(packed.infolist()) > MEMBERS:
        raise ValueError(f"{archive}: {len(packed.infolist())} members, more than the limit of {MEMBERS}")
    return packed


def _stop_above(bad_share: float, archive: Path, left_out: Sequence[tuple[str, str]], total: int) -> None:
    first = [f"{path!r}: {why}" for path, why in left_out[:1]]
    stop_above(bad_share, f"pictures of {archive}", len(left_out), total, *first)


def _refuse_bomb(archive: Path, folder: Path, members: Sequence[Member]) -> None:
    """ValueError if the pictures are larger in all than the archive explains, or than the disk has space for."""
    total = sum(each.info.file_size for each in members)
    limit = SWELLING_IN_ALL * archive.stat().st_size + SWELLING_FREE
    if total > limit:
        raise ValueError(
            f"{archive}: its {len(members)} pictures would swell to {total} bytes, more than the limit of {limit} for "
            f"its size, as bombs do; if you trust it, unpack it yourself to a folder {archive.stem} beside it"
        )
    disk = next(parent for parent in folder.resolve().parents if parent.exists())
    needed, free = sum(-(-each.info.file_size // BLOCK) * BLOCK for each in members), shutil.disk_usage(disk).free
    if needed > free:
        raise ValueError(f"{archive}: its pictures need {needed} bytes, {free} are free on the disk of {folder}")
