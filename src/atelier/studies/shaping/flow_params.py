"""Parameters of inverse noise correction (Anil et al. 2025, section 5): the section ``flow`` of the study's."""

from typing import Annotated

from pydantic import Field, model_validator

from atelier.params import Optimisation, Pictures, Positive, Section

GUIDANCE = 1.0  # the same in both directions: without guidance


class Flow(Section):
    """A flow whose Euler sampler is inverted on training works, and what corrects the noise that it starts from."""

    conversion: Positive  # steps that make a flow of the base, where none came with it
    steps: Annotated[list[Annotated[int, Field(ge=1, le=500)]], Field(min_length=1)]  # of the main sampler, each a k
    shift: Annotated[float, Field(gt=0.0, le=10.0)]  # of the sampler's times; below 1: shorter steps near the picture
    inverted: Annotated[int, Field(ge=4, le=1_000_000)]  # training works that are inverted; fewer have no tests
    iterations: Annotated[int, Field(ge=2, le=100_000)]  # of the fixed point at a step, at most
    watched: Positive  # of these works, whose iterations are followed, to see how fast they converge
    width: Annotated[int, Field(ge=1, le=4096)]  # channels of the corrector
    corrector_steps: Annotated[int, Field(ge=1, le=1000)]  # each calls the corrector twice
    optimisation: Optimisation  # of correctors, of the control and of a conversion
    pictures: Pictures  # per repeat and cell

    @model_validator(mode="after")
    def _each_once(self) -> "Flow":
        if len(set(self.steps)) != len(self.steps):
            raise ValueError("steps: a number is listed twice")
        return self

    @property
    def cells(self) -> list[str]:
        """Names of all cells: k and 2k steps without correction, k with it, and k of the control."""
        plain = sorted({*self.steps, *(2 * k for k in self.steps)})
        return [*map(uncorrected, plain), *map(with_corrector, self.steps), *map(longer, self.steps)]


def uncorrected(steps: int) -> str:
    """The flow base in this many steps."""
    return f"flow-{steps}"


def with_corrector(steps: int) -> str:
    """The same from corrected noise."""
    return f"flow-{steps}-inc"


def longer(steps: int) -> str:
    """The control: the flow base trained as long as a corrector, from white noise."""
    return f"flow-{steps}-longer"
