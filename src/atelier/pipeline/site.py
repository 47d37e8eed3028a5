"""The folder that a reader opens: an index, and each study's page, notebook, figures, tables and metrics."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nbformat import NotebookNode

from atelier.files import copy, copy_folder, read_json, read_text, write_text
from atelier.pipeline import page, scrub
from atelier.verdicts import over_all, statements_of
from atelier.workspace import replacing

Row = Mapping[str, str]  # of the table of verdicts, or a finding


def build(studies: Path, site: Path, order: Sequence[str], profile: str, params: Path) -> None:
    """Write ``site`` anew from the folders in ``studies``, one for each name of ``order``.

    Raises ValueError when a study is missing, was made with another profile, or is there without being listed,
    and when a page links to a file that the site lacks.
    """
    present = sorted(path.name for path in studies.iterdir() if path.is_dir()) if studies.is_dir() else []
    if odd := sorted(set(order) ^ set(present)):
        raise ValueError(f"{studies}: expected the studies {', '.join(order)}; missing or too many: {', '.join(odd)}")
    verdicts, findings = verdicts_of(studies, order), findings_of(studies, order)
    index = _index(studies, order, profile, params)
    with replacing(site, sealed=False) as part:
        for name in order:
            copy_folder(studies / name, part / name)
            render(part / name, profile, verdicts, findings)
        copy(params, part / "params.yaml")
        _finish(part, index)


def render(folder: Path, profile: str, verdicts: Sequence[Row], findings: Sequence[Row]) -> None:
    """Write a study's page from its notebook, with its claims' verdicts among all of the profile, and its findings."""
    notebook = scrub.read(folder / f"{folder.name}.ipynb")
    mine = [[row for row in rows if row["study"] == folder.name] for rows in (verdicts, findings)]
    write_text(folder / f"{folder.name}.html", page.page(notebook, profile, folder, *mine))


def verdicts_of(studies: Path, order: Sequence[str]) -> list[Row]:
    """All claims' verdicts by themselves, from the studies' metrics, and over all claims; [] of results without p."""
    cited = {name: entry for name, entry in _cited(studies, order, "verdicts") if "p" in entry}
    overall = over_all({name: statements_of(entry["p"]) for name, entry in cited.items() if entry["p"]})
    return [
        {
            "claim": name,
            "study": entry["study"],
            "says": entry["says"],
            "alone": _said(entry, entry["verdict"]),
            "p": f"{entry['p'].get(entry['verdict'], min(entry['p'].values())):.2g}" if entry["p"] else "",
            "q": f"{overall[name].q:.2g}" if name in overall else "",
            "verdict": _said(entry, overall[name].verdict if name in overall else entry["verdict"]),
        }
        for name, entry in cited.items()
    ]


def findings_of(studies: Path, order: Sequence[str]) -> list[Row]:
    """What was seen here first: each with its card's answer, by itself and outside the count of the papers' claims."""
    return [
        {
            "finding": name,
            "study": entry["study"],
            "says": entry["says"],
            "verdict": _said(entry, entry["verdict"]),
            "answer": entry["answer"],
        }
        for name, entry in _cited(studies, order, "findings")
    ]


def _cited(studies: Path, order: Sequence[str], judged: str) -> list[tuple[str, dict[str, Any]]]:
    """What the studies' metrics say of claims ("verdicts") or findings, each with its study, by name."""
    listed = [
        (name, {**entry, "study": study})
        for study in order
        if (path := studies / study / "metrics.json").is_file()
        for name, entry in read_json(path).get(judged, {}).items()
    ]
    return sorted(listed, key=lambda item: (item[0][0], int(item[0][1:])))


def _said(entry: Mapping[str, Any], verdict: str) -> str:
    """A verdict as the claim's card says it, with whether the effect matters; results of before had no such words."""
    return entry.get("said", verdict) if verdict == entry["verdict"] else verdict


def renew_index(site: Path, order: Sequence[str], profile: str) -> None:
    """Write a site's index again, from what lies in it. Raises ValueError as ``build`` does."""
    _finish(site, _index(site, order, profile, site / "params.yaml"))


def _finish(site: Path, index: str) -> None:
    write_text(site / "index.html", index)
    for path in sorted(site.rglob("*.html")):
        links, pictures = page.addresses(read_text(path))
        for address in (*links, *pictures):
            target = (path.parent / unquote(address)).resolve()
            if not (target.is_file() and target.is_relative_to(site.resolve())):
                raise ValueError(f"{path}: '{address}' leads to no file of the site")


def _index(folder: Path, order: Sequence[str], profile: str, params: Path) -> str:
    entries = [_entry(folder / name, profile) for name in order]
    judged = verdicts_of(folder, order), findings_of(folder, order)
    return page.index(entries, profile, read_text(params), folder, *judged)


def _entry(folder: Path, profile: str) -> dict[str, Any]:
    name = folder.name
    notebook = scrub.read(folder / f"{name}.ipynb")
    files = ((f"{name}.html", "page"), (f"{name}.ipynb", "notebook"), ("metrics.json", "metrics"))
    return {
        "name": name,
        "title": page.title(notebook),
        "claim": _claim(notebook),
        "headline": list(_headline(folder / "metrics.json", profile)),
        "links": [(f"{name}/{file}", label) for file, label in files if (folder / file).exists()],
        "files": [
            f"{part}/{path.name}" for part in ("figures", "tables") for path in sorted((folder / part).glob("*"))
        ],
        "figure": next((page.figure(file, folder) for file in _figures(notebook)), None),
    }


def _claim(notebook: NotebookNode) -> str:
    """The first paragraph."""
    lines: list[str] = []
    for line in page.prose(notebook).splitlines():
        if line.strip() and not line.startswith("#"):
            lines.append(line)
        elif lines:
            break
    return "\n".join(lines)


def _figures(notebook: NotebookNode) -> Iterator[str]:
    """The files that its outputs name, in order."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "file" in output.get("metadata", {}):
                yield output.metadata["file"]


def _headline(path: Path, profile: str) -> Iterator[tuple[str, str, str, str]]:
    """The metrics that a study names as its headline. Raises ValueError when it has none of a name."""
    if not path.exists():
        return
    content = read_json(path)
    if content["profile"] != profile:
        raise ValueError(f"{path}: made with profile '{content['profile']}', the parameters say '{profile}'")
    for name in content.get("headline", []):
        if name not in content["metrics"]:
            raise ValueError(f"{path}: headline '{name}' is no metric")
        yield _row(name, content["metrics"][name])


def _row(name: str, metric: dict[str, Any]) -> tuple[str, str, str, str]:
    """What it is called, its value with its unit, its interval, what it was measured on."""
    value, low, high = (_number(metric[part], metric["value"]) for part in ("value", "low", "high"))
    unit = "" if metric["unit"] == "1" else metric["unit"]
    interval = f"{low} to {high}" if low and high else ""
    return name.replace("_", " "), f"{value} {unit}".strip(), interval, f"{metric['n']:,}"


def _number(number: float | None, scale: float | None) -> str:
    """Three significant digits of ``scale``, so that a value and its interval show the same decimals."""
    if number is None or scale is None:
        return ""
    if not math.isfinite(scale) or 0 < abs(scale) < 1e-4:
        return f"{number:.2e}".replace("-", "−")
    decimals = max(0, 2 - math.floor(math.log10(abs(scale)))) if scale else 3
    return f"{number:,.{decimals}f}".replace("-", "−")
