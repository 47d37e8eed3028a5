"""What each stage of a profile computes: studies say it of theirs (`StudySection.work`), this of the shared ones."""

from collections.abc import Sequence
from typing import NamedTuple

from atelier.params import Given, Params, Trained, Work
from atelier.planning.stages import SHARED, Stage

NOTHING = Work()


class Group(NamedTuple):
    """Stages of one kind; ``works``: of those that say what they compute, ``silent``: how many do not."""

    pipeline: str
    kind: str
    works: list[Work]
    silent: int
    params: frozenset[str]  # keys that its stages depend on

    @property
    def number(self) -> int:
        return len(self.works) + self.silent


def groups(params: Params, given: Given, stages: Sequence[Stage]) -> list[Group]:
    """All stages by pipeline and kind, in order."""
    by_kind: dict[tuple[str, str], list[tuple[Stage, Work | None]]] = {}
    for stage in stages:
        by_kind.setdefault((stage.pipeline, stage.kind), []).append((stage, of_stage(params, given, stage)))
    return [
        Group(
            *key,
            works=[work for _, work in listed if work is not None],
            silent=sum(work is None for _, work in listed),
            params=frozenset(name for stage, _ in listed for name in stage.params),
        )
        for key, listed in by_kind.items()
    ]


def of_stage(params: Params, given: Given, stage: Stage) -> Work | None:
    """What one stage computes; None: nothing says it."""
    if not stage.words or stage.words[0] in ("page", "check"):
        return NOTHING  # pages read what others computed
    if stage.pipeline == SHARED:
        return _shared(params, given, stage.words[0])
    for section in params.sections():
        if stage.words[0] == section.STUDY and len(stage.words) > 1:
            return section.work(params, given, *stage.words[1:])
    return None


def _shared(params: Params, given: Given, name: str) -> Work | None:
    train, test = given.training(given.all_works), given.held_out(given.all_works)
    match name:
        case "prepare":
            return Work(measured=given.all_works + given.photographs)
        case "judges":
            return NOTHING
        case "base":
            return _base(params, train) if params.base.source == "train" else NOTHING
        case "cache":
            return Work(encoded=train, cached=train, prompts=train * params.protocol.prompts.per_work)
        case "starts":
            return Work(encoded=train + given.training(given.photographs))
        case "reference":
            both = test + min(train, test)  # as they are, and as many training works
            return Work(encoded=both, decoded=both, measured=test + train + both)
    return None


def _base(params: Params, train: int) -> Work:
    recipe = params.base.train
    learnt = [
        Trained("autoencoder", recipe.autoencoder.steps, recipe.autoencoder.batch),
        Trained("denoiser", recipe.denoiser.steps, recipe.denoiser.batch),
    ]
    return Work(trained=tuple(learnt), encoded=recipe.photographs + recipe.works or train)
