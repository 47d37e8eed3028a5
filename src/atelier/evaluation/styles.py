"""Spectra of works by style, without any model: ``python -m atelier.evaluation.styles FOLDER`` prints a table."""

import argparse
import sys
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from atelier.data.artemis import load_works, picture_files
from atelier.data.images import load_pictures
from atelier.data.prompts import LEVELS, prompt
from atelier.metrics import power_spectrum_slope, residual_spectrum_distance, residual_spectrum_label
from atelier.metrics.summary import SLOPE_LOW


def styles_against_the_rest(pictures: Tensor, styles: pd.Series) -> pd.DataFrame:
    """Each style's spectra against all other works: n, slopes from 2 and 10 cycles, their distances (PSD), and PR.

    ``pictures`` (n, 3, h, w) in [0, 1]. Raises ValueError for a single style.
    """
    if styles.nunique() < 2:
        raise ValueError("styles are held against each other: expected at least two")
    rows = {}
    for style in sorted(styles.unique()):
        of_style = torch.tensor((styles == style).tolist())
        inside, outside = pictures[of_style], pictures[~of_style]
        slopes = {
            low: [power_spectrum_slope(subset, low=low) for subset in (inside, outside)] for low in (SLOPE_LOW, 10)
        }
        rows[style] = {
            "n": len(inside),
            "rest": len(outside),
            "slope": slopes[SLOPE_LOW][0],
            "PSD": abs(slopes[SLOPE_LOW][0] - slopes[SLOPE_LOW][1]),
            "slope10": slopes[10][0],
            "PSD10": abs(slopes[10][0] - slopes[10][1]),
            "PR": residual_spectrum_distance(outside, inside),
        }
    return pd.DataFrame(rows).T.astype({"n": int, "rest": int}).rename_axis("style")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m atelier.evaluation.styles", description=__doc__)
    parser.add_argument("folder", type=Path, help="pictures at <style>/<artist>_<title>.jpg or .png")
    parser.add_argument("--annotations", type=Path, help="the ArtEmis CSV, where there is one")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    options = parser.parse_args(arguments)
    try:
        works = load_works(options.folder, options.annotations, split="75/25", seed=0)
        pictures = load_pictures(picture_files(works.table, options.folder), options.size, root=options.folder) / 255
        table = styles_against_the_rest(pictures, works.table["art_style"])
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(works.table)} works of {works.table['artist'].nunique()} artists, {len(works.quarantined)} left out")
    print({name: count for name, count in works.counts.items() if count})
    for level in LEVELS:
        print(f"prompt level {level}: {prompt(works.table.iloc[0], level, 0)}")
    print(f"slopes of set means from {SLOPE_LOW} and from 10 cycles a picture; PR: ", end="")
    print(residual_spectrum_label(options.size, options.size))
    print(table.to_string(float_format=lambda value: f"{value:.3f}"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
