"""From what a stage computes to operations, memory and disk."""

from collections.abc import Iterator
from typing import NamedTuple

from atelier.models.latents import BATCH
from atelier.params import Params, Sampled, Trained, Work
from atelier.planning.counting import Parts

FULL, HALF = 4, 2  # bytes of a number
ADAM = 2  # numbers that the optimiser keeps of each that learns, beside its gradient


class Operations(NamedTuple):
    """Floating-point operations by what they run as fast as: the denoiser's calls, its training, the decoder."""

    denoised: float = 0.0
    learnt: float = 0.0
    decoded: float = 0.0

    @property
    def all(self) -> float:
        return self.denoised + self.learnt + self.decoded

    def plus(self, other: "Operations") -> "Operations":
        return Operations(*(a + b for a, b in zip(self, other, strict=True)))


class Cost(NamedTuple):
    """Of one stage: operations, bytes on the device that computes, and bytes that are written."""

    operations: Operations
    memory: float
    disk: float


def cost(params: Params, parts: Parts, work: Work) -> Cost:
    """What one stage costs; memory is that of its most demanding part."""
    operations, memory, disk = Operations(), [0.0], 0.0
    for part in _parts(params, parts, work):
        operations, disk = operations.plus(part.operations), disk + part.disk
        memory.append(part.memory)
    return Cost(operations, max(memory), disk)


def _parts(params: Params, parts: Parts, work: Work) -> Iterator[Cost]:
    yield from (_sampled(params, parts, each) for each in work.sampled if each.pictures)
    yield from (_trained(parts, each) for each in work.trained)
    weights = FULL * sum(parts.weights.values())
    latent = FULL * parts.channels * parts.side**2
    if work.denoised:
        count = parts.denoised()
        memory = weights + count.memory(params.sampling.batch)
        yield Cost(Operations(denoised=work.denoised * count.flops), memory, 0.0)
    if work.prompts:
        count, kept = parts.prompted(), FULL * parts.tokens * parts.words if work.cached else 0
        memory = weights + count.memory(BATCH)
        yield Cost(Operations(denoised=work.prompts * count.flops), memory, work.prompts * kept)
    if work.encoded:
        count = parts.encoded()
        memory = weights + count.memory(BATCH)
        yield Cost(Operations(decoded=work.encoded * count.flops), memory, work.cached * 2 * latent)
    if work.decoded:
        count = parts.decoded()
        memory = weights + count.memory(params.sampling.batch)
        yield Cost(Operations(decoded=work.decoded * count.flops), memory, 0.0)


def _sampled(params: Params, parts: Parts, each: Sampled) -> Cost:
    """Pictures, written without loss, which is taken as no smaller than raw, and their latents."""
    step, decoded, batch = parts.denoised(), parts.decoded(), params.sampling.batch
    calls = 1 + each.guided
    flops = each.pictures * calls * (each.steps * step.flops + parts.prompted().flops)
    weights = FULL * sum(parts.weights.values()) + (HALF * parts.weights["unet"] if parts.half else 0)
    memory = weights + max(step.memory(calls * batch), decoded.memory(batch))
    latent, picture = FULL * parts.channels * parts.side**2, 3 * parts.size**2
    disk = each.pictures * (picture + each.states * latent) if each.states else 0.0
    return Cost(Operations(denoised=flops, decoded=each.pictures * decoded.flops), memory, disk)


def _trained(parts: Parts, each: Trained) -> Cost:
    """A training; what it writes is what it learnt, once for each average."""
    samples = each.steps * each.batch
    match each.part:
        case "decoder" | "autoencoder":
            whole = each.part == "autoencoder"
            count, learning = parts.reconstructed() if whole else parts.retuned(each.side), parts.weights["vae"]
            flops = count.flops * (4 / 3 if each.checkpointing else 1)  # of three passes one is done again
            operations, weights = Operations(decoded=samples * flops), FULL * learning
        case "corrector":
            count, learning = parts.corrector(each.width)
            operations, weights = Operations(learnt=samples * count.flops), FULL * learning
        case _:
            count, learning = parts.learnt(each.rank, each.everywhere)
            operations = Operations(learnt=samples * (count.flops + each.unlearnt * parts.denoised().flops))
            weights = FULL * (parts.weights["unet"] + (learning if each.rank is not None else 0))
    memory = weights + count.memory(each.batch) + FULL * (1 + ADAM) * learning
    if each.decoded:
        through = parts.looked_through()
        flops = samples * each.decoded * (through.flops + parts.decoded().flops)
        operations = operations.plus(Operations(decoded=flops))
        memory += FULL * parts.weights["vae"] + through.memory(each.slices)
    return Cost(operations, memory, FULL * learning * each.keeps)
