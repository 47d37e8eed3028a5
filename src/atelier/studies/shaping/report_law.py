"""Accepted samples against the exact law of their rule, and the laws that GRAFT and P-GRAFT aim at by their sampler."""

from typing import NamedTuple

import pandas as pd
from matplotlib import pyplot as plt

from atelier.report import figures
from atelier.report.items import Figure, Item, Metric, Table, Text
from atelier.studies.shaping.params import Rule
from atelier.studies.shaping.report_results import SOLVERS, Results

LEAST_P = 0.01  # that claim F1 asks for


def accepted(results: Results) -> list[Item]:
    """Rewards of accepted samples by rule against the exact law, as a figure and as a test; what there is of both."""
    return [*_histograms(results), _tests(results)]


def said(name: str, rule: Rule) -> str:
    """A rule in words, with its acceptance probability."""
    if rule.least is not None:
        return f"{name}: rewards from {rule.least:g}, A(r) = 1{{r >= {rule.least:g}}}"
    if rule.k == 1:
        return f"{name}: the best of {rule.m}, A(r) = F(r)^{(rule.m or 1) - 1}"
    return f"{name}: the {rule.k} best of {rule.m}, A(r) = P[Bin({(rule.m or 1) - 1}, 1 - F(r)) <= {(rule.k or 1) - 1}]"


def _histograms(results: Results) -> list[Item]:
    """Counts by reward, of accepted samples and by the law, a line of panels a sampler."""
    table = results.histogram
    if table.empty:
        return []
    names, solvers = (list(dict.fromkeys(table[column])) for column in ("rule", "solver"))
    size = (figures.WIDTH, 2.2 * len(solvers) + 0.4)
    figure, axes = plt.subplots(len(solvers), len(names), figsize=size, squeeze=False)
    for line, solver in zip(axes, solvers, strict=True):
        for axis, name in zip(line, names, strict=True):
            rows = table[(table["rule"] == name) & (table["solver"] == solver)]
            if rows.empty:
                axis.set_axis_off()
                continue
            edges = [*rows["low"], rows["high"].iloc[-1]]
            axis.stairs(rows["observed"], edges, fill=True, color=figures.PALETTE[2], label="accepted")
            axis.stairs(rows["expected"], edges, color=figures.PALETTE[4], linewidth=1.4, label="law")
            axis.set_title(f"{name}, {solver.upper()} (n = {int(rows['observed'].sum())})", fontsize=7.5)
            axis.set_xlabel(results.config.reward)
        line[0].set_ylabel("samples")
    known = next(axis for axis in axes.flat if axis.get_legend_handles_labels()[0])
    figure.legend(*known.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7.5)
    caption = (
        "Rewards of the base's accepted candidates, one a set where a rule takes several of a set, and what the law "
        "p(x) A(r(x)) / Z gives with F estimated, prompt by prompt, from candidates that did not compete (for the eye; "
        f"the tests below need no F). ODE: {SOLVERS['ode']}; SDE: {SOLVERS['sde']}. "
        f"{'; '.join(said(name, rule) for name, rule in results.config.rules.items() if name in names)}."
    )
    return [Figure("accepted", figure, caption)]


def _tests(results: Results) -> Table | Text:
    """Chi-square of each rule's accepted samples against its law, p printed."""
    if results.law.empty:
        return Text("This profile makes no test of accepted samples against their law.")
    rows, metrics = [], {}
    for _, row in results.law.iterrows():
        rows.append(
            {
                "rule": row["rule"],
                "sampler": SOLVERS[row["solver"]],
                "tried as": f"{row['k']:g} of {row['m']:g}" if row["k"] == row["k"] else "threshold",
                "candidates": int(row["candidates"]),
                "draws": int(row["n"]),
                "chi-square": row["statistic"],
                "degrees of freedom": int(row["dof"]),
                "p": row["p"],
            }
        )
        metrics[f"law_p/{row['rule']}/{row['solver']}"] = Metric(float(row["p"]), int(row["n"]))
    caption = (
        "Chi-square of accepted candidates against the exact law: the place of an accepted one among others of its "
        "prompt that did not compete, whose law follows from A alone; one a set, since those of one set depend on each "
        "other. A rule that takes more than half of a prompt's candidates is tried on half of them. F1 asks for p "
        f"above {LEAST_P:g} by the {SOLVERS['ode']} sampler."
    )
    return Table("law", pd.DataFrame(rows).set_index("rule"), caption, metrics)


# ---------------------------------------------------------------------------------------------- the laws aimed at


class Means(NamedTuple):
    """Final means of the Gaussian example: where each method's law has it."""

    base: float
    graft: float
    deterministic: float  # P-GRAFT, target x_I
    deterministic_x0: float  # P-GRAFT, target x_0
    stochastic: float  # P-GRAFT, either target


def gaussian_means(variance: float = 4.0, tilt: float = 0.3, alpha: float = 0.6) -> Means:
    """Means of data N(0, variance) under the tilt exp(tilt r), r = x, shaped at a level of signal ``alpha`` (derived).

    The state at that level is ``x_I = alpha x_0 + s eps``. A deterministic sampler maps it to x_0 by a factor; an exact
    stochastic one draws x_0 of its law given x_I, and the tilt of x_I is then that of E[exp(tilt x_0) | x_I].
    """
    at_level = alpha**2 * variance + 1 - alpha**2
    graft = tilt * variance
    stretch = (variance / at_level) ** 0.5  # of the map from x_I to x_0
    kernel = alpha * variance / at_level  # of E[x_0 | x_I]
    return Means(0.0, graft, graft, stretch * alpha * graft, kernel * (tilt * kernel) * at_level)


def laws(_: Results | None = None) -> Table:
    """What each method aims at by its sampler, with the example of a Gaussian computed (``gaussian_means``)."""
    means = gaussian_means()
    deterministic, stochastic = SOLVERS.values()
    listed = [
        ("GRAFT", "either", "p(x_0) A(r(x_0)) / Z", "", means.graft),
        ("P-GRAFT, target x_I", deterministic, "that of GRAFT: x_0 is a function of x_I", "equal", means.deterministic),
        ("P-GRAFT, target x_0", deterministic, "accepted x_0 noised, then mapped back: another", "other",
         means.deterministic_x0),
        ("P-GRAFT, either target", stochastic, "p(x_I) E[A(r(x_0)) | x_I] / Z, then the base: softer", "softer",
         means.stochastic),
    ]  # fmt: skip
    columns = ["method", "sampler", "law aimed at", "than GRAFT's", "final mean of the example"]
    frame = pd.DataFrame(listed, columns=columns).set_index("method")
    frame[columns[-1]] = [f"{mean:.3f}" for mean in frame[columns[-1]]]
    caption = (
        "Exact laws (derived; the paper says nothing of the sampler). Example: data N(0, 4), reward x, tilt "
        "exp(0.3 r), signal 0.6 at the level that is shaped; the base's mean is 0."
    )
    return Table("laws", frame, caption)
