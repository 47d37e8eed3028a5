"""Paint held-out works' prompts with a tuned model or the untuned base, at every guidance scale.

All models share prompts and first latents. The untuned base also paints from other noise, to estimate the effect of
chance.
"""

from pathlib import Path

from atelier.params import Params
from atelier.sampling.conditions import Condition, sample_model, white_noise
from atelier.sampling.held_out import held_out_table
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN, guidance_folder
from atelier.studies.art_finetuning.params import Config
from atelier.workspace import Workspace


def main(params: Params, workspace: Workspace, model: str) -> None:
    """Write one model's pictures to ``build/samples/art_finetuning``."""
    config = Config.of(params)
    if model not in (UNTUNED, *config.variants):
        raise ValueError(f"art_finetuning.adapters: no variant '{model}'")
    noises = {model: "picture", **({UNTUNED_AGAIN: "picture again"} if model == UNTUNED else {})}
    conditions = [
        each for folder, noise in noises.items() for each in all_conditions(params, workspace.manifests, noise, folder)
    ]
    out = workspace.samples / config.STUDY
    sample_model(params, workspace, __name__, config.STUDY, model, conditions, out, list(noises), noises=noises)


def all_conditions(params: Params, manifests: Path, noise: str, folder: str) -> list[Condition]:
    """One condition per guidance scale, with held-out works' prompts and noise seeded by this name."""
    table = held_out_table(params, manifests, params.protocol.prompts.level, params.protocol.pictures)
    start, steps = white_noise(params, noise), params.sampling.steps
    return [
        Condition(f"{folder}/{guidance_folder(guidance)}", table, start, guidance, steps)
        for guidance in params.protocol.guidance
    ]
