"""Write files whole, and name the file when one cannot be written."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically: temporary file, sync, rename. On an OSError (full disk) the old file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as fault:
        part.unlink(missing_ok=True)
        raise OSError(fault.errno, f"not written: {fault.strerror}", str(path)) from fault
