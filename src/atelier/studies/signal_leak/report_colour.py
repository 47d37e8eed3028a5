"""Colour by hand: the mean of one latent channel is set in the first latent; what becomes of it."""

import numpy as np
import pandas as pd

from atelier.evaluation.intervals import Interval, t_interval
from atelier.report import figures
from atelier.report.items import Figure, Metric, Table
from atelier.sampling import store
from atelier.studies.signal_leak.report_results import Results
from atelier.studies.signal_leak.sample import COLOURS, colours_location

PRIMARIES = ("red", "green", "blue")
VALUE_SET = "value set (std of pictures' means)"


def _interval(results: Results, rows: pd.DataFrame, column: str) -> Interval:
    """A column's interval over groups of repeats."""
    groups = results.params.protocol.groups
    return t_interval([rows[rows["repeat"].isin(repeats)][column].mean() for repeats in groups])


def _responses(results: Results, columns: tuple[str, ...]) -> pd.DataFrame:
    """Means of columns with their intervals, one row per channel and value set."""
    rows = []
    for (channel, value), pictures in results.colours.groupby(["channel", "value"]):
        row: dict[str, object] = {"channel": f"channel {channel}", "value": value}
        for column in columns:
            interval = _interval(results, pictures, column)
            row |= {column: interval.mean, f"{column}_low": interval.low, f"{column}_high": interval.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _each(results: Results) -> int:
    """Pictures of one channel and value."""
    return int(results.colours.groupby(["channel", "value"]).size().iloc[0])


def response(results: Results) -> Figure:
    """The channel's mean in the finished latent against the value set."""
    figure = figures.curves(_responses(results, ("made",)), {"made": "mean made (std)"}, "value", "channel", VALUE_SET)
    caption = "Mean of the channel in the finished latent against the value set; 95 % intervals; "
    caption += f"n = {_each(results)} pictures a point, same prompts and noise."
    metrics = {
        f"colour/{name}": Metric(results.interval(name, COLOURS), len(results.colours)) for name in ("obeys", "rank")
    }
    return Figure("response", figure, caption, metrics)


def colour_response(results: Results) -> Figure:
    """What setting a channel does to red, green and blue."""
    axes = {primary: f"mean {primary} of a picture" for primary in PRIMARIES}
    figure = figures.curves(_responses(results, PRIMARIES), axes, "value", "channel", VALUE_SET)
    caption = f"Pictures' mean colour (0 to 1) against the value set; 95 % intervals; n = {_each(results)} a point."
    return Figure("colour_response", figure, caption)


def mean_colour(results: Results) -> Table:
    """Mean colour at both ends of a channel's values, and whether it goes one way between."""
    rows = {}
    for channel, of_channel in results.colours.groupby("channel"):
        for primary in PRIMARIES:
            means = of_channel.groupby("value")[primary].mean()
            steps = np.diff(means)
            one_way = (steps > 0).all() or (steps < 0).all()
            rows[f"channel {channel}", primary] = {
                "from": means.iloc[0],
                "to": means.iloc[-1],
                "monotone": "yes" if one_way else "no",
            }
    caption = "Mean colour at the least and the greatest value, and whether every step between goes one way; "
    caption += f"n = {_each(results)} pictures a value."
    return Table("mean_colour", pd.DataFrame(rows).T.rename_axis(["channel", "paint"]), caption)


def by_hand(results: Results) -> Figure:
    """One prompt and noise, one row per channel, one column per value."""
    params, samples = results.params, results.workspace.samples
    pictures, listed = store.read([colours_location(params).folder(samples, params.protocol.training_seeds[0])])
    first = listed[(listed["repeat"] == listed["repeat"].min()) & (listed["place"] == 0)].sort_values("value")
    rows = {
        f"channel {channel}": pictures[of_channel.index.to_list()] for channel, of_channel in first.groupby("channel")
    }
    columns = [f"{value:+g}" for value in results.config.values]
    caption = "One prompt and noise; one row per channel, one column per value."
    return Figure("by_hand", figures.contact_sheet(rows, columns), caption)
