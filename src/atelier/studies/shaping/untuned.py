"""Stage ``untuned``: what the base paints, from one training seed: held-out works' prompts, and candidates."""

from atelier.params import Params
from atelier.studies.shaping import candidates, sample
from atelier.studies.shaping.params import UNTUNED
from atelier.workspace import Workspace


def main(params: Params, workspace: Workspace, training_seed: str) -> None:
    """Write ``build/samples/shaping/untuned/SEED`` and, which takes longest, ``build/shaping/candidates/SEED``."""
    seed = params.protocol.training_seed(training_seed)
    sample.write(params, workspace, UNTUNED, seed)
    candidates.write(params, workspace, seed)
