"""Train denoisers for the study of the signal leak (Everaert et al. 2024, who train none).

A model is tuned to a style, to be combined with a leak; or to another schedule, on photographs: with zero terminal SNR
(Lin et al. 2024), the usual alternative to a leak, with betas that leave more or less signal, or as a flow.
"""

from pathlib import Path

from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from atelier.data import prepare
from atelier.data.prompts import prompt
from atelier.files import check_seal
from atelier.machine import accelerator
from atelier.models import base
from atelier.models.adapters import converted
from atelier.params import Params
from atelier.seeds import evenly, seed_of
from atelier.studies.signal_leak.fit import training_pictures
from atelier.studies.signal_leak.params import Config, LeakModel
from atelier.training import denoiser
from atelier.training.caches import encoded
from atelier.training.conversion import add_conversion
from atelier.training.conversion import scheduler_for as flow_scheduler
from atelier.training.lora import add_adapter, save_with_scheduler
from atelier.training.run import check, training_run
from atelier.workspace import Workspace

PROCESSES = "several"  # share batches of a training

EMPTY_PROMPTS = 0.1  # share of prompts left empty
MOST = 4096  # maximum number of natural pictures that a schedule is learnt from; limited by memory at 512 px
VELOCITY = Path("conversions/v_prediction")  # conversion of a shipped base, in the data folder


def scheduler_for(model: LeakModel, scheduler: SchedulerMixin) -> SchedulerMixin:
    """``scheduler`` with the schedule that a model is tuned to; zero terminal SNR requires trailing timesteps."""
    if model.betas is not None:
        start, end = model.betas
        return DDIMScheduler.from_config(scheduler.config, beta_start=start, beta_end=end)
    if model.zero_snr:
        return DDIMScheduler.from_config(
            scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
        )
    return flow_scheduler("flow_prediction", scheduler) if model.flow else scheduler


def start(params: Params, workspace: Workspace, model: LeakModel) -> StableDiffusionPipeline:
    """The initial pipeline of a model: the base, or with zero terminal SNR a shipped base converted to v prediction.

    At zero SNR, predicting the noise is trivial. Of other bases the model's own adapter, which is on every layer,
    learns to predict v with its schedule, and a flow's velocity with its path.
    """
    pipeline = base.load(check_seal(workspace.base))
    predicts_v = pipeline.scheduler.config.prediction_type == "v_prediction"
    if model.zero_snr and not predicts_v and params.base.source == "shipped":
        folder = workspace.named(params.data.folder) / VELOCITY
        if not folder.is_dir():
            raise ValueError(f"signal_leak.models: zero_snr needs the shipped base's conversion, {folder}")
        pipeline = converted(pipeline, folder)
    pipeline.scheduler = scheduler_for(model, pipeline.scheduler)
    return pipeline


def main(params: Params, workspace: Workspace, name: str, seed: str) -> None:
    """Write one model to ``build/adapters/signal_leak``: an adapter and its scheduler."""
    train(params, workspace, name, params.protocol.training_seed(seed))


def train(params: Params, workspace: Workspace, name: str, training_seed: int) -> None:
    config, accelerate = Config.of(params), accelerator(params.machine)
    check(params, "signal_leak.models", name, config.models, training_seed)
    model, seed = config.models[name], seed_of(params.seed, config.STUDY, training_seed)
    table, kind = training_pictures(workspace.manifests, model.style)
    if model.style is None:
        table = table.iloc[evenly(len(table), MOST)].reset_index(drop=True)
    # level 0, without a style name, so that the model learns the style for all prompts
    prompts = [prompt(row, 0, 0) for row in table.to_dict("records")]
    pipeline = start(params, workspace, model).to(accelerate.device)
    cache = encoded(pipeline, prepare.pictures(table, params.data, workspace, kind), [[text] for text in prompts])
    whole = model.style is None  # another schedule changes every layer's inputs
    trainable = (add_conversion if whole else add_adapter)(pipeline.unet, config.rank, seed)
    task = denoiser.task(
        pipeline.unet,
        trainable,
        pipeline.scheduler,
        cache.examples(list(table["path"])),
        empty_share=EMPTY_PROMPTS,
        seed=seed,
        device=accelerate.device,
    )
    run = training_run(
        params,
        workspace.scratch,
        config.STUDY,
        name,
        training_seed,
        workspace.adapter(config.STUDY, name, training_seed),
        base=base.fingerprint(check_seal(workspace.base)),
        model=model.model_dump(mode="json"),
        rank=config.rank,
        optimisation=config.optimisation.model_dump(mode="json"),
        size=params.data.size,
        pictures=list(table["sha256"]),
        prompts=prompts,
    )
    history = run.fit(task, config.optimisation, accelerate, seed)
    run.write(lambda folder, card: save_with_scheduler(pipeline, folder, card), history)
    run.discard()


def tuned_pipeline(params: Params, workspace: Workspace, name: str, training_seed: int) -> StableDiffusionPipeline:
    """Load a trained model with its scheduler."""
    pipeline = start(params, workspace, Config.of(params).models[name])
    return converted(pipeline, check_seal(workspace.adapter(Config.STUDY, name, training_seed)))
