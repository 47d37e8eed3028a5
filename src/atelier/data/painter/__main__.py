"""``python -m atelier.data.painter --out FOLDER --works N --photographs N --seed S``: write a painted world."""

import argparse
from pathlib import Path

from atelier.data.painter.world import write_world
from atelier.files import FileFault


def main() -> None:
    """Parse the command line and paint."""
    parser = argparse.ArgumentParser(prog="python -m atelier.data.painter", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--works", type=int, required=True, help="works of art")
    parser.add_argument("--photographs", type=int, required=True, help="photographs")
    parser.add_argument("--seed", type=int, required=True, help="of the world")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--workers", type=int, default=2, help="processes; the bytes do not depend on it")
    args = parser.parse_args()
    try:
        write_world(args.out, args.works, args.photographs, args.seed, args.size, args.workers)
    except FileFault as fault:
        parser.exit(1, f"{fault}\n")
    except OSError as fault:
        parser.exit(1, f"{fault.filename or args.out}: cannot be written ({fault.strerror})\n")


if __name__ == "__main__":
    main()
