"""The abstract page's numbers beside this page's."""

import pandas as pd

from atelier.report import words
from atelier.report.items import Table
from atelier.studies.shaping.report_results import GRAFT, REWARD, SOLVERS, Results, scaled

SOURCES = {
    "abstract page": "printed",
    "abstract": "in the abstract",
    "derived": "derived here",
    "second-hand": "second-hand, from public notes",
}
NOT_HERE = "not a picture; not run here"


def paper(results: Results) -> Table:
    """Every number of the paper that is known, where it is from, and what stands here in its place."""
    table = results.paper
    rows = [
        {
            "task": row["task"],
            "data": row["dataset"],
            "measure": row["measure"] if isinstance(row["measure"], str) else "",
            "paper": "not shown" if pd.isna(row["value"]) else f"{row['value']:g}",
            "source": SOURCES[row["source"]],
            "here": _here(results, row),
        }
        for _, row in table.iterrows()
    ]
    caption = (
        "The paper's numbers as far as they are known: only its abstract's page was at hand, no code is public. They "
        "are of other data, models and measures than those here, which show a direction at most. VQAScore on GenEval's "
        "prompts is not GenEval's own score. Which set the 8.81 % are of is not said."
    )
    return Table("paper", pd.DataFrame(rows).set_index("task"), caption)


def _here(results: Results, row: pd.Series) -> str:
    """This page's number that stands nearest to one of the paper's, with its sampler; "" where it has none."""
    task, measure = str(row["task"]), str(row["measure"])
    if "Molecule" in task or "Layout" in task:
        return NOT_HERE
    if "gain over" in measure:
        return _gain(results)
    if task == "Image Generation":
        return _flow(results)
    return ""


def _gain(results: Results) -> str:
    """The best arm's relative gain in reward."""
    base = results.config.trainings.get(GRAFT)
    name = results.chosen or GRAFT
    if base is None or not results.has(REWARD, name, results.base_of(name)):
        return ""
    reference = results.interval(REWARD, results.base_of(name)).mean
    if reference == 0:
        return ""
    gain = scaled(results.change(REWARD, name, results.base_of(name)), 100 / abs(reference))
    return f"reward {results.config.reward}, {name}, {SOLVERS['ode']}: {words.signed(gain)} %"


def _flow(results: Results) -> str:
    """The corrected flow's distance beside the plain one's."""
    if not results.has("fd_rec", "flow-8-inc", "flow-16"):
        return ""
    mine, other = (results.interval("fd_rec", cell) for cell in ("flow-8-inc", "flow-16"))
    return (
        f"8 Euler steps with correction {mine.mean:.3g}, 16 without {other.mean:.3g} ({words.features(results.params)})"
    )
