"""Parameters of the study of distribution shaping: GRAFT, P-GRAFT, inverse noise correction (Anil et al. 2025)."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from atelier.params import (
    CORRECTED,
    STARTS,
    WHITE,
    Given,
    Guidance,
    Name,
    Optimisation,
    Params,
    Pictures,
    Positive,
    Rank,
    Sampled,
    Section,
    StudySection,
    Trained,
    Work,
    names_once,
    subset_once,
)
from atelier.studies.shaping.flow_params import Flow

Reward = Literal["colour", "brightness", "subject", "style"]
Solver = Literal["ode", "sde"]  # DDIM, or Euler's of a flow, a map from noise to picture; with noise at every step
DRAWS = 20  # of accepted candidates, one a prompt: two bins of a chi-square test (law.EXPECTED)
UNTUNED = "untuned"
UNTUNED_SDE = "untuned-sde"  # the same model, sampled with noise at every step
FIRST, SECOND = "graft", "graft-2"  # what rounds two and three continue


class Candidates(Section):
    """Pictures by the base of which the trainings learn some; equally many by either solver, and of every round."""

    prompts: Positive  # of training works, each another work's
    each: Annotated[int, Field(ge=2, le=10_000)]  # pictures a prompt


class Rule(Section):
    """Which candidates are accepted: of every ``m`` of a prompt the ``k`` best, or all of at least ``least``."""

    k: Positive | None = None
    m: Positive | None = None
    least: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "Rule":
        if (self.k is None) != (self.m is None) or (self.k is None) == (self.least is None):
            raise ValueError("k: expected k and m, or least alone")
        if self.k is not None and self.m is not None and self.k > self.m:
            raise ValueError(f"k: {self.k} of {self.m}")
        return self


class Shaping(Section):
    """One variant. ``level``: the share of the steps, from noise on, that its adapter takes; 1: all (GRAFT)."""

    method: Literal["accepted", "plain", "policy"] = "accepted"  # plain: as many candidates, whatever their reward
    rule: Name | None = None  # None: the study's first one
    level: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    target: Literal["x_I", "x_0"] = "x_I"  # what is learnt below level 1 (methods.partial)
    solver: Solver = "ode"  # of its candidates and of its pictures
    round: Annotated[int, Field(ge=1, le=3)] = 1  # from 2 on candidates are of the round before
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None  # instead of the study's

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> "Shaping":
        if self.level == 1.0 and self.target != "x_I":  # not whether it is given: a notebook is given all
            raise ValueError("target: of variants with a level below 1; GRAFT learns last states")
        if self.method == "policy" and (self.level, self.solver, self.rule) != (1.0, "sde", None):
            raise ValueError("method: a policy gradient needs solver sde, takes all steps and accepts nothing")
        return self


class Policy(Section):
    """The policy-gradient rival (DDPO, Black et al. 2023): samples and updates are split evenly over rounds."""

    rounds: Positive
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    clip: Annotated[float, Field(gt=0.0, lt=1.0)]  # of the ratio of probabilities of a step
    most: Annotated[float, Field(gt=0.0, le=1e6)]  # of an advantage, in standard deviations


class Inspected(Section):
    """What ``inspect`` measures of the base and of the trainings, beside pictures of held-out prompts."""

    states: Positive  # trajectories whose kept states are continued
    each: Annotated[int, Field(ge=2, le=10_000)]  # continuations of a state
    pictures: Positive  # held-out works whose denoising errors are compared
    times: Positive  # noise levels at which they are


class Config(StudySection):
    STUDY: ClassVar[str] = "shaping"

    model: Literal["flow", "base"]  # that is shaped: the base converted to a flow, or as it is
    reward: Reward  # that all variants are trained for
    rewards: Annotated[list[Reward], Field(min_length=1)]  # that are measured on all pictures
    steps: Annotated[int, Field(ge=2, le=1000)]  # of the solver, of candidates and of pictures
    levels: Annotated[list[Annotated[float, Field(gt=0.0, lt=1.0)]], Field(min_length=1)]  # whose states are kept
    candidates: Candidates
    rules: Annotated[dict[Name, Rule], Field(min_length=1)]
    variants: Annotated[list[Name], Field(min_length=1)]
    second: list[Name]  # of round 2, after ``graft``
    third: list[Name]  # of round 3, after ``graft-2``
    trainings: dict[Name, Shaping]
    rank: Rank  # of adapters on every layer
    optimisation: Optimisation
    policy: Policy
    guidance: Guidance  # of candidates, trainings and pictures alike
    pictures: Pictures  # per repeat, variant and start
    flow: Flow
    inspected: Inspected

    @model_validator(mode="after")
    def _variants_are_trainings(self) -> "Config":
        names_once("variants", self.names, self.trainings, "trainings, with second and third,")
        taken = {UNTUNED, UNTUNED_SDE} | {f"{name}-{CORRECTED}" for name in self.trainings}
        if odd := [name for name in self.trainings if name in taken or name.startswith("flow-")]:
            raise ValueError(f"trainings: '{odd[0]}' names something else in this study")
        subset_once("rewards", list(self.rewards), list(get_args(Reward)))
        if self.reward not in self.rewards:
            raise ValueError(f"rewards: expected the one that is trained for, {self.reward}, too")
        return self

    @model_validator(mode="after")
    def _rounds_follow(self) -> "Config":
        for number, names in enumerate((self.variants, self.second, self.third), start=1):
            if odd := [name for name in names if self.trainings[name].round != number]:
                raise ValueError(
                    f"trainings: '{odd[0]}' is of round {self.trainings[odd[0]].round}, listed as {number}"
                )
        if self.second and FIRST not in self.variants:
            raise ValueError(f"second: expected '{FIRST}' among variants, whose pictures are candidates")
        if self.third and SECOND not in self.second:
            raise ValueError(f"third: expected '{SECOND}' in round 2, whose pictures are candidates")
        return self

    @model_validator(mode="after")
    def _candidates_fit(self) -> "Config":
        each = self.candidates.each
        if odd := [name for name, rule in self.rules.items() if rule.m and each % rule.m]:
            raise ValueError(f"rules: '{odd[0]}' takes {self.rules[odd[0]].m} at a time, of {each} candidates a prompt")
        for name, training in self.trainings.items():
            if training.rule is not None and training.rule not in self.rules:
                raise ValueError(f"trainings: '{name}' has rule '{training.rule}', there are {', '.join(self.rules)}")
            if training.method == "plain" and self.rule_of(name).k is None:
                raise ValueError(f"trainings: '{name}' takes as many as a rule of k and m accepts")
            if training.level not in (1.0, *self.levels):
                raise ValueError(f"trainings: '{name}' has level {training.level:g}, kept are {self.levels}")
        rounds = self.policy.rounds
        if any(t.method == "policy" for t in self.trainings.values()) and (each % rounds or each // rounds < 2):
            raise ValueError(
                f"policy.rounds: {each} candidates a prompt in {rounds} rounds; two or more a round, evenly"
            )
        if any(t.method == "policy" for t in self.trainings.values()) and self.optimisation.steps < rounds:
            raise ValueError(
                f"policy.rounds: {self.optimisation.steps} updates in {rounds} rounds; one or more a round"
            )
        numbers = [self.number_of(level) for level in self.levels]
        if min(numbers) < 1 or max(numbers) >= self.steps or len(set(numbers)) < len(numbers):
            raise ValueError(f"levels: expected different inner steps of {self.steps}, got steps {numbers}")
        return self

    def samples(self, params: Params) -> int:
        repeats, seeds = len(params.protocol.all_repeats), len(params.protocol.training_seeds)
        candidates = 2 * self.candidates.prompts * self.candidates.each * seeds
        cells = len(self.starts) * (len(self.names) + 2) * self.pictures + len(self.flow.cells) * self.flow.pictures
        return candidates + repeats * cells

    def work(self, params: Params, given: Given, stage: str, *named: str) -> Work | None:
        flow, settings = self.flow, self.flow.optimisation
        drawn = Sampled(self.candidates.prompts * self.candidates.each, self.steps, self.guidance > 1)
        match stage:
            case "rewards":
                return Work(measured=given.training(given.all_works))
            case "convert":
                learnt = Trained("denoiser", flow.conversion, settings.batch, self.rank, everywhere=True)
                return Work(trained=() if params.base.source == "shipped" else (learnt,))
            case "untuned":
                kept = drawn._replace(pictures=2 * drawn.pictures, states=1 + len(self.levels))
                return Work(sampled=(self._painted(params, 2), kept), measured=kept.pictures)
            case "variant":
                return self._of_variant(params, named[0], drawn)
            case "invert":
                # forth, and back and forth, with as many iterations a step as are allowed: fewer converge
                calls = sum(2 * k * (1 + flow.iterations) + 2 * k for k in flow.steps)
                return Work(denoised=calls * min(flow.inverted, given.training(given.all_works)), exact=True)
            case "correct":
                learnt = Trained("corrector", settings.steps, settings.batch, width=flow.width)
                control = Trained("denoiser", settings.steps, settings.batch, self.rank, everywhere=True)
                return Work(trained=(*(learnt for _ in flow.steps), control), exact=True)
            case "flow":
                plain = [*{*flow.steps, *(2 * k for k in flow.steps)}, *flow.steps, *flow.steps]
                each = params.protocol.repeats * flow.pictures
                return Work(sampled=tuple(Sampled(each, steps, guided=False) for steps in plain), exact=True)
            case "measure":
                return self._inspected(params)
        return None

    def _painted(self, params: Params, solvers: int = 1) -> Sampled:
        """What a model paints of held-out prompts, from one seed."""
        pictures = solvers * len(self.starts) * params.protocol.repeats * self.pictures
        return Sampled(pictures, self.steps, self.guidance > 1)

    def _of_variant(self, params: Params, name: str, drawn: Sampled) -> Work:
        """A variant's training and pictures; it samples candidates of later rounds and of a policy."""
        settings, training = self.optimisation, self.trainings[name]
        samples_again = training.method == "policy" or before(name, self) is not None
        policy = training.method == "policy" and self.guidance > 1
        batch = settings.batch * (2 if policy else 1)  # with guidance, a step's probability takes both calls
        learnt = Trained("denoiser", settings.steps, batch, self.rank, everywhere=True)
        sampled = (self._painted(params), *([drawn._replace(states=0)] if samples_again else []))
        return Work(sampled=sampled, trained=(learnt,), measured=drawn.pictures if samples_again else 0)

    def _inspected(self, params: Params) -> Work:
        """Continued states, divergence of paths, errors of held-out works, and all pictures' measures."""
        seen, guided = self.inspected, self.guidance > 1
        begun = [0, *map(self.number_of, self.levels)]
        continued = tuple(Sampled(seen.states * seen.each, self.steps - number, guided, 0) for number in begun)
        paths = seen.states * len(self.names) * self.steps * 2 * (2 if guided else 1)
        errors = seen.pictures * seen.times * (1 + len(self.names))
        works = Work(sampled=continued, denoised=paths + errors, encoded=seen.pictures, prompts=seen.pictures)
        return works._replace(measured=self.samples(params))

    def measures(self, params: Params, measure: str, cell: str) -> bool:
        if measure != "law_p":
            return True
        return self.candidates.prompts * len(params.protocol.training_seeds) >= DRAWS

    @property
    def starts(self) -> list[str]:
        """First latents that pictures are painted from: of a flow white noise alone, which its training ends with."""
        return [WHITE] if self.model == "flow" else list(STARTS)

    @property
    def names(self) -> list[str]:
        """All trainings, later rounds last."""
        return [*self.variants, *self.second, *self.third]

    def number_of(self, level: float) -> int:
        """N_I: how many steps are taken from noise down to a level's state."""
        return round(level * self.steps)

    def rule_of(self, name: str) -> Rule:
        """A training's rule; the first where it names none."""
        return self.rules[self.trainings[name].rule or next(iter(self.rules))]

    def optimisation_of(self, name: str) -> Optimisation:
        """A training's optimisation: equal steps and batches for all."""
        training = self.trainings[name]
        usual = self.policy.learning_rate if training.method == "policy" else self.optimisation.learning_rate
        return self.optimisation.model_copy(update={"learning_rate": training.learning_rate or usual})


def before(name: str, config: Config) -> str | None:
    """The training whose pictures are a variant's candidates; None: the base's are."""
    return {1: None, 2: FIRST, 3: SECOND}[config.trainings[name].round]


def corrected(cell: str) -> str:
    """A cell's pictures from noise with the leak of training pictures."""
    return f"{cell}-{CORRECTED}"
