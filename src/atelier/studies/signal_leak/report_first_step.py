"""The first step: what signal it holds, what the denoiser reads from it, and the deficit that follows."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from atelier.data.images import to_pixels
from atelier.diffusion import STABLE_DIFFUSION_BETAS, scaled_linear_betas, signal_and_noise
from atelier.evaluation.intervals import FloatArray
from atelier.methods.signal_leak import (
    covariance_from_white_noise,
    first_step,
    frequency_snr,
    from_low_components,
    low_components,
    lowest_frequencies,
    mean_of_posterior,
)
from atelier.models.latents import decode
from atelier.report import figures, words
from atelier.report.items import Figure, Metric, Table, Text
from atelier.sampling import store
from atelier.studies.signal_leak import fit
from atelier.studies.signal_leak.measure import slopes as slopes_of_means
from atelier.studies.signal_leak.report_results import Results, count, of_natural
from atelier.studies.signal_leak.sample import UNGUIDED, all_conditions, condition_of, location_of
from atelier.studies.signal_leak.train import scheduler_for

THIS, STABLE_DIFFUSION = "this base", "Stable Diffusion"
THEIR_STEPS, THEIR_FIRST = 50, 981  # Stable Diffusion's sampler, and the time at which it begins
SURVIVORS = 10  # pictures that are shown as their noisiest latents tell of them
LOWEST = (1, 3, 10)  # frequencies kept, a row each


def schedules(results: Results) -> dict[str, tuple[Tensor, Tensor]]:
    """Signal and noise at every training step, of this base and of Stable Diffusion."""
    return {
        THIS: signal_and_noise(results.scheduler.betas),
        STABLE_DIFFUSION: signal_and_noise(scaled_linear_betas(*STABLE_DIFFUSION_BETAS)),
    }


def last_step(results: Results, schedule: str) -> tuple[float, float]:
    """Signal and noise at a schedule's last training step."""
    signal, noise = schedules(results)[schedule]
    return float(signal[-1]), float(noise[-1])


def first_inputs(results: Results) -> Table:
    """Signal and noise in a sampler's first input and in training's last, beside Stable Diffusion's."""
    step, rows = results.step, {}
    signal, noise = (float(values[THEIR_FIRST]) for values in schedules(results)[STABLE_DIFFUSION])
    rows[f"{THIS}, sampler's first of {results.params.sampling.steps}"] = [step.alpha, step.s, int(step.time)]
    rows[f"{STABLE_DIFFUSION}, sampler's first of {THEIR_STEPS}"] = [signal, noise, THEIR_FIRST]
    for name, (signals, _) in schedules(results).items():
        rows[f"{name}, training's last"] = [*last_step(results, name), len(signals) - 1]
    frame = pd.DataFrame(list(rows.values()), columns=["signal", "noise", "step"], index=list(rows))
    caption = "Signal and noise in the denoiser's first input when sampling, and in its last step of training."
    return Table("first_step", frame.rename_axis("step"), caption)


def fitted_to(results: Results) -> Text:
    """What leaks of natural pictures are fitted to."""
    return Text(f"leaks are fitted to {len(results.training)} {results.kind} of the training split")


# ------------------------------------------------------------------------------------------------ what is left


def _by_frequency(results: Results) -> pd.DataFrame:
    """Mean square of each frequency (u, v), mean over channels."""
    return results.spectrum.groupby(["u", "v"], sort=False)["whole"].mean().reset_index()


def snr(results: Results) -> Figure:
    """Signal-to-noise ratio by frequency at training's last step."""
    power = _by_frequency(results)
    radius = np.hypot(power["u"].to_numpy(), power["v"].to_numpy())
    ours, theirs = (
        frequency_snr(power["whole"].to_numpy(), *last_step(results, name)) for name in (THIS, STABLE_DIFFUSION)
    )
    lines = {"this base's schedule": ours, "Stable Diffusion's betas on the same latents": theirs}
    n = int(results.spectrum["n"].iloc[0])
    caption = f"SNR by frequency at training's last step; n = {n} {results.kind}; dotted line: as much signal as noise."
    metrics = {"snr/lowest": Metric(float(ours[0]), n), "snr/median": Metric(float(np.median(ours)), n)}
    return Figure("snr", figures.snr_by_frequency(radius, lines), caption, metrics)


def _shown(results: Results, latents: FloatArray) -> Tensor:
    return to_pixels(decode(results.vae, torch.from_numpy(latents).float()))


def _guess(results: Results, z: FloatArray) -> FloatArray:
    """The best linear guess of latents z (n, c, h, w) from their noisiest input, each coefficient by its SNR."""
    frequencies = list(_by_frequency(results)[["u", "v"]].itertuples(index=False, name=None))
    alpha, s = last_step(results, THIS)
    ratio = frequency_snr(results.spectrum["whole"].to_numpy(), alpha, s).reshape(len(frequencies), -1)
    generator = torch.Generator().manual_seed(results.params.seed)
    noise = torch.randn(z.shape, generator=generator, dtype=torch.float64).numpy()
    guess = low_components(z + s / alpha * noise, frequencies) * ratio / (1 + ratio)
    return from_low_components(guess, frequencies, (z.shape[2], z.shape[3]))


def survives(results: Results) -> Figure:
    """Training pictures, their lowest frequencies, and what can be guessed from training's noisiest latent."""
    table = results.training.iloc[:SURVIVORS]
    latents = fit.encoded(results.params, results.workspace, results.vae, table, results.kind)
    z = next(latents).double().numpy()
    shape = (z.shape[2], z.shape[3])
    rows = {"decoded": _shown(results, z)}
    for number in LOWEST:
        kept = lowest_frequencies(*shape, number)
        rows[f"lowest {number}"] = _shown(results, from_low_components(low_components(z, kept), kept, shape))
    rows["guess from the\nnoisiest latent"] = _shown(results, _guess(results, z))
    caption = f"What survives of {results.kind} at training's last step: their means. The first {len(table)}."
    return Figure("survives", figures.contact_sheet(rows), caption)


# ------------------------------------------------------------------------------------------------ what is read


def perfect_slope(results: Results) -> Text:
    """The slope of a perfect denoiser without a prompt, from the covariance of means."""
    slope = mean_of_posterior(results.mean_leak.low_covariance, results.step.alpha, results.step.s).diagonal()
    return Text(f"a perfect denoiser's slope without a prompt, median over channels: {np.median(slope):.2f}")


def _finished_slope(results: Results, model: str) -> float | None:
    """Slope of finished pictures' means on their first latents'; None of a model that paints no pictures here."""
    params, samples = results.params, results.workspace.samples
    if model not in {condition.name for condition in all_conditions(params)}:
        return None
    folders = location_of(params, condition_of(params, model)).folders(samples, params.protocol.training_seeds)
    means, listed = store.read_latents(folders).mean((2, 3)).numpy(), store.listed(folders).reset_index()
    rows = results.first_steps.query("model == @model").merge(listed[["index", "repeat", "place"]])
    rows["finished"] = means[rows["index"], rows["channel"]]
    return float(np.median(slopes_of_means(rows, "first", "finished")))


def slopes(results: Results) -> Table:
    """Slope of the mean that each model estimates at its first step, on the mean of its first latent."""
    rows, metrics = {}, {}
    for model in dict.fromkeys(results.first_steps["model"]):
        slope, shuffled = (results.interval("slope", cell) for cell in (model, f"{model}-shuffled"))
        finished = _finished_slope(results, model)
        rows[model] = {"slope": words.signed(slope, ".2f"), "shuffled": words.signed(shuffled, ".2f")}
        rows[model] |= {} if finished is None else {"finished picture": f"{finished:+.2f}"}
        metrics[f"slope/{model}"] = results.metric(slope)
    caption = "Slope of means, median over channels; white noise, no guidance at the first step; 95 % intervals; "
    caption += f"n = {results.n} first latents."
    return Table("slopes", pd.DataFrame(rows).T.rename_axis("model").fillna(""), caption, metrics)


# ------------------------------------------------------------------------------------------------ what follows


def _deficits(results: Results) -> pd.DataFrame:
    """Predicted and measured spread of means from white noise without guidance, one row per schedule."""
    covariance, rows = results.mean_leak.low_covariance, {}
    for name in ["white", *of_natural(results.config)]:
        scheduler = results.scheduler
        if name != "white":
            scheduler = scheduler_for(results.config.models[name], scheduler)
        step = first_step(scheduler, results.params.sampling.steps)
        left = covariance_from_white_noise(covariance, step.alpha, step.s)
        interval = results.interval("channel_ratio", f"{name}{UNGUIDED}")
        rows[name] = {
            "SNR of the mean": float(frequency_snr(covariance.diagonal(), step.alpha, step.s).mean()),
            "predicted": float(np.exp(0.5 * np.log(left.diagonal() / covariance.diagonal()).mean())),
            "value": interval.mean,
            "low": interval.low,
            "high": interval.high,
        }
    return pd.DataFrame(rows).T.rename(index={"white": THIS}).rename_axis("schedule")


def _deficit_caption(results: Results) -> str:
    return f"Spread of generated means over pictures'; 95 % intervals; {count(results)}, no guidance"


def deficit(results: Results) -> Figure:
    """Measured against predicted spread of means, one point per schedule."""
    figure = figures.against_prediction(_deficits(results), "predicted from the covariance of means", "measured")
    metrics = {
        f"deficit/{name}": results.metric(results.interval("channel_ratio", f"{name}{UNGUIDED}"))
        for name in ["white", *of_natural(results.config)]
    }
    return Figure("deficit", figure, f"{_deficit_caption(results)}; dotted line: as predicted.", metrics)


def deficits(results: Results) -> Table:
    """The numbers of ``deficit``."""
    return Table("deficits", _deficits(results), f"{_deficit_caption(results)}.")
