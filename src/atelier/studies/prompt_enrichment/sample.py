"""Paint held-out works from prompts of the other levels, with a tuned model or the untuned base.

All levels use the same works and first latents as the protocol's level, from both starts.
"""

from itertools import product

from atelier import scratch
from atelier.data import prepare
from atelier.params import STARTS, Params
from atelier.sampling import starts
from atelier.sampling.conditions import Condition, sample_model
from atelier.sampling.held_out import held_out_table
from atelier.sampling.store import UNTUNED, at_level, guidance_folder
from atelier.studies.prompt_enrichment.params import TUNED_BY, Config
from atelier.workspace import Workspace

PROCESSES = "several"  # share batches of pictures


def main(params: Params, workspace: Workspace, model: str, training_seed: str) -> None:
    """Write the pictures of one model and training seed to ``build/samples/prompt_enrichment``."""
    config, seed = Config.of(params), params.protocol.training_seed(training_seed)
    if model not in (UNTUNED, *config.models):
        raise ValueError(f"prompt_enrichment.models: no '{model}'")
    pictures, manifests = params.protocol.pictures, workspace.manifests
    tables = {level: held_out_table(params, manifests, level, pictures, seed) for level in config.levels}
    leak, steps = starts.load(workspace.starts, prepare.WORKS), params.sampling.steps
    conditions = [
        Condition(
            f"{model}/{seed}/{at_level(level)}/{guidance_folder(guidance, start)}",
            table,
            starts.started(params, start, leak, "picture"),
            guidance,
            steps,
        )
        for (level, table), guidance, start in product(tables.items(), params.protocol.guidance, STARTS)
    ]
    out, folders = workspace.samples / config.STUDY, [f"{model}/{seed}"]
    leaks = scratch.digest(workspace.root, workspace.starts)
    sample_model(params, workspace, __name__, TUNED_BY, model, seed, conditions, out, folders, starts=leaks)
