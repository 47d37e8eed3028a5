"""Fine-tune the denoiser on art (Sickert et al. 2025), fully or with LoRA: one variant and training seed."""

from diffusers import UNet2DConditionModel

from atelier.files import check_seal
from atelier.machine import accelerator
from atelier.models import base
from atelier.models.checked import load_part
from atelier.params import Params
from atelier.seeds import seed_of
from atelier.studies.art_finetuning.params import Config
from atelier.training import denoiser
from atelier.training.caches import WORKS, read_cache, training_works
from atelier.training.lora import add_adapter, save_adapter, save_denoiser
from atelier.training.run import check, training_run
from atelier.workspace import Workspace

PROCESSES = "several"  # share batches of a training


def main(params: Params, workspace: Workspace, variant: str, seed: str) -> None:
    """Write one adapter, or one denoiser, to ``build/adapters``."""
    train(params, workspace, variant, params.protocol.training_seed(seed))


def train(params: Params, workspace: Workspace, variant: str, training_seed: int) -> None:
    config, accelerate = Config.of(params), accelerator(params.machine)
    check(params, "art_finetuning.adapters", variant, config.adapters, training_seed)
    adapter = config.adapters[variant]
    seed = seed_of(params.seed, "training", training_seed)
    works = training_works(params, workspace)
    cache = read_cache(workspace.cache / WORKS, works.key)
    unet = load_part(check_seal(workspace.base) / "unet", UNet2DConditionModel).to(accelerate.device)
    if adapter.rank is None:
        trainable = dict(unet.requires_grad_(True).named_parameters())
    else:
        trainable = add_adapter(unet, adapter.rank, seed)
    task = denoiser.task(
        unet,
        trainable,
        base.scheduler_of(workspace.base),
        cache.examples(works.names),
        empty_share=adapter.empty_prompts,
        seed=seed,
        device=accelerate.device,
    )
    learning_rate = adapter.learning_rate or config.optimisation.learning_rate
    optimisation = config.optimisation.model_copy(update={"learning_rate": learning_rate})
    run = training_run(
        params,
        workspace.scratch,
        config.STUDY,
        variant,
        training_seed,
        workspace.adapter(config.STUDY, variant, training_seed),
        **works.key,
        adapter=adapter.model_dump(mode="json"),
        optimisation=optimisation.model_dump(mode="json"),
        works=works.names,  # the noise's seeds include the names
    )
    history = run.fit(task, optimisation, accelerate, seed)
    save = save_denoiser if adapter.rank is None else save_adapter
    run.write(lambda folder, card: save(unet, folder, card), history, works=len(works.table))
    run.discard()
