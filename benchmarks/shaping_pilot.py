"""Does selection move the reward? GRAFT and a training on unselected candidates, by model, reward and learning rate.

    dvc repro shaping-untuned && python benchmarks/shaping_pilot.py flow style 0.0003 0.001

Reads what the pipeline has built. Training prompts of 16 candidates, the best two of each learnt or the first two, by
updates of 16; 192 pictures of held-out prompts from white noise. One table row a trained model; after ±: standard
errors, those of changes over pairs of pictures. About two minutes a learning rate on one core, for 48 prompts.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from atelier import params as parameters
from atelier.data.images import to_pixels
from atelier.evaluation import judges
from atelier.evaluation import reference as references
from atelier.metrics import Moments, alignment, frechet_distance_from_moments
from atelier.params import Optimisation, Params
from atelier.sampling.prompted import Prompted
from atelier.sampling.sampler import decoded, first_latents, settled
from atelier.sampling.trajectories import Solver, trajectories
from atelier.seeds import seed_of
from atelier.studies.shaping import prompts, rewards, shaped
from atelier.studies.shaping.params import Config
from atelier.training.accepted import Learnt, accepted_task
from atelier.training.conversion import add_conversion
from atelier.training.loop import fit
from atelier.workspace import Workspace

EACH, ACCEPTED, HELD_OUT, BATCH = 16, 2, 192, 16
STEPS = {"base": 8, "flow": 16}
HEAD = (
    "model",
    "reward",
    "prompts",
    "updates",
    "learning rate",
    "trained",
    "its pictures'",
    "beside the untrained",
    "FD",
)


class Painted(NamedTuple):
    """Latents (n, c, h, w), rewards (n,), and the distance to reconstructed works."""

    latents: torch.Tensor
    rewards: Any
    distance: float


class Pilot:
    """One model and reward: its prompts, and how they are painted and judged."""

    def __init__(self, params: Params, workspace: Workspace, reward: str, prompts_learnt: int, updates: int) -> None:
        self.reward, self.prompts, self.updates = reward, prompts_learnt, updates
        self.params, self.workspace, self.config = params, workspace, Config.of(params)
        self.judged = rewards.rewards_of(params, workspace)[reward]
        self.real, self.judge = references.load(workspace.reference), judges.evaluator(workspace.evaluator)
        self.how = Solver(1.0, STEPS[self.config.model], 32)
        rows = self.rows_of(prompts.TRAINING, self.prompts)
        self.candidates = rows.loc[rows.index.repeat(EACH)].reset_index(drop=True)
        self.held_out = self.rows_of(prompts.HELD_OUT, HELD_OUT)

    def rows_of(self, split: str, n: int) -> pd.DataFrame:
        works = prompts.works(self.params, self.workspace, split)
        return prompts.drawn(self.params, works, ("pilot", split), range(n)).reset_index(drop=True)

    def model(self) -> Any:
        pipeline = settled(shaped.load(self.params, self.workspace), torch.device("cpu"))
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @torch.no_grad()
    def painted(self, pipeline: Any, rows: pd.DataFrame, name: str) -> Painted:
        seeds = [("pilot", name, number) for number in range(len(rows))]
        noise = first_latents(pipeline, seeds, self.params.data.size)
        last = torch.cat(
            [each.last for each in trajectories(pipeline, rows["prompt"].tolist(), noise, seeds, self.how)]
        )
        shown = to_pixels(decoded(pipeline.vae, last, 32))
        assert self.judge is not None
        assert self.real.reconstructed is not None
        features = Moments().update(alignment.features(self.judge, shown / 255))
        distance = frechet_distance_from_moments(self.real.reconstructed.features, features)
        return Painted(last, np.asarray(self.judged(shown, rows), np.float64), distance)

    def trained(self, candidates: Painted, numbers: list[int], rate: float) -> Any:
        pipeline, seed = self.model(), seed_of(self.params.seed, "pilot")
        trainable = add_conversion(pipeline.unet, self.config.rank, seed)
        learnt = Learnt(candidates.latents[numbers], [f"candidate-{number}" for number in numbers])
        texts = self.candidates["prompt"].iloc[numbers].tolist()
        once = sorted(set(texts))
        call = Prompted.of(pipeline, once, learnt.states).call(pipeline.unet, [once.index(text) for text in texts])
        task = accepted_task(
            call, trainable, pipeline.scheduler, learnt, empty_share=0.0, seed=seed, device=torch.device("cpu")
        )
        settings = Optimisation(
            steps=self.updates, batch=BATCH, learning_rate=rate, decay="cosine", warmup=10, beta2=0.999,
            weight_decay=0.0, clip=1.0, ema=0.0, checkpoint_every=self.updates,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as scratch:
            fit(task, settings, seed=seed, scratch=Path(scratch) / "run", accelerator=Accelerator(cpu=True))
        return pipeline

    def rows(self, rates: list[float]) -> list[str]:
        start = self.model()
        candidates, before = (
            self.painted(start, rows, name)
            for rows, name in ((self.candidates, "candidates"), (self.held_out, "held out"))
        )
        by_prompt = candidates.rewards.reshape(self.prompts, EACH)
        best = np.argsort(-by_prompt, axis=1, kind="stable")[:, :ACCEPTED] + EACH * np.arange(self.prompts)[:, None]
        anyone = np.arange(ACCEPTED) + EACH * np.arange(self.prompts)[:, None]
        lines = [self.row("", "untrained", before, before)]
        for rate in rates:
            for name, numbers in (("plain", anyone), ("GRAFT", best)):
                made = self.painted(self.trained(candidates, numbers.ravel().tolist(), rate), self.held_out, "held out")
                lines.append(self.row(f"{rate:g}", name, made, before))
        law = candidates.rewards[best.ravel()].mean() - candidates.rewards.mean()
        return [*lines, f"Accepted candidates less all: {law:+.3f}"]

    def row(self, rate: str, name: str, made: Painted, before: Painted) -> str:
        change = made.rewards - before.rewards
        of = f"{made.rewards.mean():.3f} ± {error(made.rewards):.3f}"
        beside = "" if made is before else f"{change.mean():+.3f} ± {error(change):.3f}"
        told = (
            self.config.model,
            self.reward,
            self.prompts,
            self.updates,
            rate,
            name,
            of,
            beside,
            f"{made.distance:.0f}",
        )
        return f"| {' | '.join(map(str, told))} |"


def error(values: Any) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(STEPS))
    parser.add_argument("reward", choices=["colour", "brightness", "subject", "style"])
    parser.add_argument("rates", nargs="+", type=float)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--updates", type=int, default=150)
    given = parser.parse_args()
    torch.set_num_threads(1)
    workspace = Workspace(Path())
    params = parameters.load(workspace.params_file)
    section = Config.of(params).model_copy(update={"model": given.model})
    pilot = Pilot(
        params.model_copy(update={Config.STUDY: section}), workspace, given.reward, given.prompts, given.updates
    )
    print(f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|", sep="\n")
    for line in pilot.rows(given.rates):
        print(line, flush=True)


if __name__ == "__main__":
    main()
