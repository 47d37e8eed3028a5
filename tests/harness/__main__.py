"""``python -m tests.harness [--short] [--group GROUP ...] [--name TEXT]``: see what holds."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # what tests share

from tests.harness import damage, data, kills, parameters, surroundings, weights
from tests.harness.attacks import judged, sampled, table

SHORT = 0.1  # share of the attacks in the short form


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.harness", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a tenth of the attacks, without kills")
    parser.add_argument("--group", action="append", help="only this group; may be repeated")
    parser.add_argument("--name", default="", help="only attacks whose name contains this")
    parser.add_argument("--seed", type=int, default=0, help="of the random attacks and of what the short form chooses")
    options = parser.parse_args()
    modules = [parameters, data, weights, damage, surroundings, *([] if options.short else [kills])]
    attacks = [attack for module in modules for attack in module.attacks(options.seed)]
    if options.group:
        attacks = [attack for attack in attacks if attack.group in options.group]
    attacks = [attack for attack in attacks if options.name in attack.name]
    if options.short:
        attacks = list(sampled(attacks, SHORT, options.seed))
    outcomes, start = [], time.monotonic()
    for attack in attacks:
        outcomes.append(outcome := judged(attack))
        if outcome.failure:
            print(f"failed: {attack.group}: {attack.name}: {outcome.failure}", flush=True)
    print(table(outcomes))
    if interrupted := kills.summary():
        print(interrupted)
    print(f"{len(outcomes)} attacks in {time.monotonic() - start:.0f} s")
    return int(any(outcome.failure for outcome in outcomes))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="atelier-harness-") as folder:
        tempfile.tempdir = folder  # what attacks share is removed with it
        code = main()
    raise SystemExit(code)
