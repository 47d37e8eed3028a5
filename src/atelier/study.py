"""What every study's notebook begins and ends with: parameters in, figures, tables and metrics out."""

import html
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, Image, display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from atelier import figures, machine, params, paths
from atelier.claims import Claim, Verdict
from atelier.evidence import Interval

DIGITS = 10  # significant digits of a written number: beyond them, machines differ

CAVEATS = {
    "smoke": "Smoke run: nothing on this page means anything.",
    "embedded": "Short run: few steps, one training seed, few repeats. Its verdicts are of this run alone.",
    "paintings": "Real works, and a small base that learnt from them for an hour or two: see `base_model` for what it "
    "paints before you read what is measured on its pictures. Works and reconstructions do not depend on that.",
}
GROUPED = {  # whether there are several training seeds -> what intervals are over
    False: "intervals over repeats of sampling, for the adapters at hand",
    True: "intervals over training seeds, each with its own repeat of sampling",
}


class Study:
    """One notebook's run: its parameters, and where its figures, tables and metrics go.

    The pipeline's go to ``build/studies/NAME``, which DVC tracks; those of a notebook run by hand to ``build/by-hand``.
    """

    def __init__(self, name: str, asked: params.Params) -> None:
        self.name, self.params = name, asked
        self.folder = (paths.STUDIES if paths.MARK in os.environ else paths.BY_HAND) / name
        self.metrics: dict[str, dict[str, Any]] = {}
        self.verdicts: dict[str, dict[str, str]] = {}

    def show(self, figure: Figure, name: str, caption: str) -> None:
        """Keep a figure as PNG and display those very bytes, with its caption."""
        target = self.folder / "figures" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, metadata={"Software": None})
        plt.close(figure)
        display(Image(data=target.read_bytes(), alt=caption), metadata={"caption": caption})

    def tabulate(self, table: pd.DataFrame, name: str, caption: str, digits: int = 3) -> None:
        """Keep a table as CSV and display it rounded, with its caption."""
        target = self.folder / "tables" / f"{name}.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(target, float_format=f"%.{DIGITS}g")
        shown = table.to_html(float_format=lambda value: f"{value:.{digits}f}", na_rep="–", border=0)
        display(HTML(shown), metadata={"caption": caption})

    def record(self, name: str, value: float | Interval, n: int, unit: str) -> None:
        """One number of ``metrics.json``: its value, its interval where it has one, what it was measured on."""
        interval = value if isinstance(value, Interval) else Interval(float(value), float("nan"), float("nan"), 0)
        numbers = {"value": interval.mean, "low": interval.low, "high": interval.high}
        rounded = {key: float(f"{x:.{DIGITS}g}") if x == x else None for key, x in numbers.items()}
        self.metrics[name] = {**rounded, "n": n, "repeats": interval.n, "unit": unit}

    def judge(self, claim: Claim, found: Verdict, n: int | Sequence[int], over: str = "") -> None:
        """Show a claim's card, its verdict and the numbers behind it, and cite its very words by their digest.

        ``n``: of every part, or one a part. ``over``: what the intervals are over, where it is not repeats of sampling.
        """
        self.verdicts[found.claim] = {"verdict": found.verdict, "reason": found.reason, "claim": claim.digest}
        counts = [n] * len(found.findings) if isinstance(n, int) else n
        rows = {}
        for at, ((part, compared, verdict), count) in enumerate(zip(found.findings, counts, strict=True), 1):
            row: dict[str, object] = {"rule": part.rule, "change": "not measured"}
            if compared is not None:
                low, high = compared.interval.low, compared.interval.high
                row |= {
                    "change": f"{compared.interval.mean:+.3g}",
                    "95 % interval": f"{low:+.3g} to {high:+.3g}",
                    "margin": f"{compared.margin:.3g}" if compared.margin else "",
                    "detectable": f"{compared.detectable:.3g}",
                    "part": verdict,
                }
                self.record(f"claim/{found.claim}/{at}", compared.interval, count, "1")
                self.record(f"claim/{found.claim}/{at}/detectable", compared.detectable, count, "1")
            rows[part.name] = row
        said = f"<b>{found.claim}: {html.escape(claim.says)}</b><br>Verdict: <b>{found.verdict}</b>"
        said += f" ({html.escape(found.reason)})" if found.reason else ""
        said += f"<br>The paper: {html.escape(claim.paper)}<br>The rule, written beforehand: {html.escape(claim.rule)}"
        table = pd.DataFrame(rows).T.fillna("").to_html(border=0)
        over = over or GROUPED[len(self.params.art_finetuning.training_seeds) > 1]
        told = ", ".join(str(count) for count in dict.fromkeys(counts))
        caption = f"Claim {found.claim}: {over}; n = {told} a cell."
        display(HTML(f"<div>{said}</div>{table}"), metadata={"caption": caption})

    def caveat(self) -> None:
        """Say on the page what a short profile's numbers are worth."""
        if (caveat := CAVEATS.get(self.params.profile)) is not None:
            print(caveat)

    def finish(self, headline: Sequence[str]) -> None:
        """Write ``metrics.json``; the names in ``headline`` stand on the index page."""
        missing = [name for name in headline if name not in self.metrics]
        if missing:
            raise ValueError(f"headline names what was never recorded: {', '.join(missing)}")
        content = {"profile": self.params.profile, "headline": list(headline), "metrics": self.metrics}
        if self.verdicts:
            content["verdicts"] = self.verdicts
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "metrics.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def begin(name: str, given: Mapping[str, Any]) -> Study:
    """Start a notebook: go to the repository's root, take the parameters, settle machine and style.

    ``given`` maps the names of the parameters cell to what papermill put there; what is None is read from params.yaml.
    """
    os.chdir(_root())
    asked = params.overridden({key: value for key, value in given.items() if value is not None})
    machine.settle(asked.machine.threads)
    figures.set_style()
    return Study(name, asked)


def _root() -> Path:
    """The folder with dvc.yaml: here or above, because a notebook opened by hand starts in its own folder."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise ValueError("no dvc.yaml here or above: a notebook runs inside the repository")
