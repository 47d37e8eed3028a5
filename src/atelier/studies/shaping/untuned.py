"""Stage ``untuned``: what the base paints, from one training seed: held-out works' prompts, and candidates."""

from atelier.files import check_seal
from atelier.params import Params
from atelier.studies.shaping import candidates, rewards, sample
from atelier.studies.shaping.params import UNTUNED
from atelier.workspace import Workspace


def main(params: Params, workspace: Workspace, training_seed: str) -> None:
    """Write ``build/samples/shaping/untuned/SEED`` and, which takes longest, ``build/shaping/candidates/SEED``."""
    seed = params.protocol.training_seed(training_seed)
    check_seal(rewards.folder(workspace))  # before hours of pictures, not after
    sample.write(params, workspace, UNTUNED, seed)
    candidates.write(params, workspace, seed)
