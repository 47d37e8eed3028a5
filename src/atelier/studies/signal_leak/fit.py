"""Fit models of the signal leak to latents of natural pictures and of styles."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch

from atelier import machine
from atelier.data import prepare
from atelier.files import FileFault, check_seal, filling
from atelier.methods.signal_leak import FrequencyLeak, Leak, PixelLeak, load, save
from atelier.models import base
from atelier.models.encoded import encoded
from atelier.params import Params
from atelier.seeds import torch_generator
from atelier.studies.signal_leak.params import Config
from atelier.studies.signal_leak.styles import with_styles
from atelier.workspace import Workspace, replacing

STUDY = "signal_leak"
BY_HAND = "low-1"  # the leak whose lowest frequency is set to chosen values
FEWEST = 8  # smallest number of works of a style that no prompt names
ALL = "all"


def natural(photographs: pd.DataFrame, works: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Photographs, or works if the data has none, and their kind."""
    return (photographs, prepare.PHOTOGRAPHS) if len(photographs) else (works, prepare.WORKS)


def training_pictures(manifests: Path, style: str | None) -> tuple[pd.DataFrame, str]:
    """The training split of one style's works, or of natural pictures, and its kind."""
    works = prepare.works(manifests).table
    table, kind = natural(prepare.photographs(manifests).table, works) if style is None else (works, prepare.WORKS)
    if style is not None:
        table = table[table["art_style"] == style]
    table = table.query("split == 'train'").reset_index(drop=True)
    if table.empty:
        raise ValueError(f"signal_leak: nothing to learn from{f', no work of {style}' if style else ''}")
    return table, kind


def fitted(params: Params, workspace: Workspace) -> Iterator[tuple[str, Leak, pd.DataFrame]]:
    """Fit all leaks: name, leak, and the rows of the pictures that it was fitted to.

    ``pixel`` and ``low-N`` for natural pictures; ``all-STYLE`` for every style with enough works or named in prompts;
    for the latter also ``K-STYLE``, fitted to K of its works.
    """
    study, manifests = Config.of(params), workspace.manifests
    vae = base.load(check_seal(workspace.base)).vae.to(machine.accelerator(params.machine).device)
    table, kind = training_pictures(manifests, None)
    numbers = sorted(study.frequencies)
    pixel, *low = FrequencyLeak.fit_several(encoded(params, workspace, vae, table, kind), [0, *numbers])
    yield "pixel", pixel.rest, table
    yield from ((f"low-{n}", leak, table) for n, leak in zip(numbers, low, strict=True))
    works = prepare.works(manifests).table.query("split == 'train'")["art_style"].value_counts()
    named = set(study.styles.values()) | {model.style for model in study.models.values() if model.style}
    for style in sorted(named | set(works.index[works >= FEWEST])):
        table, kind = training_pictures(manifests, style)
        order = torch.randperm(len(table), generator=torch_generator(params.seed, STUDY, "targets", style)).tolist()
        table = table.iloc[order]
        for n in [None, *(study.targets if style in named else [])]:
            latents = encoded(params, workspace, vae, table[:n], kind)
            yield of_style(style, n), PixelLeak.fit(latents), table[:n]


def of_style(style: str, works: int | None = None) -> str:
    """The name of a style's leak, fitted to all training works or to at most ``works`` of them."""
    return f"{works or ALL}-{style}"


def main(params: Params, workspace: Workspace) -> None:
    """Write all leaks to ``build/leaks``, each with the paths of its pictures."""
    params = with_styles(params, workspace)
    with filling(workspace.adapters / STUDY):
        pass  # made: a dependency of the stage that samples, also where ``trained`` is empty
    made_from = base.fingerprint(check_seal(workspace.base))
    with replacing(workspace.leaks) as part:
        for name, leak, table in fitted(params, workspace):
            save(leak, part / f"{name}.safetensors", {"base": made_from, "pictures": "\n".join(table["path"])})


def load_all(folder: Path, frequencies: Sequence[int] = ()) -> dict[str, Leak]:
    """Load all leaks by name. ValueError where one that natural pictures leave, of these frequencies, is missing."""
    leaks = {path.stem: load(path)[0] for path in sorted(check_seal(folder).glob("*.safetensors"))}
    if missing := [name for name in ("pixel", *(f"low-{n}" for n in frequencies)) if name not in leaks]:
        raise FileFault(f"{folder}: lacks {', '.join(f'{name}.safetensors' for name in missing)}; run stage fit again")
    return leaks
