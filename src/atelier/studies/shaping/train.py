"""Train an adapter on accepted candidates (GRAFT, P-GRAFT), on as many that are not selected, or by a policy gradient.

All variants have as many candidates, updates of equal batches, and parameters. Later rounds go on from the adapter
of the round before, on candidates that it painted. Below level 1 the adapter learns levels t >= t_I alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from atelier import scratch
from atelier.files import check_seal, reading
from atelier.machine import accelerator
from atelier.methods.policy_gradient import advantages
from atelier.models.adapters import WEIGHTS, tuned
from atelier.params import Params
from atelier.sampling.prompted import Prompted
from atelier.sampling.sampler import first_latents, settled
from atelier.sampling.trajectories import Level, level, network_parts, noise_generators, predicts, step_levels
from atelier.seeds import seed_of
from atelier.studies.shaping import candidates, prompts, rewards, select, shaped
from atelier.studies.shaping.candidates import Painting
from atelier.studies.shaping.params import Config, before
from atelier.training import run as runs
from atelier.training.accepted import Learnt, Steps, accepted_task, empty_prompts, policy_task
from atelier.training.conversion import add_conversion
from atelier.training.loop import Task
from atelier.training.lora import save_with_scheduler
from atelier.training.run import TrainingRun, training_run
from atelier.workspace import Workspace

LEAST_NOISE = 1e-3  # of a step: below it, as at a grid's last one, rounding hides what its probability is


def train(params: Params, workspace: Workspace, variant: str, training_seed: int) -> None:
    """Train one variant from one seed; write to ``build/adapters`` the adapter, its scheduler and history.

    The card says how many ``candidates`` there were and were ``accepted``, the mean reward of both, and the adapter's
    ``level``: the number of its steps, and its last timestep t_I.
    """
    setup = Setup(params, workspace, variant, training_seed)
    run = setup.run()
    if setup.training.method == "policy":
        history, facts = setup.by_policy(run)
    else:
        history, facts = setup.by_selection(run)
    place = setup.level
    facts["level"] = {"steps": place.number, "t_I": place.t} if place else {"steps": setup.config.steps, "t_I": None}

    def save(folder: Path, card: Mapping[str, Any]) -> None:
        save_with_scheduler(setup.pipeline, folder, card)

    run.write(save, history, **facts)
    run.discard()


class Setup:
    """One variant's denoiser with its adapter, for one training seed."""

    def __init__(self, params: Params, workspace: Workspace, variant: str, training_seed: int) -> None:
        check_seed(params, variant, training_seed)
        self.params, self.workspace, self.variant, self.training_seed = params, workspace, variant, training_seed
        self.config = Config.of(params)
        self.training = self.config.trainings[variant]
        self.optimisation = self.config.optimisation_of(variant)
        self.seed = seed_of(params.seed, Config.STUDY, training_seed)
        self.accelerator = accelerator(params.machine)
        self.pipeline = settled(shaped.load(params, workspace), self.accelerator.device)
        self.pipeline.set_progress_bar_config(disable=True)
        if self.training.level < 1.0 and self.training.target == "x_I":
            check_signal(self.pipeline.scheduler, self.config.steps, variant)
        self.trainable = add_conversion(self.pipeline.unet, self.config.rank, self.seed)
        self.before = before(variant, self.config)
        if self.before is not None:
            restore_adapter(self.pipeline, workspace.adapter(Config.STUDY, self.before, training_seed))

    @property
    def level(self) -> Level | None:
        """Where the adapter's part ends; None: at the last state."""
        share = self.training.level
        return None if share == 1.0 else level(self.pipeline.scheduler, self.config.steps, share)

    def run(self) -> TrainingRun:
        """The run, determined by all that it learns from."""
        workspace, config, seed = self.workspace, self.config, self.training_seed
        inputs = [*shaped.inputs(self.params, workspace), rewards.folder(workspace), workspace.manifests]
        if self.before is not None:
            inputs.append(workspace.adapter(config.STUDY, self.before, seed))
        elif self.training.method != "policy":
            inputs.append(candidates.folder(workspace, seed))
        of_study = {"model", "reward", "rewards", "steps", "guidance", "candidates", "rank"}
        rule = None if self.training.method == "policy" else config.rule_of(self.variant).model_dump(mode="json")
        return training_run(
            self.params,
            workspace.scratch,
            config.STUDY,
            self.variant,
            seed,
            workspace.adapter(config.STUDY, self.variant, seed),
            inputs=scratch.digest(workspace.root, *inputs),
            training=self.training.model_dump(mode="json"),
            constants=config.model_dump(mode="json", include=of_study),
            rule=rule,
            policy=config.policy.model_dump(mode="json") if self.training.method == "policy" else None,
            optimisation=self.optimisation.model_dump(mode="json"),
        )

    # ------------------------------------------------------------------------------------- accepted candidates

    def by_selection(self, run: TrainingRun) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Learn what the rule accepts, and say how much that is."""
        table, shards = self.scored(run)
        numbers = select.chosen(self.training, self.config.rule_of(self.variant), table)
        task = self.task(table.iloc[numbers], shards)
        history = run.fit(task, self.optimisation, self.accelerator, self.seed)
        facts = {
            "candidates": len(table),
            "accepted": len(numbers),
            "candidates_reward": float(table["reward"].mean()),
            "accepted_reward": float(table["reward"].iloc[numbers].mean()),
        }
        return history, facts

    def scored(self, run: TrainingRun) -> tuple[pd.DataFrame, list[Path]]:
        """Candidates with their rewards, and the shards of their states: the base's, or by the round before."""
        solver = self.training.solver
        if self.before is None:
            place = candidates.folder(self.workspace, self.training_seed, solver)
            return candidates.listed(place), candidates.shards_of(place)
        table = prompts.of_candidates(self.params, self.workspace, self.training_seed)
        names = (self.params.seed, Config.STUDY, "candidates", self.training_seed, self.training.round)
        pipeline, parts = load(self.params, self.workspace, self.before, self.training_seed)
        pipeline = settled(pipeline, self.accelerator.device)
        how = candidates.painting(self.params, table, solver, names)._replace(parts=parts)
        shards = candidates.painted(self.params, pipeline, table, how, run.scratch / "candidates")
        judged = rewards.rewards_of(self.params, self.workspace)
        return candidates.scored(shards, table, judged, self.config.reward), shards

    def task(self, accepted: pd.DataFrame, shards: Sequence[Path]) -> Task:
        """Denoising of what was accepted, at all levels or down to the variant's level."""
        place, numbers = self.level, accepted["number"].tolist()
        names = [f"candidate-{number}" for number in numbers]
        if place is None:
            learnt = Learnt(candidates.picked(shards, candidates.LAST, numbers), names)
        elif self.training.target == "x_0":
            learnt = Learnt(candidates.picked(shards, candidates.LAST, numbers), names, place.t)
        else:
            states = candidates.picked(shards, candidates.state_name(self.training.level), numbers)
            learnt = Learnt(states * place.factor, names, place.t, place.alpha, place.s)
        texts = sorted(set(accepted["prompt"]))
        prompted = Prompted.of(self.pipeline, texts, learnt.states)
        return accepted_task(
            prompted.call(self.pipeline.unet, [texts.index(text) for text in accepted["prompt"]]),
            self.trainable,
            self.pipeline.scheduler,
            learnt,
            empty_share=empty_prompts(self.config.guidance),
            seed=self.seed,
            device=self.accelerator.device,
        )

    # ------------------------------------------------------------------------------------- policy gradient

    def by_policy(self, run: TrainingRun) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Sample, look at rewards, and update, round after round; a killed run goes on in the round that it was in."""
        table, policy, histories = self.policy_table(), self.config.policy, []
        done, means = 0, []
        for number in range(policy.rounds):
            steps = self.optimisation.steps * (number + 1) // policy.rounds - done
            rows = table[table["round"] == number].reset_index(drop=True)
            scored = self.sampled(rows, number, run)
            means.append(float(scored["reward"].mean()))
            task = self.policy_task(scored, number, run)
            warmup = self.optimisation.warmup if number == 0 else 0
            settings = self.optimisation.model_copy(update={"steps": steps, "warmup": warmup, "decay": "constant"})
            seed = seed_of(self.seed, "policy", number)
            history = run.fit(task, settings, self.accelerator, seed, phase=f"round-{number}")
            histories.append(history.assign(step=history["step"] + done, reward=means[-1]))
            done += steps
        facts = {"candidates": len(table), "accepted": len(table), "candidates_reward": means[0], "rewards": means}
        return pd.concat(histories, ignore_index=True), facts

    def policy_table(self) -> pd.DataFrame:
        """As many candidates as the others', with the round that each is sampled in: equally many of each prompt."""
        table = prompts.of_candidates(self.params, self.workspace, self.training_seed)
        each = self.config.candidates.each // self.config.policy.rounds
        return table.assign(round=table["number"] % self.config.candidates.each // each)

    def painting(self, rows: pd.DataFrame, number: int) -> Painting:
        """How a round's trajectories are sampled: all of their states are kept."""
        names = (self.params.seed, Config.STUDY, "policy", self.training_seed, number)
        how = candidates.painting(self.params, rows, self.training.solver, names)
        return how._replace(keep={f"state-{step}": step for step in range(1, self.config.steps)})

    def sampled(self, rows: pd.DataFrame, number: int, run: TrainingRun) -> pd.DataFrame:
        """A round's rows with their rewards."""
        shards = self.shards(rows, number, run)
        judged = rewards.rewards_of(self.params, self.workspace)
        return candidates.scored(shards, rows, {self.config.reward: judged[self.config.reward]}, self.config.reward)

    def shards(self, rows: pd.DataFrame, number: int, run: TrainingRun) -> list[Path]:
        folder = run.scratch / f"candidates-{number}"
        return candidates.painted(self.params, self.pipeline, rows, self.painting(rows, number), folder)

    def policy_task(self, rows: pd.DataFrame, number: int, run: TrainingRun) -> Task:
        """PPO's loss of a round's steps, without steps that add hardly any noise."""
        steps, owners = self.steps(rows, number, run)
        texts = sorted(set(rows["prompt"]))
        prompted = Prompted.of(self.pipeline, texts, steps.states)
        prompt_numbers = [texts.index(text) for text in rows["prompt"]]
        return policy_task(
            prompted.call(self.pipeline.unet, [prompt_numbers[owner] for owner in owners]),
            self.trainable,
            self.pipeline.scheduler.config.prediction_type,
            steps,
            guidance=self.config.guidance,
            clip=self.config.policy.clip,
            device=self.accelerator.device,
        )

    def steps(self, rows: pd.DataFrame, number: int, run: TrainingRun) -> tuple[Steps, list[int]]:
        """All steps of a round's trajectories, and the row of each."""
        how, shards = self.painting(rows, number), self.shards(rows, number, run)
        first = first_latents(self.pipeline, how.seeds, self.params.data.size)
        states = [
            first,
            *(candidates.picked(shards, name) for name in how.keep),
            candidates.picked(shards, candidates.LAST),
        ]
        shape = (1, *first.shape[1:])
        generators = noise_generators(how.seeds)
        noise = [
            torch.cat([torch.randn(shape, generator=each) for each in generators]) for _ in range(self.config.steps)
        ]
        times, levels = step_levels(self.pipeline.scheduler, self.config.steps)
        advantage = torch.from_numpy(
            advantages(rows["reward"], rows["set"].to_numpy(), self.config.policy.most)
        ).float()
        noisy = [step for step in range(self.config.steps) if added(levels[step]) > LEAST_NOISE]
        n = len(rows)
        steps = Steps(
            states=torch.cat([states[step] for step in noisy]),
            following=torch.cat([states[step + 1] for step in noisy]),
            times=torch.cat([times[step].expand(n) for step in noisy]),
            levels=torch.cat([levels[step].expand(n, 4) for step in noisy]),
            noise=torch.cat([noise[step] for step in noisy]),
            advantage=advantage.repeat(len(noisy)),
            names=[f"trajectory-{row}/step-{step}" for step in noisy for row in range(n)],
        )
        return steps, list(range(n)) * len(noisy)


def added(levels: Tensor) -> float:
    """The variance between a step's two levels, from signal and noise before and after it (4,); 0 for one that ends."""
    alpha, s, alpha_next, s_next = levels.tolist()
    return s**2 - (alpha * s_next / alpha_next) ** 2 if s_next > 0 else 0.0


# ------------------------------------------------------------------------------------------------ tuned models


def restore_adapter(pipeline: Any, folder: Path) -> None:
    """Fill a denoiser's new adapter from a trained one of the same rank."""
    path = check_seal(folder) / WEIGHTS
    with reading(path, "not a readable adapter"):
        state = {name.removeprefix("unet."): tensor for name, tensor in load_file(path).items()}
        loaded: Any = set_peft_model_state_dict(pipeline.unet, state)
        if odd := loaded.unexpected_keys:
            raise ValueError(f"it has {odd[0]}, which the denoiser has no adapter for")


def load(params: Params, workspace: Workspace, variant: str, training_seed: int) -> tuple[Any, Any]:
    """A trained variant's pipeline, and its two parts where its adapter takes the first steps alone (else None)."""
    check_seed(params, variant, training_seed)
    config = Config.of(params)
    folder = check_seal(workspace.adapter(config.STUDY, variant, training_seed))
    model = tuned(shaped.load(params, workspace), folder)
    share = config.trainings[variant].level
    if share == 1.0:
        return model, None
    pipeline = shaped.load(params, workspace)
    device = accelerator(params.machine).device
    network = model.unet.to(device, memory_format=torch.channels_last)
    untuned = pipeline.unet.to(device, memory_format=torch.channels_last)
    number = level(pipeline.scheduler, config.steps, share).number
    return pipeline, network_parts(pipeline, network, untuned, number)


def check_signal(scheduler: SchedulerMixin, steps: int, variant: str) -> None:
    """Refuse target x_I of a denoiser that predicts v at a first step without signal.

    ``partial_loss`` is there the same for every v, so that the step that begins each picture would stay untrained.
    """
    if predicts(scheduler) == "v_prediction" and float(step_levels(scheduler, steps)[1][0, 0]) == 0:
        raise ValueError(
            f"shaping.trainings.{variant}.target: x_I teaches a base that predicts v nothing at its first step, "
            "which has no signal; expected x_0, or shaping.model: flow"
        )


def check_seed(params: Params, variant: str, training_seed: int) -> None:
    """Raise ValueError for an unknown variant, or an unknown seed."""
    runs.check(params, "shaping.trainings", variant, Config.of(params).trainings, training_seed)
