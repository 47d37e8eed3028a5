"""The front page: the papers as chapters, their claims with each profile's answers, and what was seen here first."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from atelier.params import read
from atelier.pipeline import page, scrub
from atelier.verdicts import DECIDED

NOT_MEASURED = "not measured"  # in place of undecided, where a profile made no pictures for a claim
DEMO = Path("demo", "index.html")  # the page that paints in a browser, where it lies beside the front page
CHAPTERS = Path(__file__).with_name("chapters.yaml")
Row = Mapping[str, str]  # a verdict or a finding, as ``site`` reads it


class Site(NamedTuple):
    """A profile's pages: where they lie below the front page, the studies in order, their verdicts and findings."""

    profile: str
    folder: Path
    prefix: str  # of addresses: "" where the front page lies beside them
    order: Sequence[str]
    verdicts: Sequence[Row]
    findings: Sequence[Row]
    in_short: Mapping[str, str]  # by study, what it found in one sentence
    waiting: int = 0  # studies of the profile that are not published yet


def html(sites: Sequence[Site], folder: Path) -> str:
    """The front page over some profiles, for ``folder``. Raises ValueError as ``page.page`` does."""
    shown = [
        {
            "profile": site.profile,
            "prefix": site.prefix,
            "short": site.profile in page.SHORT_RUNS,
            "waiting": site.waiting,
            "files": [
                path.relative_to(site.folder).as_posix()
                for name in site.order
                for part in (f"{name}.ipynb", "metrics.json", "figures/*", "tables/*")
                for path in sorted((site.folder / name).glob(part))
            ],
        }
        for site in sites
    ]
    demo = DEMO.as_posix() if (folder / DEMO).is_file() else None
    listed = chapters(sites)
    about = {
        "sites": shown,
        "chapters": listed,
        "answers": answers(listed),
        "words": _written()["words"],
        "findings": _findings(sites),
        "demo": demo,
    }
    frame = page.frame("Atelier: what was found", ", ".join(site.profile for site in sites))
    return page.rendered("home.html.j2", frame | about, folder)


def _findings(sites: Sequence[Site]) -> list[dict[str, Any]]:
    """What no paper claims, each with every profile's answer, and the figure of the last that has one."""
    rows = [(site, row) for site in sites for row in site.findings]
    shown = []
    for name in dict.fromkeys(row["finding"] for _, row in rows):
        results = [result(site, row) for site, row in rows if row["finding"] == name]
        picture = next((each["picture"] for each in reversed(results) if each["picture"]), None)
        about = {key: results[-1][key] for key in ("says", "href", "paper")}
        shown.append({"name": name, **about, "picture": picture, "results": results})
    return shown


def chapters(sites: Sequence[Site]) -> list[dict[str, Any]]:
    """What the front page shows of each paper, in the order of ``chapters.yaml``; studies that it lacks come last."""
    listed = [*_chapters()]
    known = {name for chapter in listed for name in chapter["studies"]}
    others = list(dict.fromkeys(name for site in sites for name in site.order if name not in known))
    if others:
        listed.append({"title": "More studies", "paper": "", "says": "", "studies": others})
    shown = [_chapter(chapter, sites) for chapter in listed]
    return [chapter for chapter in shown if chapter["pages"]]


def _chapter(chapter: Mapping[str, Any], sites: Sequence[Site]) -> dict[str, Any]:
    pages = [
        {
            "profile": site.profile,
            "study": name,
            "title": page.title(scrub.read(site.folder / name / f"{name}.ipynb")),
            "in_short": site.in_short.get(name, ""),
            "href": f"{site.prefix}{name}/{name}.html",
            "figure": next((f"{site.prefix}{name}/{quote(file)}" for file in captions(site.folder / name)), None),
        }
        for site in sites
        for name in site.order
        if name in chapter["studies"]
    ]
    rows = [(site, row) for site in sites for row in site.verdicts if row["study"] in chapter["studies"]]
    names = dict.fromkeys(row["claim"] for _, row in rows)
    sums = [{"profile": site.profile, "kinds": _tally(site, chapter["studies"])} for site in sites]
    return {
        **chapter,
        "pages": pages,
        "claims": [_claim(name, rows) for name in names],
        "sums": [each for each in sums if each["kinds"]],
        "painted": _painted(chapter.get("picture", ""), sites),
    }


def answers(listed: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One sentence a chapter, where a study of it has one."""
    return [answer for chapter in listed if (answer := _first(chapter))]


def _first(chapter: Mapping[str, Any]) -> dict[str, Any] | None:
    """A chapter's answer for the head of the page: its first study's, of the last profile that has one."""
    answered = [shown for shown in chapter["pages"] if shown["in_short"]]
    if not answered:
        return None
    study = chapter["studies"][0]
    shown = next((each for each in reversed(answered) if each["study"] == study), answered[-1])
    kinds: Sequence[Any] = next((each["kinds"] for each in chapter["sums"] if each["profile"] == shown["profile"]), ())
    about = {key: shown[key] for key in ("profile", "in_short", "href")}
    return {
        "title": chapter["title"],
        "anchor": study,
        "kinds": kinds,
        "short": shown["profile"] in page.SHORT_RUNS,
        **about,
    }


def _tally(site: Site, studies: Sequence[str]) -> list[tuple[str, list[dict[str, str]]]]:
    """Verdicts by kind, decided ones first, each with the claims that it is said of."""
    kinds: dict[str, list[dict[str, str]]] = {kind: [] for kind in DECIDED}
    for row in site.verdicts:
        if row["study"] in studies:
            href = f"{site.prefix}{row['study']}/{row['study']}.html#{row['claim']}"
            kinds.setdefault(row["verdict"].split(",")[0], []).append({"name": row["claim"], "href": href})
    return [(kind, claims) for kind, claims in kinds.items() if claims]


def _painted(named: str, sites: Sequence[Site]) -> dict[str, str] | None:
    """The chapter's own figure, ``STUDY/NAME``, of the last profile that has it, with its caption; None without one."""
    study, _, name = named.partition("/")
    for site in reversed(sites):
        file = f"figures/{name}.webp"
        if named and study in site.order and (caption := captions(site.folder / study).get(file)):
            address = f"{site.prefix}{study}/{study}.html"
            return {"src": f"{site.prefix}{study}/{quote(file)}", "href": address, "caption": caption}
    return None


def _claim(name: str, rows: Sequence[tuple[Site, Row]]) -> dict[str, Any]:
    """A claim, and what each profile answers."""
    mine = [(site, row) for site, row in rows if row["claim"] == name]
    return {
        "name": name,
        "says": mine[0][1]["says"],
        "paper": mine[0][1]["paper"],
        "measured": any(row["verdict"] != NOT_MEASURED for _, row in mine),
        "results": [result(site, row) for site, row in mine],
    }


def result(site: Site, row: Row) -> dict[str, Any]:
    """A profile's verdict with the address of its card and of the figure of its parts, where there is one."""
    name, study = row.get("claim") or row["finding"], row["study"]
    picture = f"{study}/figures/evidence_{name}.webp"
    return {
        **row,
        "profile": site.profile,
        "href": f"{site.prefix}{study}/{study}.html#{name}",
        "picture": f"{site.prefix}{picture}" if (site.folder / picture).is_file() else None,
    }


def captions(folder: Path) -> dict[str, str]:
    """The files of figures that a study's notebook shows, in order, each with its caption."""
    notebook = scrub.read(folder / f"{folder.name}.ipynb")
    about = [output.get("metadata", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = {each["file"]: each.get("caption", "") for each in about if each.get("file")}
    return {file: caption for file, caption in shown.items() if "/evidence_" not in file}


def _chapters() -> Sequence[Mapping[str, Any]]:
    return list(_written()["chapters"])


@cache
def _written() -> Mapping[str, Any]:
    return read(CHAPTERS)
