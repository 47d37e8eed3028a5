"""Stage ``signal_leak-train``: denoisers for the study of Everaert et al. 2024, which trains none of its own.

One tuned to a style, so that a leak has something to help; or one tuned to another schedule, on the photographs: with
zero terminal SNR (Lin et al. 2024), which is what people train instead, or with betas that leave more or less signal.
"""

from pathlib import Path

from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from atelier import paths
from atelier.data import prepare
from atelier.data.latents import Cache, encode_pictures, encode_prompts
from atelier.data.prompts import prompt
from atelier.machine import accelerator
from atelier.models import base
from atelier.params import LeakModel, Params
from atelier.sampling.adapters import converted
from atelier.seeds import seed_of
from atelier.training import denoiser, scratch
from atelier.training.art_finetuning import add_adapter, cached_embeddings, save_adapter
from atelier.training.conversion import add_conversion
from atelier.training.leaks import STUDY, lessons
from atelier.training.loop import fit

VELOCITY = Path("conversions/v_prediction")  # in the data folder: of a shipped base


def scheduler_for(model: LeakModel, scheduler: SchedulerMixin) -> SchedulerMixin:
    """``scheduler`` with the schedule that a model is tuned to; with zero terminal SNR trailing steps, as it needs."""
    if model.betas is not None:
        start, end = model.betas
        return DDIMScheduler.from_config(scheduler.config, beta_start=start, beta_end=end)
    if model.zero_snr:
        return DDIMScheduler.from_config(
            scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
        )
    return scheduler


def start(asked: Params, model: LeakModel) -> StableDiffusionPipeline:
    """What a model is tuned from: the base, or with zero terminal SNR the base that predicts v.

    Noise cannot be told from a picture's noise where there is nothing else.
    """
    pipeline = base.load(paths.BASE)
    if model.zero_snr and pipeline.scheduler.config.prediction_type != "v_prediction":
        folder = Path(asked.data.folder) / VELOCITY
        if asked.base.source != "shipped" or not folder.is_dir():
            raise ValueError(
                f"signal_leak.models: zero_snr needs a base that predicts v, or a shipped one and {folder}"
            )
        pipeline = converted(pipeline, folder)
    pipeline.scheduler = scheduler_for(model, pipeline.scheduler)
    return pipeline


def train(asked: Params, name: str, training_seed: int) -> None:
    """One model into ``build/adapters/signal_leak``: an adapter, and the scheduler that it belongs to."""
    study = asked.signal_leak
    if name not in study.models:
        raise ValueError(f"signal_leak.models: no model '{name}', there are {', '.join(study.trained)}")
    if training_seed not in asked.art_finetuning.training_seeds:
        raise ValueError(f"art_finetuning.training_seeds: {training_seed} is none of them")
    model, seed, place = study.models[name], seed_of(asked.seed, STUDY, training_seed), accelerator(asked.machine)
    table, kind = lessons(asked, model.style)
    # level 0: no style is named, so that what is learnt is what all its pictures look like
    prompts = [[prompt(row, 0, 0)] for row in table.to_dict("records")]
    pipeline = start(asked, model).to(place.device)
    flat = encode_prompts(pipeline, [row[0] for row in prompts])
    cache = Cache(
        latents=encode_pictures(pipeline.vae, prepare.pictures(table, asked.data, kind)),
        embeddings=flat[:, None],
        empty=encode_prompts(pipeline, [""])[0],
    )
    unet = pipeline.unet
    whole = model.style is None  # another schedule changes what every layer sees
    trainable = add_conversion(unet, study.rank, seed) if whole else add_adapter(unet, study.rank, seed)
    task = denoiser.task(
        unet,
        trainable,
        pipeline.scheduler,
        cache.latents,
        lambda samples, chosen, empty: cached_embeddings(cache, samples, chosen, empty),
        names=list(table["path"]),
        prompts=1,
        empty_share=0.1,
        seed=seed,
        device=place.device,
    )
    determinants = {
        "base": base.fingerprint(paths.BASE),
        "model": model.model_dump(mode="json"),
        "rank": study.rank,
        "optimisation": study.optimisation.model_dump(mode="json"),
        "machine": asked.machine.model_dump(mode="json"),
        "size": asked.data.size,
        "seed": asked.seed,
        "training_seed": training_seed,
        "pictures": list(table["sha256"]),
        "prompts": prompts,
    }
    folder = scratch.folder(f"{STUDY}-{name}-{training_seed}", **determinants)
    history = fit(task, study.optimisation, seed=seed, scratch=folder, accelerator=place)
    with paths.replacing(tuned_folder(name, training_seed)) as part:
        save_adapter(unet.to("cpu"), part, {**determinants, "study": STUDY, "name": name})
        pipeline.scheduler.save_pretrained(part / "scheduler")
        history.to_csv(part / "history.csv", index=False)
    scratch.discard(folder)


def tuned_folder(name: str, training_seed: int) -> Path:
    """Where a model of one training seed lies."""
    return paths.ADAPTERS / STUDY / name / str(training_seed)


def tuned_pipeline(asked: Params, name: str, training_seed: int) -> StableDiffusionPipeline:
    """A model as it was trained, with its own scheduler."""
    return converted(start(asked, asked.signal_leak.models[name]), tuned_folder(name, training_seed))
