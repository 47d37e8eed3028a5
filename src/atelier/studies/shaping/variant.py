"""Stage ``variant``: one adapter, trained from one seed, and what it paints of held-out works' prompts."""

from atelier.params import Params
from atelier.studies.shaping import sample, train
from atelier.workspace import Workspace


def main(params: Params, workspace: Workspace, variant: str, training_seed: str) -> None:
    """Write ``build/adapters/shaping/VARIANT/SEED`` and ``build/samples/shaping/VARIANT/SEED``."""
    seed = params.protocol.training_seed(training_seed)
    train.train(params, workspace, variant, seed)
    sample.write(params, workspace, variant, seed)
