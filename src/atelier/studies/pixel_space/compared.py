"""Two variants' pictures pair by pair: of the same prompt and the same noise, by the judges that measure.

A pair is a tie where the scores differ by no more than a judge's scores of one picture do when it is mirrored.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from atelier.evaluation.defects import net_error, outcomes, repeatability, shares
from atelier.evaluation.groups import pseudo_rows
from atelier.evaluation.intervals import FloatArray
from atelier.params import STARTS, WHITE, Params
from atelier.studies.pixel_space.params import UNTUNED, Config, against, corrected, protocol_of

DEFECTS, FIT = "defects", "fit"
SIGNS = {DEFECTS: -1.0, FIT: 1.0}  # of what is better
AGAIN = "_mirrored"  # the suffix of the same scores of mirrored pictures
PAIR = ["repeat", "place"]  # what two pictures of a pair share

Scores = Mapping[str, pd.DataFrame]  # cell -> one row per picture: repeat, place, defects, fit


def widths(scored: pd.DataFrame) -> dict[str, float]:
    """How far scores may be apart in a tie, by measure; ``scored``: also with ``_mirrored`` columns."""
    return {
        name: repeatability(scored[name].to_numpy(), scored[f"{name}{AGAIN}"].to_numpy())
        for name in SIGNS
        if name in scored
    }


def pair_rows(params: Params, scores: Scores, tie: Mapping[str, float]) -> pd.DataFrame:
    """Shares of wins, ties and losses, and wins less losses, of all pairs of cells: rows of a table of measures."""
    tables = [pd.DataFrame()]
    for changed, reference, start in _cells(params, Config.of(params).compared):
        groups = _groups(params, changed, reference)
        cell = at(against(changed, reference), start)
        for measure, width in tie.items():
            parts = _outcomes(scores[at(changed, start)], scores[at(reference, start)], groups, measure, width)

            def named(chosen: list[int], parts: list[FloatArray] = parts, measure: str = measure) -> dict[str, float]:
                values = shares(np.concatenate([parts[group] for group in chosen]))
                return {f"{name}_{measure}": value for name, value in values.items()}

            tables.append(pseudo_rows(named, len(groups), sum(map(len, parts))).assign(cell=cell))
    return pd.concat(tables, ignore_index=True)


def pair_table(params: Params, scores: Scores, tie: Mapping[str, float]) -> pd.DataFrame:
    """Every pair of the base and the main variants: whether shares of wins are transitive can be seen in it.

    One row for all groups of repeats, "whole", and one for each; ``error``: of wins less losses, of independent pairs.
    """
    rows, names = [], [UNTUNED, *Config.of(params).variants]
    for second, first, start in _cells(params, list(combinations(names, 2))):
        for measure, width in tie.items():
            one, other = (scores[at(name, start)] for name in (first, second))
            parts = _outcomes(one, other, params.protocol.groups, measure, width)
            named = {"whole": np.concatenate(parts), **{str(number): part for number, part in enumerate(parts)}}
            for group, each in named.items():
                values = shares(each)
                row = {"measure": measure, "start": start, "A": first, "B": second, "group": group, "n": len(each)}
                error = net_error(values["win"], values["lose"], len(each))
                rows.append({**row, **{name: values[name] for name in ("win", "tie", "lose")}, "error": error})
    return pd.DataFrame(rows)


def at(cell: str, start: str) -> str:
    """A cell's name from one of both starts."""
    return cell if start == WHITE else corrected(cell)


def _cells(params: Params, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Pairs with each start that both are painted from."""
    config = Config.of(params)
    for first, second in pairs:
        shared = [start for start in STARTS if start in config.starts(first) and start in config.starts(second)]
        yield from ((first, second, start) for start in shared)


def _groups(params: Params, *variants: str) -> list[list[int]]:
    """The groups of repeats of the variant that is trained from the fewest seeds."""
    each = [protocol_of(params, variant).protocol for variant in variants]
    return min(each, key=lambda protocol: len(protocol.training_seeds)).groups


def _outcomes(
    first: pd.DataFrame, second: pd.DataFrame, groups: Sequence[Sequence[int]], measure: str, width: float
) -> list[FloatArray]:
    """Outcomes of pairs, by group of repeats. Raises ValueError where one cell has pictures that the other lacks."""
    repeats = [repeat for group in groups for repeat in group]
    one, other = (table[table["repeat"].isin(repeats)].set_index(PAIR)[measure] for table in (first, second))
    if not one.index.equals(other.index):
        raise ValueError("pairs: two cells' pictures are not of the same prompts and noise; sample them again")
    won = outcomes(SIGNS[measure] * one.to_numpy(), SIGNS[measure] * other.to_numpy(), width)
    of = one.index.get_level_values("repeat")
    return [won[of.isin(group)] for group in groups]
