"""Paint held-out works' prompts with a tuned model or the untuned base, at every guidance scale and from both starts.

All models share prompts and first latents. The untuned base also paints from other noise, to estimate the effect of
chance.
"""

from itertools import product

from atelier import scratch
from atelier.data import prepare
from atelier.params import STARTS, Params
from atelier.sampling import starts
from atelier.sampling.conditions import Condition, sample_model
from atelier.sampling.held_out import held_out_table
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN, guidance_folder
from atelier.studies.art_finetuning.params import Config
from atelier.workspace import Workspace

PROCESSES = "several"  # share batches of pictures


def main(params: Params, workspace: Workspace, model: str, training_seed: str) -> None:
    """Write the pictures of one model and training seed to ``build/samples/art_finetuning``."""
    config, seed = Config.of(params), params.protocol.training_seed(training_seed)
    if model not in (UNTUNED, *config.variants):
        raise ValueError(f"art_finetuning.adapters: no variant '{model}'")
    noises = {f"{model}/{seed}": "picture"}
    if model == UNTUNED:
        noises[f"{UNTUNED_AGAIN}/{seed}"] = "picture again"
    conditions = [
        each for folder, noise in noises.items() for each in all_conditions(params, workspace, seed, noise, folder)
    ]
    out, leaks = workspace.samples / config.STUDY, scratch.digest(workspace.root, workspace.starts)
    key = {"noises": noises, "starts": leaks}
    sample_model(params, workspace, __name__, config.STUDY, model, seed, conditions, out, list(noises), **key)


def all_conditions(params: Params, workspace: Workspace, seed: int, noise: str, folder: str) -> list[Condition]:
    """One condition per guidance scale and start, with held-out works' prompts and noise seeded by this name."""
    level, pictures = params.protocol.prompts.level, params.protocol.pictures
    table = held_out_table(params, workspace.manifests, level, pictures, seed)
    leak, steps = starts.load(workspace.starts, prepare.WORKS), params.sampling.steps
    return [
        Condition(
            f"{folder}/{guidance_folder(guidance, start)}",
            table,
            starts.started(params, start, leak, noise),
            guidance,
            steps,
        )
        for guidance, start in product(params.protocol.guidance, STARTS)
    ]
