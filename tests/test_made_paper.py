"""The profile ``paper`` shrunk for a made folder: what is changed of it, and that its files are those it names.

The run itself is ``make dry``: it takes longer than a test may.
"""

from pathlib import Path

import pytest

import made_paper
from atelier import params, preflight
from atelier.models import base, clip, dinov2, inception
from atelier.params import Params
from atelier.workspace import Workspace

PAPER = Path(__file__).parent.parent / "profiles/paper.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "paper"
    made_paper.make(folder)
    return folder


def test_every_key_that_is_changed_is_the_profiles_and_the_rest_is_kept() -> None:
    paper = params.read(PAPER)
    shrunk = made_paper.shrunk(paper)
    assert isinstance(params.check(shrunk, "shrunk"), Params)
    for place, names in made_paper.KEPT.items():
        study, table = place.split(".")
        assert shrunk[study][table] == {name: paper[study][table][name] for name in names}
    assert shrunk["signal_leak"]["styles"] == paper["signal_leak"]["styles"]
    assert paper == params.read(PAPER)
    with pytest.raises(KeyError, match="steps_of"):
        made_paper.changed(paper, {"sampling.steps_of": 2})


def test_every_training_is_short() -> None:
    def optimisations(section: dict[str, object]) -> list[dict[str, object]]:
        inner = [each for value in section.values() if isinstance(value, dict) for each in optimisations(value)]
        return inner + ([section] if "checkpoint_every" in section else [])

    listed = optimisations(made_paper.shrunk(params.read(PAPER)))
    assert len(listed) >= 9
    assert all(each.items() >= made_paper.SHORT.items() for each in listed)


def test_the_folder_lacks_nothing_that_its_profile_names(made: Path) -> None:
    config = params.load(made / "params.yaml")
    assert preflight.faults(config, Workspace(made)) == []
    pipeline = base.load(made / "sd")
    assert pipeline.tokenizer.model_max_length == pipeline.text_encoder.config.max_position_embeddings == 77
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"
    for load, name in ((inception.load, "inception.safetensors"), (clip.load, "clip"), (dinov2.load, "dinov2")):
        assert not load(made / "weights" / name).training


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ValueError, match="expected a new folder"):
        made_paper.make(tmp_path)
