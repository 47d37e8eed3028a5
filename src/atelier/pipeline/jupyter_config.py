"""Settings of ``make lab``: ``jupyter lab --config=src/atelier/pipeline/jupyter_config.py notebooks/``."""

from atelier import machine, params
from atelier.pipeline.lab import pre_save
from atelier.workspace import Workspace

machine.settle_children(params.load(Workspace().params_file).machine.threads)
c = get_config()  # type: ignore[name-defined]  # noqa: F821  defined by Jupyter
c.FileContentsManager.pre_save_hook = pre_save
# work offline: no news and no update checks
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
