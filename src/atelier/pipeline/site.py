"""The folder that a reader opens: a front page, and each study's page, notebook, figures, tables and metrics."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from atelier.files import copy, copy_folder, read_json, read_text, write_text
from atelier.params import read
from atelier.pipeline import home, page, scrub
from atelier.pipeline.home import NOT_MEASURED, Row
from atelier.studies import STUDIES
from atelier.verdicts import over_all, statements_of
from atelier.workspace import replacing


def build(studies: Path, site: Path, order: Sequence[str], profile: str, params: Path) -> None:
    """Write ``site`` anew from the folders in ``studies``, one for each name of ``order``.

    Raises ValueError when a study is missing, was made with another profile, or is there without being listed,
    and when a page links to a file that the site lacks.
    """
    present = sorted(path.name for path in studies.iterdir() if path.is_dir()) if studies.is_dir() else []
    if odd := sorted(set(order) ^ set(present)):
        raise ValueError(f"{studies}: expected the studies {', '.join(order)}; missing or too many: {', '.join(odd)}")
    judged = verdicts_of(studies, order), findings_of(studies, order)
    front = _front(studies, order, profile, judged)
    with replacing(site, sealed=False) as part:
        for name in order:
            copy_folder(studies / name, part / name)
        for name in order:
            render(part / name, profile, judged, order)
        copy(params, part / "params.yaml")
        write_text(part / "index.html", front)
        _check(part, sorted(part.rglob("*.html")))


def render(
    folder: Path,
    profile: str,
    judged: tuple[Sequence[Row], Sequence[Row]],
    order: Sequence[str],
    others: Sequence[str] = (),
) -> None:
    """Write a study's page from its notebook: its claims' verdicts among all of the profile, and its findings.

    ``judged``: all verdicts and findings; ``order``: the studies that the page leads on to; ``others``: profiles of
    which the folder beside the profile's has a page of this study, too.
    """
    notebook = scrub.read(folder / f"{folder.name}.ipynb")
    mine = [[row for row in rows if row["study"] == folder.name] for rows in judged]
    at = list(order).index(folder.name)
    titles = {name: page.title(scrub.read(folder.parent / name / f"{name}.ipynb")) for name in order}
    around = {"before": order[at - 1] if at else None, "after": order[at + 1] if at + 1 < len(order) else None}
    ways = {
        **{way: {"href": f"../{name}/{name}.html", "title": titles[name]} for way, name in around.items() if name},
        "others": [{"profile": other, "href": f"../../{other}/{folder.name}/{folder.name}.html"} for other in others],
        "home": "../../index.html" if others else "../index.html",
    }
    short = _in_short(folder.parent, [folder.name]).get(folder.name, "")
    write_text(folder / f"{folder.name}.html", page.page(notebook, profile, folder, mine[0], mine[1], ways, short))


def verdicts_of(studies: Path, order: Sequence[str]) -> list[Row]:
    """All claims' verdicts by themselves, from the studies' metrics, and over all claims; [] of results without p."""
    cited = {name: entry for name, entry in _cited(studies, order, "verdicts") if "p" in entry}
    overall = over_all({name: statements_of(entry["p"]) for name, entry in cited.items() if entry["p"]})
    return [
        {
            "claim": name,
            "study": entry["study"],
            "says": entry["says"],
            "paper": entry.get("paper", ""),  # results of before had none, nor the answer
            "answer": entry.get("answer", ""),
            "n": _n(entry),
            "alone": _said(entry, entry["verdict"]),
            "p": f"{entry['p'].get(entry['verdict'], min(entry['p'].values())):.2g}" if entry["p"] else "",
            "q": f"{overall[name].q:.2g}" if name in overall else "",
            "verdict": NOT_MEASURED
            if entry.get("numbers") == {}
            else _said(entry, overall[name].verdict if name in overall else entry["verdict"]),
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
            "paper": entry.get("paper", ""),
            "answer": entry["answer"],
            "n": _n(entry),
            "p": f"{min(entry['p'].values()):.2g}" if entry["p"] else "",
            "q": "",
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


def _n(entry: Mapping[str, Any]) -> str:
    """Pictures a cell of the part that an answer is of; "" where nothing was measured, or before this was kept."""
    n = entry.get("numbers", {}).get("n")
    return f"{n:,}" if n else ""


def _said(entry: Mapping[str, Any], verdict: str) -> str:
    """A verdict as the claim's card says it, with whether the effect matters; results of before had no such words."""
    return entry.get("said", verdict) if verdict == entry["verdict"] else verdict


def renew(results: Path) -> None:
    """Write the pages of all published profiles anew, and ``index.html`` over all of them. ValueError as ``build``."""
    sites = _sites(results)
    for each in sites:
        for name in each.order:
            others = [other.profile for other in sites if other.folder != each.folder and name in other.order]
            render(each.folder / name, each.profile, (each.verdicts, each.findings), each.order, others)
        check_headlines(each.folder, each.order, each.profile)
        write_text(each.folder / "index.html", home.html([each._replace(prefix="")], each.folder))
    write_text(results / "index.html", home.html(sites, results))
    pages = [path for each in sites for path in sorted(each.folder.rglob("*.html"))]
    _check(results, [results / "index.html", *pages])


def summary(results: Path) -> str:
    """What was found, in Markdown for a file beside ``results``: a sentence a paper, then each claim's verdicts."""
    sites = _sites(results)
    listed = home.chapters(sites)
    lines = [
        f"- **{each['title']}** ([{each['profile']}]({results.name}/{each['href']})): {each['in_short']}"
        for each in home.answers(listed)
    ]
    heads = ["claim", *(each.profile for each in sites)]
    lines += [*([""] if lines else []), f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for chapter in listed:
        if chapter["claims"]:
            lines.append(f"| **{chapter['title']}** ({chapter['paper']}) |{' |' * len(sites)}")
        for claim in chapter["claims"]:
            by = {each["profile"]: each for each in claim["results"]}
            cells = [
                f"[{page.symbol(by[name]['verdict'])} {by[name]['verdict']}]({results.name}/{by[name]['href']})"
                if name in by
                else ""
                for name in heads[1:]
            ]
            lines.append(f"| {claim['name']}: {claim['says']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _sites(results: Path) -> list[home.Site]:
    return [_published(path.parent) for path in sorted(results.glob("*/params.yaml"))]


def _published(folder: Path) -> home.Site:
    """A published profile; its parameters are not validated, since today's may be others."""
    params = read(folder / "params.yaml")
    order = [name for name in params if (folder / name / f"{name}.ipynb").is_file()]
    judged = verdicts_of(folder, order), findings_of(folder, order)
    waiting = sum(name in params and name not in order for name in STUDIES)
    return home.Site(params["profile"], folder, f"{folder.name}/", order, *judged, _in_short(folder, order), waiting)


def _check(root: Path, pages: Iterable[Path]) -> None:
    """Raise ValueError for a page that holds what ``allowed`` refuses, or leads to no file below ``root``."""
    for path in pages:
        links, pictures = page.addresses(read_text(path))
        for address in (*links, *pictures):
            target = (path.parent / unquote(address)).resolve()
            if not (target.is_file() and target.is_relative_to(root.resolve())):
                raise ValueError(f"{path}: '{address}' leads to no file of the site")


def _front(folder: Path, order: Sequence[str], profile: str, judged: tuple[Sequence[Row], Sequence[Row]]) -> str:
    """The front page of one profile, which lies beside its studies."""
    check_headlines(folder, order, profile)
    return home.html([home.Site(profile, folder, "", order, *judged, _in_short(folder, order))], folder)


def _in_short(folder: Path, order: Sequence[str]) -> dict[str, str]:
    """What each study found in one sentence; results of before had none."""
    files = {name: folder / name / "metrics.json" for name in order}
    said = {name: read_json(path).get("in_short") for name, path in files.items() if path.is_file()}
    return {name: sentence for name, sentence in said.items() if sentence}


def check_headlines(folder: Path, order: Sequence[str], profile: str) -> None:
    """Raise ValueError for metrics of another profile, or without a number that their headline names."""
    for path in (folder / name / "metrics.json" for name in order):
        if not path.exists():
            continue
        content = read_json(path)
        if content["profile"] != profile:
            raise ValueError(f"{path}: made with profile '{content['profile']}', the parameters say '{profile}'")
        if missing := [name for name in content.get("headline", []) if name not in content["metrics"]]:
            raise ValueError(f"{path}: headline '{missing[0]}' is no metric")
