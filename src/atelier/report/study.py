"""What every study's notebook begins and ends with: parameters in; figures, tables, verdicts and metrics out."""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from IPython.display import HTML, Image, display
from matplotlib import pyplot as plt

from atelier import claims, machine, params, verdicts
from atelier.claims import Claim
from atelier.files import read_bytes, write_text
from atelier.report import answers, browser, cards, change, figures, forest, naming, pictures
from atelier.report.items import Browser, Data, Figure, Item, Metrics, Table, Text, coded
from atelier.report.plan import plan
from atelier.verdicts import Evidence, Verdict
from atelier.workspace import MARK, Workspace

SHOWN = 4  # significant digits of a summary, whose table is to fit 120 columns
CAVEATS = {
    "smoke": "Smoke run: nothing on this page means anything.",
    "embedded": "Short run: few steps, one training seed, few repeats. Its verdicts are of this run alone.",
    "made": "Made run: random weights and made captions. That it ends says that the profile `paper` runs; no number on "
    "this page means anything.",
    "own": "Your pictures and a small base that was trained on a painted world: the page shows what the methods do to "
    "them in minutes, and decides no claim.",
    "paintings": "Real works, and a small base that learnt from them for an hour or two: see `base_model` for what it "
    "paints before you read what is measured on its pictures. Works and reconstructions do not depend on that.",
}


class Study:
    """One notebook's run: its parameters and workspace, and where its figures, tables and metrics go.

    The pipeline's go to ``build/studies/NAME``, which DVC tracks; outputs of a run by hand go to ``build/by-hand``.
    """

    def __init__(self, name: str, config: params.Params, workspace: Workspace) -> None:
        self.name, self.params, self.workspace = name, config, workspace
        self.folder = (workspace.studies if MARK in os.environ else workspace.by_hand) / name
        self.metrics: dict[str, dict[str, Any]] = {}
        self.cited: dict[str, dict[str, Any]] = {}  # of claims, by name
        self.findings: dict[str, dict[str, Any]] = {}  # of findings, which are counted apart

    @classmethod
    def begin(cls, name: str, given: Mapping[str, Any]) -> Self:
        """Start a notebook: go to the repository's root, read the parameters, set up machine and figures.

        ``given``: the notebook's ``locals()``, where papermill has put sections of ``params.yaml``; sections that are
        None are read from the file.
        """
        os.chdir(_root())
        workspace = Workspace()
        sections = {key: given[key] for key in params.schema().model_fields if given.get(key) is not None}
        config = params.with_sections(sections, workspace.params_file)
        machine.settle(config.machine.threads)
        figures.set_style()
        return cls(name, config, workspace)

    @cached_property
    def report(self) -> ModuleType:
        """The study's ``report.py``."""
        return import_module(f"atelier.studies.{self.name}.report")

    @cached_property
    def _results(self) -> Any:
        return self.report.load(self.params, self.workspace)

    def results(self) -> Any:
        """What the study's stages measured, loaded once: ``report.load(params, workspace)``."""
        return self._results

    def show(self, item: Item) -> None:
        """Write an item to the study's folder, display it, and record its metrics."""
        match item:
            case Figure():
                self._show_figure(item)
            case Browser():
                self._show_browser(item)
            case Table():
                self._write(f"tables/{item.name}.csv", item.csv())
                display(
                    HTML(naming.table(self.name, item.html())),
                    metadata={"caption": item.caption, "table": f"tables/{item.name}.csv"},
                )
            case Data():
                self._write(f"tables/{item.name}.csv", item.csv())
            case Text():
                print(item.text)
        self.record(item.metrics)

    def verdict(self, name: str, beside: str = "") -> None:
        """Show the card of a claim or a finding, and cite its words by digest; ``beside``: what its answer adds."""
        claim, verdict, evidence = self._claims[name], self._verdicts[name], self._evidence
        counts = evidence.counts_of(verdict)
        table = cards.card(claim, verdict, counts, evidence.over_of(name))
        answer = answers.answer(claim, verdict, evidence)
        sentence = f"{answer.sentence} {beside}".strip()
        why = answers.reason(self.name, verdict, evidence)
        said = f'<div id="{name}">{cards.heading(claim, verdict, why, sentence)}</div>{table.html()}'
        display(HTML(said), metadata={"caption": table.caption, "table": f"tables/{table.name}.csv"})
        self._write(f"tables/{table.name}.csv", table.csv())
        if (figure := forest.forest(claim, verdict)) is not None:
            self.show(Figure(f"evidence_{name}", figure, forest.CAPTION.format(name)))
        if cost := cards.cost(claim, verdict):
            print(f"What {name} would take: {cost}")
        self.record(table.metrics)
        self.show(cards.groups(name, verdict.findings, evidence))
        cited = self.findings if name in claims.findings(self.name) else self.cited
        cited[name] = {
            "verdict": verdict.verdict,
            "said": verdict.said,
            "reason": why,
            "claim": claim.digest,
            "says": claim.says,
            "paper": answers.paper(claim, name),
            "answer": sentence,
            "numbers": answer.entry(),
            "p": verdict.entry(),
        }

    def plan(self) -> None:
        """Show what deciding each part of the page's claims and findings takes."""
        self.show(plan(self.name, list(self._verdicts.values())))

    def formulas(self, functions: Sequence[Callable[..., Any]]) -> None:
        """Show the code of what the page rests on, a function at a time, folded."""
        display(HTML("\n".join(map(coded, functions))))

    def record(self, metrics: Metrics) -> None:
        """Numbers for ``metrics.json``."""
        self.metrics |= {name: metric.entry() for name, metric in metrics.items()}

    def caveat(self) -> None:
        """Say on the page what a short profile's numbers are worth."""
        if (caveat := CAVEATS.get(self.params.profile)) is not None:
            print(caveat)

    def finish(self) -> None:
        """Write ``metrics.json``, and what of it fits a terminal; ``report.headline`` names the first numbers."""
        headline = list(self.report.headline(self.results()))
        if missing := [name for name in headline if name not in self.metrics]:
            raise ValueError(f"headline names what was never recorded: {', '.join(missing)}")
        content: dict[str, Any] = {"profile": self.params.profile, "headline": headline, "metrics": self.metrics}
        if self._claims and (in_short := change.in_short(self.name, self._evidence, self.params)):
            content["in_short"] = in_short
        if self.cited:
            content["verdicts"] = self.cited
        if self.findings:
            content["findings"] = self.findings
        self._write("metrics.json", json.dumps(content, indent=2, sort_keys=True) + "\n")
        self._write("summary.json", json.dumps(self._summary(headline), indent=2) + "\n")

    def _summary(self, headline: Sequence[str]) -> dict[str, float]:
        """What ``dvc metrics show`` prints of a study, in columns that all have: verdicts by kind, the first number."""
        said = Counter(entry["verdict"] for entry in (*self.cited.values(), *self.findings.values()))
        named = {name: said[name] for name in (*verdicts.DECIDED, verdicts.UNDECIDED)}
        first = {} if not headline else {"headline": float(f"{self.metrics[headline[0]]['value']:.{SHOWN}g}")}
        return {**named, "no verdict": said.total() - sum(named.values()), **first}

    @cached_property
    def _claims(self) -> dict[str, Claim]:
        return {**claims.load(self.name), **claims.findings(self.name)}

    @cached_property
    def _evidence(self) -> Evidence:
        evidence: Evidence = self.report.evidence(self.results())
        return evidence

    @cached_property
    def _verdicts(self) -> dict[str, Verdict]:
        return {verdict.claim: verdict for verdict in verdicts.decide(self._claims, self._evidence)}

    def _show_figure(self, item: Figure) -> None:
        """Store a figure once, and display it: a preview in the pipeline, whose pages link to the file."""
        naming.figure(self.name, item.figure)
        file = pictures.save(item.figure, self.folder / "figures" / item.name)
        plt.close(item.figure)
        self._display(file, {"caption": item.caption, "file": f"figures/{file.name}"})

    def _show_browser(self, item: Browser) -> None:
        """Store all sheets, and display the first; the page's script finds the others by what is said of them."""
        names = [f"{item.name}_{number:02d}" for number in range(1, len(item.sheets) + 1)]
        paths = [self.folder / "figures" / name for name in names]
        stored = pictures.save_sheets([sheet.picture for sheet in item.sheets], paths, browser.BYTES)
        files = [f"figures/{path.name}" for path in stored]
        shown = {"caption": item.caption, "file": files[0], "browser": item.described(files)}
        self._display(stored[0], shown)

    def _display(self, file: Path, shown: dict[str, Any]) -> None:
        data = pictures.preview(file) if MARK in os.environ else read_bytes(file)
        display(Image(data=data, alt=shown["caption"]), metadata=shown)

    def _write(self, name: str, text: str) -> None:
        write_text(self.folder / name, text)


def _root() -> Path:
    """The folder with dvc.yaml: here or above, because a notebook opened by hand starts in its folder."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise ValueError("no dvc.yaml here or above: a notebook runs inside the repository")
