"""Pack a picture folder into a ZIP with reproducible bytes, and unpack one safely."""

import stat
import zipfile
from pathlib import Path, PurePosixPath

from atelier.data.artemis import SUFFIXES
from atelier.data.images import BYTE_LIMIT
from atelier.files import filling, read_bytes, reading, writing

DATE = (1980, 1, 1, 0, 0, 0)  # the ZIP format's earliest date, so that bytes do not depend on the time
SWELLING = 200  # ratio of unpacked to packed size above which a member is refused as a bomb


def pack(folder: Path, archive: Path) -> None:
    """Store all pictures below ``folder`` under their relative names, uncompressed: pictures are compressed already."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    with writing(archive) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as packed:
        for path in files:
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), DATE)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            packed.writestr(info, read_bytes(path))


def unpack(archive: Path, folder: Path) -> int:
    """Extract an archive's pictures below ``folder``; returns their number.

    Raises ValueError for a file that is damaged or not a ZIP, and for a member that would leave the folder, is a link,
    occurs twice, is encrypted, or is too large. Files without a picture suffix are skipped.
    """
    with reading(archive, "not a readable ZIP archive"), zipfile.ZipFile(archive) as packed:
        members = [info for info in packed.infolist() if not info.is_dir() and _is_picture(info)]
        names = [_relative_path(archive, info) for info in members]
        if all(len(name.parts) > 1 and name.parts[0] == archive.stem for name in names):
            names = [name.relative_to(archive.stem) for name in names]  # the archive contains the folder itself
        if len(set(names)) != len(names):
            raise ValueError(f"{archive}: a name is listed twice")
        for info, name in zip(members, names, strict=True):
            data = _read(archive, packed, info)
            target = folder / name
            with filling(target.parent):
                target.write_bytes(data)
    return len(members)


def _is_picture(info: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(info.filename)
    return name.suffix.lower() in SUFFIXES and not name.name.startswith(".") and "__MACOSX" not in name.parts


def _relative_path(archive: Path, info: zipfile.ZipInfo) -> Path:
    name = PurePosixPath(info.filename)
    kind = info.external_attr >> 16
    if name.is_absolute() or ".." in name.parts or "\\" in info.filename or ":" in info.filename:
        raise ValueError(f"{archive}: {info.filename!r} would leave the folder")
    if kind and stat.S_IFMT(kind) not in (0, stat.S_IFREG):
        raise ValueError(f"{archive}: {info.filename!r} is no regular file")
    return Path(name)


def _read(archive: Path, packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > min(BYTE_LIMIT, SWELLING * info.compress_size + 2**20):
        raise ValueError(f"{archive}: {info.filename!r} is too large")
    with packed.open(info) as member:
        data = member.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise ValueError(f"{archive}: {info.filename!r} has not the size that it states")
    return data
