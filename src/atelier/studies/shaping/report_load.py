"""Reading what the stages left for the page."""

from atelier.params import Params
from atelier.studies.shaping.report_results import Results
from atelier.workspace import Workspace

PRINTED = ("task", "dataset", "measure", "value", "rank", "source")


def load(params: Params, workspace: Workspace) -> Results:
    raise NotImplementedError
