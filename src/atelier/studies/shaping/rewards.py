"""Stage ``rewards``: probes of subject and style on the network of perceptual losses, checked on held-out works.

All rewards are also measured on the data's works, so that a page can say what each of them sees.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor, nn

from atelier.data import prepare
from atelier.data.checks import FloatArray
from atelier.data.pictures import Pictures, in_memory
from atelier.evaluation import rewards as library
from atelier.evaluation.rewards import Probe
from atelier.files import check_seal, write_json, write_table
from atelier.methods.perceptual import LPIPS
from atelier.params import Params
from atelier.studies.shaping.params import Config
from atelier.studies.shaping.prompts import HELD_OUT, TRAINING, works
from atelier.workspace import Workspace, replacing

Judged = Callable[[Tensor | Pictures, pd.DataFrame], FloatArray]  # (pictures uint8, rows of prompts) -> (n,)
PROBED = {"subject": "subject", "style": "art_style"}  # reward -> column of its classes
CHECKED, PROBES = "checked.csv", "probes"


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/shaping/rewards``: probes, and how well each reward tells the data's held-out works apart."""
    with replacing(folder(workspace)) as part:
        probes = fitted(params, workspace)
        if probes:
            library.save_probes(probes, part / PROBES, {"network": params.perceptual.network})
        else:
            write_json(part / PROBES / library.CARD, {"classes": {}})
        checked = validated(params, workspace, probes)
        write_table(part / CHECKED, checked)
    print(checked.to_string(index=False))


def folder(workspace: Workspace) -> Path:
    return workspace.build / Config.STUDY / "rewards"


def fitted(params: Params, workspace: Workspace) -> dict[str, Probe]:
    """Probes of the rewards that need one, from all training works whose truth is known."""
    wanted = [str(name) for name in Config.of(params).rewards if name in PROBED]
    if not wanted:
        return {}
    table = prepare.with_truth(prepare.works(workspace.manifests).table, workspace.manifests)
    table = table[table["split"] == TRAINING].reset_index(drop=True)
    rows = library.features(network(params, workspace), prepare.pictures(table, params.data, workspace))
    probes: dict[str, Probe] = {}
    for name in wanted:
        known = (table[PROBED[name]] != "").to_numpy()
        probes[name] = Probe.fit(rows[known], table.loc[known, PROBED[name]].tolist())
    return probes


def network(params: Params, workspace: Workspace) -> nn.Module:
    return LPIPS.from_params(params.perceptual, workspace.root).trunk


def rewards_of(params: Params, workspace: Workspace) -> dict[str, Judged]:
    """Every reward of the study by name: a function of pictures and the rows of their prompts."""
    probes = library.load_probes(check_seal(folder(workspace)) / PROBES)
    return {name: judged(params, workspace, name, probes) for name in Config.of(params).rewards}


def judged(params: Params, workspace: Workspace, name: str, probes: Mapping[str, Probe]) -> Judged:
    """One reward, of pictures that are read batch by batch."""
    if name == "colour":
        return _by_batches(lambda pictures, rows: library.colour(pictures, rows["prompt"].tolist()))
    if name == "brightness":
        return _by_batches(lambda pictures, rows: library.brightness(pictures))
    trunk, probe, column = network(params, workspace), probes[name], PROBED[name]
    return _by_batches(
        lambda pictures, rows: probe.probability(library.features(trunk, pictures), rows[column].tolist())
    )


def _by_batches(reward: Callable[[Tensor, pd.DataFrame], FloatArray]) -> Judged:
    def judged(pictures: Tensor | Pictures, rows: pd.DataFrame) -> FloatArray:
        batches = in_memory(pictures).batches(library.SEEN)
        starts = range(0, len(rows), library.SEEN)
        parts = [reward(x, rows.iloc[at : at + library.SEEN]) for at, x in zip(starts, batches, strict=True)]
        return np.concatenate(parts)

    return judged


def validated(params: Params, workspace: Workspace, probes: Mapping[str, Probe]) -> pd.DataFrame:
    """Of held-out works: each reward's mean with the right and with another prompt, and how often the right one wins.

    For a probe ``right`` is the share of works whose class it names.
    """
    table = works(params, workspace, HELD_OUT)
    table = table.assign(prompt=table["title"])
    shown, other = prepare.pictures(table, params.data, workspace), table.iloc[np.roll(np.arange(len(table)), 1)]
    other, rows = other.reset_index(drop=True), []
    seen = library.features(network(params, workspace), shown) if probes else None
    for name in Config.of(params).rewards:
        right = np.nan
        if name in probes and seen is not None:
            matched, others = (probes[name].probability(seen, each[PROBED[name]].tolist()) for each in (table, other))
            right = probes[name].accuracy(seen, table[PROBED[name]].tolist())
        else:
            reward = judged(params, workspace, name, probes)
            matched, others = reward(shown, table), reward(shown, other)
        wins = float(np.mean((matched > others) + 0.5 * (matched == others)))
        rows.append(
            {
                "reward": name,
                "own": matched.mean(),
                "other": others.mean(),
                "wins": wins,
                "right": right,
                "n": len(matched),
            }
        )
    return pd.DataFrame(rows)
