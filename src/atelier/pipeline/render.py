"""``python -m atelier.pipeline.render site`` builds the site, ``results`` publishes it, ``clean`` strips notebooks."""

import argparse
import shutil
import sys
from pathlib import Path

from atelier.machine import fingerprint
from atelier.params import Params, load
from atelier.paths import LOCK, NOTEBOOKS, PARAMS, RESULTS, SITE, STUDIES, replacing
from atelier.pipeline import scrub, site


def studies() -> list[str]:
    """The names of all studies: each is a section of the parameters, stands in their order, and has a notebook."""
    return [name for name in Params.model_fields if (NOTEBOOKS / f"{name}.ipynb").exists()]


def clean(path: Path) -> None:
    """Rewrite a notebook without outputs. Raises ValueError when it is none."""
    path.write_text(scrub.text(scrub.clean(scrub.read(path))), encoding="utf-8")


def publish(profile: str) -> Path:
    """Replace ``results/PROFILE`` by the site, with the lock that says what it was made from. No site: ValueError."""
    if not (SITE / "index.html").exists():
        raise ValueError(f"{SITE}: nothing built yet; run make repro")
    made_with = load(SITE / "params.yaml").profile
    if made_with != profile:
        raise ValueError(f"{SITE}: made with profile '{made_with}', {PARAMS} says '{profile}'; run make repro")
    target = RESULTS / profile
    with replacing(target) as part:
        shutil.copytree(SITE, part, dirs_exist_ok=True)
        shutil.copyfile(LOCK, part / "dvc.lock")
        (part / "machine.txt").write_text(fingerprint() + "\n", encoding="utf-8")
    return target


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m atelier.pipeline.render", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("site", help=f"{STUDIES} to {SITE}")
    commands.add_parser("results", help=f"{SITE} to {RESULTS}/PROFILE")
    cleaning = commands.add_parser("clean", help="strip outputs, ids and metadata of notebooks")
    cleaning.add_argument("notebooks", nargs="+", type=Path)
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "site":
            site.build(STUDIES, SITE, studies(), load().profile, PARAMS)
        elif asked.command == "results":
            print(f"published: {publish(load().profile)}/index.html")
        else:
            for path in asked.notebooks:
                clean(path)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
