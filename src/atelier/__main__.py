"""``python -m atelier ...``: run a stage in this process, or in a fork of the warm server (``atelier.warm``)."""

import os
import sys

from atelier import cli, lifetime, warm

if __name__ == "__main__":
    arguments = sys.argv[1:]
    address = os.environ.get(lifetime.ADDRESS)
    if address:
        raise SystemExit(warm.ask(arguments, address))
    lifetime.end_with_stage()
    raise SystemExit(cli.main(arguments))
