"""The files and folders that the world's pipeline reads and writes."""

from pathlib import Path

from atelier.workspace import Workspace


class WorldWorkspace(Workspace):
    """The folder that ``world/dvc.yaml`` runs in; studies read its base and evaluator once they are shipped."""

    @property
    def trunk(self) -> Path:
        return self.build / "trunk"

    @property
    def autoencoder(self) -> Path:
        return self.build / "autoencoder"

    @property
    def textured(self) -> Path:
        """The autoencoder with a decoder that paints texture."""
        return self.build / "decoder"

    @property
    def conversions(self) -> Path:
        """The base's adapters to other kinds of prediction."""
        return self.build / "conversions"

    @property
    def defects(self) -> Path:
        """The judges of planted defects."""
        return self.build / "defects"

    @property
    def shipped(self) -> Path:
        """The future ``data/``."""
        return self.build / "data"

    @property
    def report(self) -> Path:
        return self.build / "report"
