"""``python -m atelier.pipeline.render site`` builds the site, ``results`` publishes it, ``clean`` strips notebooks.

``results --only STUDY ...`` publishes studies of a long profile as they end, beside those that are published.
``again results/PROFILE`` writes a published profile's pages anew from its notebooks and figures: a change of how pages
look needs no run.
"""

import argparse
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence, Set
from io import BytesIO
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from PIL import Image

from atelier.cli import exit_code
from atelier.files import copy, copy_folder, read_bytes, read_text, remove, write_text
from atelier.machine import fingerprint
from atelier.params import load, read
from atelier.pipeline import scrub, site
from atelier.report import pictures
from atelier.studies import STUDIES
from atelier.workspace import Workspace, replacing

MACHINE, PARAMS = "machine.txt", "params.yaml"
MARK = "<!-- claims, written by make results -->"


def studies(notebooks: Path) -> list[str]:
    """The names of all studies that have a notebook, in the order of their list."""
    return [name for name in STUDIES if (notebooks / f"{name}.ipynb").exists()]


def clean(path: Path) -> None:
    """Rewrite a notebook without outputs. Raises ValueError when it is none."""
    write_text(path, scrub.text(scrub.clean(scrub.read(path))))


def publish(workspace: Workspace) -> Path:
    """Replace ``results/PROFILE`` by the site, with the locks that say what it was made from; renew the front page.

    Raises ValueError where there is no site, or one of another profile.
    """
    built, profile = workspace.site, load(workspace.params_file).profile
    if not (built / "index.html").exists():
        raise ValueError(f"{built}: nothing built yet; run make repro")
    made_with = load(built / "params.yaml").profile
    if made_with != profile:
        said = f"{workspace.params_file} says '{profile}'"
        raise ValueError(f"{built}: made with profile '{made_with}', {said}; run make repro")
    target = workspace.results / profile
    with replacing(target, sealed=False) as part:
        copy_folder(built, part)
        for name, lock in locks(workspace).items():
            copy(lock, part / "locks" / name)
        write_text(part / MACHINE, fingerprint() + "\n")
    _renew(workspace)
    return target


def publish_some(workspace: Workspace, names: Sequence[str]) -> Path:
    """Put some studies' pages into ``results/PROFILE``, and keep its other studies; renew the front page.

    ``machine.txt`` then names a machine by study. Raises ValueError where a study has no page of this profile, or a
    study that is kept was made with other parameters than today's.
    """
    given, profile = read(workspace.params_file), load(workspace.params_file).profile
    target = workspace.results / profile
    for name in names:
        if not (workspace.studies / name / f"{name}.ipynb").is_file():
            raise ValueError(f"{workspace.studies / name}: no page of this study; run its pipeline")
    site.check_headlines(workspace.studies, names, profile)
    kept = [name for name in STUDIES if (target / name).is_dir() and name not in names]
    if kept and (changed := _changed(read(target / PARAMS), given, {*STUDIES} - {*kept})):
        raise ValueError(
            f"{target}: {', '.join(kept)} were made with another '{changed}' than {workspace.params_file} has; "
            "publish all studies anew"
        )
    machines = _machines(target / MACHINE) | dict.fromkeys(names, fingerprint())
    published = {name: path for name, path in locks(workspace).items() if name.removesuffix(".lock") in {*names, "dvc"}}
    with replacing(target, sealed=False) as part:
        for name in kept:
            copy_folder(target / name, part / name)
            copy(target / "locks" / f"{name}.lock", part / "locks" / f"{name}.lock")
        for name in names:
            copy_folder(workspace.studies / name, part / name)
        for name, lock in published.items():
            copy(lock, part / "locks" / name)
        copy(workspace.params_file, part / PARAMS)
        write_text(part / MACHINE, "".join(f"{name}: {machines[name]}\n" for name in STUDIES if name in machines))
    _renew(workspace)
    return target


def _changed(before: Mapping[str, Any], given: Mapping[str, Any], free: Set[str]) -> str:
    """The first section in which parameters differ, those of ``free`` apart; "" where none does."""
    sections = [name for name in {**before, **given} if name not in free]
    return next((name for name in sections if before.get(name) != given.get(name)), "")


def _machines(path: Path) -> dict[str, str]:
    """What ``publish_some`` wrote before: the machine of each study."""
    lines = read_text(path).splitlines() if path.is_file() else []
    split = [line.partition(": ") for line in lines]
    return {name: machine for name, _, machine in split if name in STUDIES}


def _renew(workspace: Workspace) -> None:
    site.renew(workspace.results)
    renew_readme(workspace)


def renew_readme(workspace: Workspace) -> None:
    """Put the table of claims of all published profiles between README's two marks, where it has them."""
    path = workspace.root / "README.md"
    if path.is_file() and (parts := read_text(path).split(MARK)) and len(parts) == 3:
        write_text(path, f"{parts[0]}{MARK}\n{site.summary(workspace.results)}{MARK}{parts[2]}")


def locks(workspace: Workspace) -> dict[str, Path]:
    """The pipeline's locks by the name that they are published under."""
    of_studies = sorted(workspace.pipelines.glob("*/dvc.lock"))
    return {"dvc.lock": workspace.lock, **{f"{path.parent.name}.lock": path for path in of_studies}}


def again(folder: Path) -> None:
    """Renew a published profile's pages, and the front page over all profiles beside it.

    Numbers, tables, parameters and locks stay as they are.

    Figures that are stored another way become files as ``report.pictures`` writes them, and the notebooks' pictures
    previews of these. Raises ValueError when the folder is no published profile, or as ``page.page`` does.
    """
    if not (folder / "params.yaml").is_file():
        raise ValueError(f"{folder}: no published profile, it has no params.yaml")
    for path in sorted(folder.glob("*/*.ipynb")):
        notebook = scrub.read(path)
        _store_figures(notebook, path.parent)
        write_text(path, scrub.text(notebook))
    site.renew(folder.parent)


def _store_figures(notebook: NotebookNode, folder: Path) -> None:
    """Every picture of the notebook in a separate file; PNG files keep their names."""
    known = {read_bytes(path): path for path in sorted((folder / "figures").glob("*.png"))}
    for number, (output, kind) in enumerate(_pictures(notebook), start=1):
        data = b64decode(output.data[kind])
        stem = known[data].stem if data in known else f"figure_{number:02d}"
        if "file" not in output.metadata:
            file = pictures.save(Image.open(BytesIO(data)), folder / "figures" / stem)
            kept = {key: output.metadata[key] for key in ("caption",) if key in output.metadata}
            output.metadata = NotebookNode({**kept, "file": f"figures/{file.name}"})
        shown = pictures.preview(folder / output.metadata["file"])
        del output.data[kind]
        output.data[pictures.mime(shown)] = b64encode(shown).decode()
    for path in known.values():
        remove(path)


def _pictures(notebook: NotebookNode) -> Iterator[tuple[Any, str]]:
    """Outputs that hold a picture, and its kind."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            kinds = [kind for kind in scrub.BINARY if kind in output.get("data", {})]
            if kinds:
                yield output, kinds[0]


def run(arguments: list[str]) -> None:
    """Parse the command line and do what it says."""
    workspace = Workspace()
    parser = argparse.ArgumentParser(prog="python -m atelier.pipeline.render", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("site", help=f"{workspace.studies} to {workspace.site}")
    publishing = commands.add_parser("results", help=f"{workspace.site} to {workspace.results}/PROFILE")
    publishing.add_argument("--only", nargs="+", choices=STUDIES, metavar="STUDY", default=[])
    renewing = commands.add_parser("again", help="the pages of published profiles, from their notebooks and figures")
    renewing.add_argument("folders", nargs="+", type=Path, metavar="results/PROFILE")
    cleaning = commands.add_parser("clean", help="strip outputs, ids and metadata of notebooks")
    cleaning.add_argument("notebooks", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "site":
        order, profile = studies(workspace.notebooks), load(workspace.params_file).profile
        site.build(workspace.studies, workspace.site, order, profile, workspace.params_file)
    elif options.command == "results":
        target = publish_some(workspace, options.only) if options.only else publish(workspace)
        print(f"published: {target}/index.html")
    elif options.command == "again":
        for folder in options.folders:
            again(folder)
        renew_readme(workspace)
    else:
        for path in options.notebooks:
            clean(path)


def main(arguments: list[str] | None = None) -> int:
    return exit_code(run, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    raise SystemExit(main())
