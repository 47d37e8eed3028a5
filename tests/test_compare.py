"""Pages that the pipeline built against those published: what is equal, what agrees, what is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from atelier.pipeline.compare import SHOWN, TOLERANCE, compare, main
from atelier.workspace import Workspace


def metric(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 4, "repeats": 4, "unit": "1"}


def pages(folder: Path, metrics: dict[str, Any], verdict: str = "supported", page: str = "page") -> Path:
    (folder / "study").mkdir(parents=True)
    (folder / "study" / "study.html").write_text(page)
    (folder / "machine.txt").write_text(folder.name)
    verdicts = {"A1": {"verdict": verdict}}
    (folder / "study" / "metrics.json").write_text(json.dumps({"metrics": metrics, "verdicts": verdicts}))
    return folder


def test_equal_pages_have_nothing_to_name(tmp_path: Path) -> None:
    published, made = (pages(tmp_path / name, {"fd": metric(1.0)}) for name in ("published", "made"))
    comparison = compare(published, made)
    assert (comparison.files, comparison.different, comparison.faults) == (2, [], [])  # where they were made is no page
    text = comparison.paragraph(published, made, same_machine=True)
    assert "2 of 2 files are equal" in text
    assert "all verdicts are equal" in text
    assert "largest difference" not in text


@pytest.mark.parametrize(
    ("old", "new", "agrees"),
    [
        (metric(10.0), 10.0 * (1 + 0.9 * TOLERANCE), True),
        (metric(10.0), 10.0 * (1 + 1.2 * TOLERANCE), False),
        (metric(10.0, 8.0, 12.0), 11.9, True),
        (metric(10.0, 8.0, 12.0), 12.5, False),
        (metric(0.0, -1.0, 1.0), 0.4, True),
        (metric(0.0), 0.4, False),
        (metric(None), 1.0, False),
    ],
)
def test_a_value_agrees_inside_the_interval_or_within_two_per_cent(
    tmp_path: Path, old: dict[str, Any], new: float, agrees: bool
) -> None:
    comparison = compare(pages(tmp_path / "published", {"fd": old}), pages(tmp_path / "made", {"fd": metric(new)}))
    assert [each.agrees for each in comparison.differences] == [agrees]
    assert bool(comparison.faults) is not agrees
    assert all("study: fd" in fault for fault in comparison.faults)


def test_another_verdict_and_a_missing_metric_are_named(tmp_path: Path) -> None:
    published = pages(tmp_path / "published", {"fd": metric(1.0), "pr": metric(2.0)})
    made = pages(tmp_path / "made", {"fd": metric(1.0)}, verdict="undecided")
    comparison = compare(published, made)
    assert comparison.faults == [
        "study: pr: in one of them only",
        "study: A1: verdict 'supported' published, 'undecided' made",
    ]
    assert "verdicts that differ: 1" in comparison.paragraph(published, made, same_machine=False)


def test_another_verdict_of_a_finding_is_named(tmp_path: Path) -> None:
    published, made = (pages(tmp_path / name, {"fd": metric(1.0)}) for name in ("published", "made"))
    for folder, verdict in ((published, "supported"), (made, "not seen")):
        path = folder / "study" / "metrics.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "findings": {"N1": {"verdict": verdict}}}))
    assert compare(published, made).faults == ["study: N1: verdict 'supported' published, 'not seen' made"]


def test_the_largest_difference_is_named(tmp_path: Path) -> None:
    old = {"fd": metric(100.0, 50.0, 150.0), "pr": metric(1.0, 0.5, 1.5)}
    new = {"fd": metric(110.0), "pr": metric(1.4)}
    published, made = pages(tmp_path / "published", old), pages(tmp_path / "made", new, page="another")
    text = compare(published, made).paragraph(published, made, same_machine=False)
    assert "study: pr" in text
    assert "0 of 2 files" in text


def test_of_metrics_that_differ_the_twelve_farthest_are_printed_and_all_verdicts(tmp_path: Path) -> None:
    names = [f"fd{number:02}" for number in range(20)]
    published = pages(tmp_path / "published", {name: metric(100.0) for name in names} | {"lost": metric(1.0)})
    made = {name: metric(100.0 * (1.1 + 0.1 * number)) for number, name in enumerate(names)}
    comparison = compare(published, pages(tmp_path / "made", {**made, "fd07": metric(None)}, verdict="undecided"))
    assert len(comparison.faults) == 20 + 1 + 1
    first, *lines, last = comparison.lines()
    assert first == "study: A1: verdict 'supported' published, 'undecided' made"
    assert lines[:2] == ["study: fd07: published 100, made nan", "study: fd19: published 100, made 300"]
    assert [line.split(":")[1].strip() for line in lines[1:]] == names[:8:-1]
    assert last == "and 9 more"  # eight of these, and the one that is lost
    few = compare(published, pages(tmp_path / "few", {name: metric(100.0) for name in names}))
    assert few.lines() == few.faults == ["study: lost: in one of them only"]


def test_the_command_prints_as_many_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    home = Workspace()
    home.params_file.write_bytes((Path(__file__).parent.parent / "profiles" / "smoke.yaml").read_bytes())
    names = [f"fd{number:02}" for number in range(20)]
    pages(home.results / "smoke", {name: metric(1.0) for name in names})
    pages(home.site, {name: metric(2.0) for name in names})
    assert main([]) == 0
    printed = capsys.readouterr().err.splitlines()
    assert (len(printed), printed[-1]) == (SHOWN + 1, "differs: and 8 more")
