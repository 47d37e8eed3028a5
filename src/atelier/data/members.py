"""The pictures in a ZIP archive's directory: where each belongs, and why it cannot be taken, before any is unpacked."""

import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from atelier.data.images import BYTE_LIMIT
from atelier.data.layout import SUFFIXES
from atelier.data.mending import composed

SWELLING = 200  # ratio of unpacked to packed size, above 1 MiB, beyond which a member is left out as a bomb
NAME_LIMIT, PATH_LIMIT = 255, 1024  # bytes: of one name, as file systems have it; of a path below the folder
UTF8_FLAG, ENCRYPTED_FLAG, DOS_FOLDER = 0x800, 0x1, 0x10
UNICODE_PATH = 0x7075  # extra field with the name in UTF-8, beside one in the packer's code page
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
LOCAL_HEADER = struct.Struct("<4s2xH18x2H")  # signature, flags, lengths of name and extra field; 30 bytes
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])\s*(\..*)?", re.IGNORECASE)
OTHER_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(slots=True)
class Member:
    """A picture of an archive: its entry, its path below the folder, and why it is left out ("": it is not)."""

    info: zipfile.ZipInfo
    path: PurePosixPath
    fault: str = ""


def picture_members(archive: Path, packed: zipfile.ZipFile, file: BinaryIO, counts: Counter[str]) -> list[Member]:
    """All pictures, in the directory's order; ``file`` is the archive's, for the headers before each member's data.

    Entries of folders, hidden files and files without a picture's suffix are passed over. Counts names that were
    spelt in another way than the format wants. Raises ValueError for a member that would leave the folder or is no
    regular file: no sound archive has one.
    """
    members = []
    for info in packed.infolist():
        name = _name(info)
        spelt = name.replace("\\", "/")
        if not _is_picture(info, spelt):
            continue
        if name != info.orig_filename:
            counts["names in UTF-8 without its flag"] += 1
        if spelt != name:
            counts["names with backslashes for slashes"] += 1
        _refuse_hostile(archive, info, spelt)
        members.append(Member(info, PurePosixPath(spelt), _fault_of_name(spelt) or _fault_of_entry(info)))
    _take_off(members, archive.stem)
    _mark_collisions(members)
    _mark_damaged_headers(members, file, packed.start_dir)
    return members


def shortened(path: PurePosixPath | str) -> str:
    """A name cut to a readable length, its end kept."""
    text = str(path)
    return text if len(text) <= 200 else f"{text[:120]}...{text[-60:]}"


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("utf-8" if info.flag_bits & UTF8_FLAG else "cp437")


def _name(info: zipfile.ZipInfo) -> str:
    """The name as UTF-8 where its bytes are that, flag or not (Python reads cp437), or where an extra field has it."""
    if info.flag_bits & UTF8_FLAG or info.orig_filename.isascii():
        return info.orig_filename
    raw, extra = _raw_name(info), info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and field[:5] == b"\1" + struct.pack("<I", zlib.crc32(raw)):
            raw = field[5:]
            break
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return info.orig_filename


def _is_picture(info: zipfile.ZipInfo, spelt: str) -> bool:
    name = PurePosixPath(spelt)
    if spelt.endswith("/") or (info.external_attr & DOS_FOLDER and not info.file_size):
        return False
    # what stands before a NUL is the name that other programs see
    suffixes = {PurePosixPath(each).suffix.lower() for each in (spelt, spelt.partition("\0")[0])}
    return not suffixes.isdisjoint(SUFFIXES) and not name.name.startswith(".") and "__MACOSX" not in name.parts


def _refuse_hostile(archive: Path, info: zipfile.ZipInfo, spelt: str) -> None:
    if spelt.startswith("/"):
        why = "is an absolute path and would leave the folder"
    elif re.match("[A-Za-z]:", spelt):
        why = "begins with a drive letter and would leave the folder"
    elif ".." in spelt.split("/"):
        why = "has '..' in it and would leave the folder"
    elif kind := OTHER_KINDS.get(stat.S_IFMT(info.external_attr >> 16)):
        why = f"is no regular file but {kind}"
    else:
        return
    raise ValueError(f"{archive}: {shortened(spelt)!r} {why}")


def _fault_of_name(spelt: str) -> str:
    parts = spelt.split("/")
    longest = max(len(part.encode()) for part in parts)
    if "\0" in spelt:
        return "a NUL character in its name"
    if re.search(r"[\x00-\x1f\x7f]", spelt):
        return "a control character in its name"
    if ":" in spelt:
        return "a colon in its name, which Windows takes for a drive or a stream"
    if any(map(RESERVED.fullmatch, parts)):
        return "a name that Windows reserves for a device"
    if longest > NAME_LIMIT:
        return f"a name of {longest} bytes, more than the {NAME_LIMIT} of file systems"
    if len(spelt.encode()) > PATH_LIMIT:
        return f"a path of {len(spelt.encode())} bytes, more than the limit of {PATH_LIMIT}"
    return ""


def _fault_of_entry(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & ENCRYPTED_FLAG:
        return "encrypted"
    if info.compress_type not in METHODS:
        return f"compression method {info.compress_type}, which is not supported"
    if info.file_size > BYTE_LIMIT:
        return f"too large: {info.file_size} bytes, more than the limit of {BYTE_LIMIT}"
    if info.file_size > SWELLING * info.compress_size + 2**20:
        return f"too large: {info.file_size} bytes from {info.compress_size}, more than {SWELLING}-fold, as bombs are"
    return ""


def _take_off(members: Sequence[Member], folder: str) -> None:
    """Shorten paths by the first name if it is ``folder`` in all of them: the archive has the folder itself in it."""
    if all(len(each.path.parts) > 1 and each.path.parts[0] == folder for each in members if not each.fault):
        for each in members:
            if len(each.path.parts) > 1 and each.path.parts[0] == folder:
                each.path = each.path.relative_to(folder)


def _mark_collisions(members: Sequence[Member]) -> None:
    """Leave out a name that was listed before, be it in other case or normal form: some systems take it for the same.

    So is a name that others have as their folder.
    """
    first: dict[str, PurePosixPath] = {}
    folders = {_key(parent) for each in members if not each.fault for parent in each.path.parents}
    for each in members:
        if each.fault:
            continue
        known = first.setdefault(_key(each.path), each.path)
        if _key(each.path) in folders:
            each.fault = "its name is also a folder's"
        elif known is not each.path:
            other = "" if known == each.path else f" but for case or accents, as {shortened(known)}"
            each.fault = f"listed twice{other}"


def _key(path: PurePosixPath) -> str:
    return composed(composed(str(path)).casefold())


def _mark_damaged_headers(members: Sequence[Member], file: BinaryIO, directory: int) -> None:
    """Leave out members whose local header is not theirs, and whose data reach into the next member.

    ``directory``: byte at which the archive's directory begins, after all members.
    """
    ends: list[tuple[Member, int]] = []
    for each in sorted((each for each in members if not each.fault), key=lambda each: each.info.header_offset):
        start = _start_of_data(each.info, file) if 0 <= each.info.header_offset < directory else None
        if start is None:
            each.fault = "its local header is damaged"
        else:
            ends.append((each, start + each.info.compress_size))
    following = [each.info.header_offset for each, _ in ends[1:]] + [directory]
    for (each, end), limit in zip(ends, following, strict=False):
        if end > limit:
            each.fault = "its data overlap what follows in the archive, as in a bomb"


def _start_of_data(info: zipfile.ZipInfo, file: BinaryIO) -> int | None:
    """Offset of a member's data; None if its local header is not one, or names another member.

    Some packers set the UTF-8 flag, or write UTF-8, in one of the two headers only. Python compares names as each
    header's flag says, so that the entry's is set to what it will read.
    """
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size:
        return None
    signature, flags, name_length, extra_length = LOCAL_HEADER.unpack(header)
    raw = file.read(name_length)
    try:
        name = raw.decode("utf-8" if flags & UTF8_FLAG else "cp437")
    except UnicodeDecodeError:
        return None
    if signature != b"PK\3\4" or (raw != _raw_name(info) and name != info.orig_filename):
        return None
    info.orig_filename = name
    return info.header_offset + len(header) + int(name_length) + int(extra_length)
