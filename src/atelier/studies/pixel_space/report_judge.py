"""Whether the judges may judge: the share of planted defects that each puts in the right order."""

import pandas as pd

from atelier.evaluation.defects import LEAST
from atelier.report.items import Metric, Table, Text
from atelier.studies.pixel_space.report_results import CHOOSING, MEASURING, Results, bars_of


def validation(results: Results) -> Table | Text:
    """Pairs in the right order by defect, judge, and kind of picture."""
    rows: dict[str, dict[str, str]] = {}
    metrics: dict[str, Metric] = {}
    for role in (CHOOSING, MEASURING):
        for bar in bars_of(results.bars, role):
            defect, kind = bar.name.removeprefix(f"defect judge, {role}, ").removesuffix(" in order").split(", ")
            span = "" if bar.low is None or bar.high is None else f" ({100 * bar.low:.3g} to {100 * bar.high:.3g})"
            rows.setdefault(defect, {})[f"{role}, {kind} (%)"] = f"{100 * bar.value:.3g}{span}"
            metrics[f"judge/{role}/{defect}/{kind}"] = Metric(bar.interval, bar.n)
    if not rows:
        return Text("Nothing says what the judges can do.")
    sizes = ", ".join(str(n) for n in sorted({metric.n for metric in metrics.values()}))
    caption = (
        "Pairs of pictures with more and with less of one planted defect that are put in the right order, on "
        f"pictures that no network was trained on; n = {sizes} pairs a number; 95 % intervals (Wilson); required: "
        f"{100 * LEAST:g} %, of the interval's low end."
    )
    return Table("judges", pd.DataFrame(rows).T.rename_axis("defect").fillna(""), caption, metrics)


def may_judge(results: Results) -> Text:
    """Whether verdicts may rest on the judge that measures."""
    failed = [bar.name.split(", ")[2] for bar in bars_of(results.bars, MEASURING) if not bar.met]
    if results.is_validated:
        return Text(
            f"The judge that measures orders at least {100 * LEAST:g} % of pairs right, for each planted defect."
        )
    why = f"it fails on {', '.join(dict.fromkeys(failed))}" if failed else "nothing says that it tells planted defects"
    return Text(f"No verdict rests on the judge that measures: {why}. Its scores below are shown, and decide nothing.")
