"""Parameters: every fault is refused in one line that names file and key, and the nearest known name is offered."""

import re
import time
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from atelier import params
from atelier.studies import STUDIES

ROOT = Path(__file__).parent.parent
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
TEXT = (ROOT / "profiles" / "embedded.yaml").read_text()
CONTENT: dict[str, Any] = YAML(typ="safe").load(TEXT)
MISSING = object()


def content() -> dict[str, Any]:
    return deepcopy(CONTENT)


def edited(where: str, value: object) -> dict[str, Any]:
    """The embedded profile with one leaf set, or taken out."""
    tree = node = content()
    *parents, leaf = where.split("/")
    for part in parents:
        node = node[part]
    if value is MISSING:
        del node[leaf]
    else:
        node[leaf] = value
    return tree


def refusal(tree: object) -> str:
    with pytest.raises(ValueError, match=r"^p\.yaml: ") as caught:
        params.check(tree, "p.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("where", "near"),
    [
        ("sede", "seed"),
        ("data/splitt", "split"),
        ("base/train/photograph", "photographs"),
        ("base/train/denoiser/learning-rate", "learning_rate"),
        ("art_finetuning/optimisation/bach", "batch"),
        ("art_finetuning/adapters/rank4-mixed/rnk", "rank"),
        ("latent_perceptual/slice", "slices"),
        ("latent_perceptual/trainings/lpl/dept", "depth"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_offered(where: str, near: str) -> None:
    assert refusal(edited(where, 1)) == (
        f"p.yaml: {where.replace('/', '.')}: unknown parameter; did you mean '{near}'?"
    )


@pytest.mark.parametrize("name", ["rank", "empty_prompts"])
def test_an_adapter_may_be_called_as_one_of_its_own_keys(name: str) -> None:
    tree = edited(f"art_finetuning/adapters/{name}", {"rank": 4, "empty_prompts": 0.5})
    tree["art_finetuning"]["variants"].append(name)
    params.check(tree, "p.yaml")
    tree["art_finetuning"]["adapters"][name]["rnk"] = 4
    assert "did you mean 'rank'?" in refusal(tree)


def test_a_key_like_no_other_is_refused_without_a_guess() -> None:
    assert refusal(edited("zzzz", 1)) == "p.yaml: zzzz: unknown parameter"


@pytest.mark.parametrize(
    ("where", "value"),
    [
        # mistyped: YAML's 4 is not '4', 'yes' is not true, true is not 1
        ("seed", "2025"),
        ("seed", 2025.0),
        ("seed", True),
        ("data/annotations", "yes"),
        ("data/annotations", 1),
        ("data/folder", 3),
        ("machine/threads", "2"),
        ("base/train/empty_prompts", "0.1"),
        ("base/train/denoiser/learning_rate", "1e-3"),
        ("protocol/prompts/level", True),
        ("protocol/guidance", 4.0),
        ("art_finetuning/variants", "rank4-mixed"),
        ("art_finetuning/adapters", []),
        ("sampling", 16),
        # out of range
        ("seed", -1),
        ("machine/threads", 0),
        ("machine/device", "gpu"),
        ("machine/precision", "fp16"),
        ("data/size", 60),
        ("data/size", 8),
        ("data/size", 2048),
        ("data/split", "80/20"),
        ("data/bad_share", 1.5),
        ("data/bad_share", -0.1),
        ("base/source", "internet"),
        ("base/train/preset", "huge"),
        ("base/train/empty_prompts", 1.01),
        ("base/train/prompts_per_picture", 0),
        ("base/train/autoencoder/steps", 0),
        ("base/train/autoencoder/batch", 0),
        ("base/train/autoencoder/learning_rate", 0.0),
        ("base/train/autoencoder/learning_rate", 2.0),
        ("base/train/autoencoder/decay", "linear"),
        ("base/train/autoencoder/warmup", -1),
        ("base/train/autoencoder/beta2", 1.0),
        ("base/train/autoencoder/weight_decay", -0.1),
        ("base/train/autoencoder/clip", 0.0),
        ("base/train/autoencoder/ema", -1),
        ("base/train/autoencoder/checkpoint_every", 0),
        ("sampling/steps", 0),
        ("sampling/steps", 1001),
        ("sampling/batch", 0),
        ("base_model/pictures", 1),
        ("base_model/guidance", 4.0),
        ("base_model/guidance", []),
        ("base_model/measured_at", "4.0"),
        ("protocol/prompts/level", 3),
        ("protocol/repeats", 0),
        ("protocol/pictures", 1),
        ("protocol/prompts/per_work", 0),
        ("protocol/training_seeds", []),
        ("perceptual/network", "resnet"),
        ("protocol/guidance", []),
        ("art_finetuning/variants", []),
        ("art_finetuning/adapters/rank4-mixed/rank", 0),
        ("latent_perceptual/trainings/lpl/loss", "lpips"),
        ("latent_perceptual/trainings/lpl/kind", "epsilon"),
        ("latent_perceptual/trainings/lpl/norm", "shared"),
        ("latent_perceptual/trainings/lpl/mask", True),
        ("latent_perceptual/trainings/lpl/tau", 0.0),
        ("latent_perceptual/trainings/lpl/share", 1.0),
        ("latent_perceptual/trainings/lpl/share", 0.0),
        ("latent_perceptual/trainings/lpl/before", -1),
        ("latent_perceptual/trainings/lpl/longer", 0.5),
        ("latent_perceptual/slices", 0),
        ("latent_perceptual/crop", -1),
        ("profile", "mine"),
        # neither a number nor out of range in the plain sense
        ("base/train/autoencoder/learning_rate", float("nan")),
        ("base_model/measured_at", float("inf")),
        ("base/train/denoiser/weight_decay", float("inf")),
        # null
        ("seed", None),
        ("data", None),
        ("data/folder", None),
        ("art_finetuning/optimisation/steps", None),
    ],
)
def test_a_wrong_value_is_refused_by_name_with_what_was_got(where: str, value: object) -> None:
    said = refusal(edited(where, value))
    assert len(said.splitlines()) == 1
    assert said.startswith(f"p.yaml: {where.replace('/', '.')}: ")
    assert said.endswith(f", got {value!r}")


@pytest.mark.parametrize("name", ["Rank4", "../rank4", "", "rank 4", "-rank"])
def test_a_variant_that_is_no_plain_name_is_refused(name: str) -> None:
    """Names become folders."""
    tree = content()
    tree["art_finetuning"]["adapters"][name] = {"rank": 4, "empty_prompts": 0.0}
    tree["art_finetuning"]["variants"].append(name)
    assert "should match pattern" in refusal(tree)


def leaves(tree: dict[str, Any], prefix: str = "") -> list[str]:
    below = [leaves(value, f"{prefix}{key}/") for key, value in tree.items() if isinstance(value, dict)]
    return [f"{prefix}{key}" for key in tree] + [leaf for part in below for leaf in part]


NAMED_BY_USERS = (
    r"(adapters|decoders)/[^/]+(/learning_rate)?$|signal_leak/(models|styles)/"
    r"|latent_perceptual/trainings/[^/]+(/(?!loss$)[^/]+)?$"
    r"|pixel_space/trainings/[^/]+(/(?!(method|terms)$)[^/]+)?$|shaping/(trainings|rules)/"
)


@pytest.mark.parametrize("where", [leaf for leaf in leaves(content()) if not re.search(NAMED_BY_USERS, leaf)])
def test_every_missing_key_is_refused_by_name(where: str) -> None:
    assert refusal(edited(where, MISSING)) == f"p.yaml: {where.replace('/', '.')}: missing"


def test_no_adapter_is_called_as_the_untuned_model_is() -> None:
    """Its samples would lie where the base's lie."""
    tree = edited("art_finetuning/adapters/untuned", {"rank": 4, "empty_prompts": 0.5})
    tree["art_finetuning"]["variants"].append("untuned")
    assert refusal(tree).startswith("p.yaml: art_finetuning.adapters: 'untuned' is")


def test_variants_must_name_each_adapter_once() -> None:
    for change in (["rank4-mixed"], ["rank4-mixed", "rank4-mixed"], [*content()["art_finetuning"]["variants"]] * 2):
        said = refusal(edited("art_finetuning/variants", change))
        assert said.startswith("p.yaml: art_finetuning.variants: must name each of the adapters once")
    assert "a scale is listed twice" in refusal(edited("protocol/guidance", [4.0, 4.0]))


def test_what_is_diagnosed_is_a_variant() -> None:
    for wrong in (["rank9"], ["rank8-mixed", "rank8-mixed"]):
        said = refusal(edited("art_finetuning/diagnosed", wrong))
        assert "art_finetuning.diagnosed: expected a subset of rank4-unconditional" in said


def test_each_training_seed_has_repeats_of_its_own_whatever_other_seeds_there_are() -> None:
    assert "a seed is listed twice" in refusal(edited("protocol/training_seeds", [1, 1]))
    tree = edited("protocol/repeats", 1)
    lacking = "repeats: one training seed needs two or more, because intervals are over them"
    assert refusal(tree) == f"p.yaml: protocol.{lacking}"
    several = ([5, 6], 2, [[10, 11], [12, 13]])
    for seeds, repeats, groups in (([5], 3, [[15], [16], [17]]), several, ([6, 5], 1, [[6], [5]])):
        tree["protocol"] |= {"training_seeds": seeds, "repeats": repeats}
        protocol = params.check(tree, "p.yaml").protocol
        assert protocol.groups == groups
        for group in groups:
            assert len({protocol.seed_of_repeat(repeat) for repeat in group}) == 1


def test_prompts_are_enriched_of_models_and_levels_that_are_there_to_enrich() -> None:
    for models in (["rank9"], ["rank4-mixed", "rank4-mixed"], ["untuned"]):
        assert "prompt_enrichment.models: expected a subset of" in refusal(edited("prompt_enrichment/models", models))
    for levels in ([0, 1], [0, 0]):
        assert "other levels than the protocol's" in refusal(edited("prompt_enrichment/levels", levels))


def ablated(names: list[str], seeds: list[int], training_seeds: list[int]) -> dict[str, Any]:
    """The smoke profile's parameters with ablations, all plain, from some of several training seeds."""
    tree = edited("protocol/training_seeds", training_seeds)
    study = tree["latent_perceptual"]
    study |= {"ablations": names, "ablation_seeds": seeds}
    study["trainings"] = {
        **{name: study["trainings"][name] for name in study["variants"]},
        **{name: {"loss": "perceptual" if name.startswith("lpl") else "plain", "steps": 1} for name in names},
    }
    return tree


def test_ablations_of_fewer_seeds_have_baselines_of_as_few() -> None:
    both = ["plain-short", "lpl-short"]
    params.check(ablated(both, [0, 4], [0, 3, 4]), "p.yaml")
    params.check(ablated(["plain-short"], [0, 4], [0, 3, 4]), "p.yaml")
    params.check(ablated(["plain-short", "lpl-shorter"], [0], [0]), "p.yaml")
    for names, seeds, said in (
        (
            ["plain-short", "lpl-shorter"],
            [0, 4],
            "ablations: of fewer seeds, they are compared with plain-short and lpl-short; name",
        ),
        (both, [4, 0], r"ablation_seeds: expected in the order of protocol.training_seeds, [0, 3, 4]"),
        (both, [0], "ablation_seeds: expected two or more, because intervals are over them"),
        (both, [], "ablation_seeds: expected two or more"),
        (both, [0, 7], "ablation_seeds: expected a subset of 0, 3, 4"),
    ):
        assert said in refusal(ablated(names, seeds, [0, 3, 4]))


def test_what_a_kind_begins_with_is_painted_for_a_variant_of_all_seeds() -> None:
    tree = ablated(["plain-short", "lpl-short"], [0, 4], [0, 3, 4])
    trainings = tree["latent_perceptual"]["trainings"]
    tree["latent_perceptual"]["trainings"] = dict(reversed(trainings.items()))
    section = params.check(tree, "p.yaml").section("latent_perceptual")
    assert [name for name in section.names if section.begins(name)] == ["plain"]


def test_variants_must_name_each_post_training_once() -> None:
    variants = content()["latent_perceptual"]["variants"]
    for wrong in (variants[:-1], [*variants, "other"], [*variants, variants[0]]):
        said = refusal(edited("latent_perceptual/variants", wrong))
        wanted = "must name each of the trainings, with ablations, once, differs in "
        assert said.startswith(f"p.yaml: latent_perceptual.variants: {wanted}")
        assert len(said.splitlines()) == 1
    assert refusal(edited("latent_perceptual/variants", variants[:-1])).endswith(f"['{variants[-1]}']")


@pytest.mark.parametrize("name", ["untuned", "again", "real", "returned"])
def test_no_post_training_is_called_as_what_it_is_measured_against(name: str) -> None:
    tree = edited(f"latent_perceptual/trainings/{name}", {"loss": "plain"})
    tree["latent_perceptual"]["variants"].append(name)
    assert refusal(tree) == f"p.yaml: latent_perceptual.trainings: '{name}' names something else in this study"


def test_what_is_followed_is_a_variant() -> None:
    for wrong in (["lpi"], ["lpl", "lpl"]):
        said = refusal(edited("latent_perceptual/followed", wrong))
        assert said.startswith("p.yaml: latent_perceptual.followed: expected a subset of plain, lpl, ")


@pytest.mark.parametrize(
    "change", [{"kind": "v_prediction"}, {"before": 3}, {"loss": "reweighted", "kind": "flow_prediction"}]
)
def test_a_loss_has_a_plain_counterpart(change: dict[str, Any]) -> None:
    """Of its kind and after as long a training; a longer one is none."""
    tree = edited("latent_perceptual/trainings/own", {"loss": "perceptual", **change})
    section = tree["latent_perceptual"]
    section["variants"].append("own")
    expected = (
        "p.yaml: latent_perceptual.trainings.own: nothing to compare it with, no plain one of its kind and before"
    )
    assert refusal(tree) == expected
    section["trainings"]["other"] = {**change, "loss": "plain", "longer": 2.0}
    section["variants"].append("other")
    assert refusal(tree) == expected
    section["trainings"]["other"]["longer"] = 1.0
    assert params.check(tree, "p.yaml").latent_perceptual.plain_of("own") == "other"
    assert params.check(tree, "p.yaml").latent_perceptual.plain_of("lpl") == "plain"


def test_a_crop_is_no_larger_than_the_latent() -> None:
    tree = edited("latent_perceptual/crop", 9)
    tree["data"]["size"] = 64
    assert refusal(tree).endswith("latent_perceptual.crop: 9 is more than a latent's side")
    tree["latent_perceptual"]["crop"] = 8
    params.check(tree, "p.yaml")


@pytest.mark.parametrize("value", [0, 6, "picture", None, 2.5])
def test_a_wrong_depth_is_refused_in_one_line(value: object) -> None:
    said = refusal(edited("latent_perceptual/trainings/lpl/depth", value))
    assert len(said.splitlines()) == 1
    assert said.startswith("p.yaml: latent_perceptual.trainings.lpl.depth: ")


def test_half_lives_differ() -> None:
    """Averages are kept under theirs."""
    assert "latent_perceptual.averages: " in refusal(edited("latent_perceptual/averages", [4, 4]))


def test_the_scale_of_measurements_is_one_of_the_sheets() -> None:
    said = refusal(edited("base_model/measured_at", 5.0))
    assert said == "p.yaml: base_model.measured_at: expected one of guidance's scales, got 5.0"
    assert "base_model.guidance: a scale is listed twice" in refusal(edited("base_model/guidance", [4.0, 4.0]))
    assert refusal(edited("base_model/guidance", [4.0, 0.5])).startswith("p.yaml: base_model.guidance.1: ")


@pytest.mark.parametrize(
    ("source", "location", "what"),
    [("hub", None, "location"), ("folder", None, "location"), ("folder", "", "location"), ("hub", "a/b", "revision")],
)
def test_a_base_from_elsewhere_needs_its_place(source: str, location: str | None, what: str) -> None:
    tree = edited("base/source", source)
    tree["base"]["location"] = location
    assert refusal(tree).startswith(f"p.yaml: base.{what}: ")


def test_each_fault_has_its_line() -> None:
    tree = edited("sede", 1)
    tree["data"]["size"] = 60
    del tree["sampling"]
    said = refusal(tree).splitlines()
    assert sorted(line.split(": ")[1] for line in said) == ["data.size", "sampling", "sede"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [1", "not YAML"),
        ("a: 1\na: 2\n", "not YAML"),
        (TEXT.replace("seed: 2026", "seed: 1\nseed: 2"), "duplicate key"),
        (TEXT.replace("seed: 2026", "seed: !!python/object/apply:os.getcwd []"), "not YAML"),
        ("\x00", "not YAML"),
        ("", "expected a mapping"),
        ("null", "expected a mapping"),
        ("- 1", "expected a mapping"),
        ("4", "expected a mapping"),
    ],
)
def test_a_file_that_holds_no_parameters_is_refused_in_one_line(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=what) as caught:
        params.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_bytes_a_folder_and_nothing_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"seed: \xff\xfe")
    for name in ("bytes.yaml", ".", "absent.yaml"):
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))) as caught:
            params.load(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1


def test_numbers_are_read_as_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(TEXT.replace("learning_rate: 0.002", "learning_rate: 1e-4"))
    assert params.load(path).art_finetuning.optimisation.learning_rate == 1e-4


def test_every_study_has_a_section_and_reads_it_by_its_own_type() -> None:
    """A study's section lies with the study; the base type knows none of them."""
    config = params.check(content(), "p.yaml")
    sections = {section.STUDY: section for section in config.sections()}
    assert sorted(sections) == sorted(STUDIES)
    for study, section in sections.items():
        assert type(section) is import_module(f"atelier.studies.{study}.params").Config
        assert type(section).of(config) is section
    assert not set(STUDIES) & set(params.Params.model_fields)
    assert refusal({**content(), "unheard_of": {}}) == "p.yaml: unheard_of: unknown parameter"


@pytest.mark.parametrize(
    ("where", "value", "expected"),
    [
        ("vae_decoder/models", ["rank9"], "vae_decoder.models: expected a subset of untuned, rank4-unconditional, "),
        ("vae_decoder/guidance", [5.0], "vae_decoder.guidance: expected a subset of 4.0, 16.0, each once"),
        ("vae_decoder/crop", 72, "vae_decoder.crop: 72 px is more than the pictures' 64"),
        ("vae_decoder/models", ["untuned"] * 2, "vae_decoder.models: expected a subset of untuned, "),
    ],
)
def test_a_section_that_does_not_fit_the_others_is_refused_by_its_key(where: str, value: object, expected: str) -> None:
    assert refusal(edited(where, value)).startswith(f"p.yaml: {expected}")


def test_sections_are_replaced_and_validated_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(TEXT)
    protocol = {**content()["protocol"], "repeats": 6}
    assert params.with_sections({"protocol": protocol}, path).protocol.repeats == 6
    with pytest.raises(ValueError, match=re.escape(f"{path}: protocol.repeats: ")):
        params.with_sections({"protocol": {**protocol, "repeats": 1}}, path)


def test_parameters_cannot_be_changed_after_reading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        params.check(content(), "p.yaml").seed = 3  # type: ignore[misc]


def test_command_line_says_yes_or_names_the_fault(tmp_path: Path, run_python) -> None:
    (tmp_path / "params.yaml").write_text(TEXT)
    (tmp_path / "data" / "wikiart").mkdir(parents=True)
    for name in (
        "artemis_dataset_release_v0.csv",
        "base/model_index.json",
        "base/unet/config.json",
        "base/unet/diffusion_pytorch_model.safetensors",
        "base/vae/config.json",
        "base/vae/diffusion_pytorch_model.safetensors",
        "base/text_encoder/config.json",
        "base/text_encoder/model.safetensors",
        "base/tokenizer/tokenizer.json",
        "base/scheduler/scheduler_config.json",
        "trunk/trunk.safetensors",
        "trunk/heads.safetensors",
        "defects/choosing/judge.safetensors",
        "defects/measuring/judge.safetensors",
    ):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "data" / name).write_text("-")
    (tmp_path / "data" / "artemis_dataset_release_v0.csv").write_text(
        "art_style,painting,emotion,utterance,repetition\n"
    )
    for style in content()["signal_leak"]["styles"].values():
        (tmp_path / "data" / "wikiart" / style).mkdir()
        for number in range(8):
            (tmp_path / "data" / "wikiart" / style / f"a_{number}.jpg").touch()
    assert run_python("-m", "atelier", "check", "build/parameters.txt", cwd=tmp_path).returncode == 0
    message = (tmp_path / "build" / "parameters.txt").read_text()
    assert message == "params.yaml: every parameter is known, typed and in range\n"
    (tmp_path / "params.yaml").write_text(TEXT.replace("\nseed:", "\nsede:"))
    refused = run_python("-m", "atelier", "check", "build/refused.txt", cwd=tmp_path)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 2)
    assert "did you mean 'seed'?" in refused.stderr
    assert not (tmp_path / "build" / "refused.txt").exists()


def test_a_mistyped_parameter_stops_a_heavy_stage_before_anything_heavy_is_imported(tmp_path: Path, run_python) -> None:
    (tmp_path / "params.yaml").write_text(TEXT.replace("\nseed:", "\nsede:"))
    code = (
        "import sys; from atelier.cli import main\n"
        "assert main(['base']) == 1 and main(['base_model', 'sample', 'untuned']) == 1\n"
        "print(sorted({'torch', 'pandas', 'diffusers', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    said = run_python("-c", code, cwd=tmp_path)
    assert said.stdout == "[]\n", said.stderr


def kind(value: object) -> str:
    if isinstance(value, bool):
        return "truth value"
    return "number" if isinstance(value, int | float) else type(value).__name__


NAMED_STYLES = ("signal_leak/models/", "signal_leak/styles/")


def shape(tree: dict[str, Any]) -> dict[str, str]:
    """Each leaf's kind, by its place; names of models are the user's own, as what a model of signal_leak is given."""
    found: dict[str, str] = {}
    for place in leaves(tree):
        value: Any = tree
        for part in place.split("/"):
            value = value[part]
        if not re.match(
            r"(signal_leak/models|(latent_perceptual|pixel_space|shaping)/trainings|shaping/rules)/[^/]+/", place
        ):
            trained = r"(?:latent_perceptual|pixel_space|shaping)/trainings"
            of_users = rf"(adapters|decoders|signal_leak/(?:models|styles)|{trained}|shaping/rules)"
            named = re.sub(of_users + r"/[^/]+", r"\1/*", place)
            found[named] = kind(value)
    null = r"base/(location|revision)|field_judges/\w+|latent_perceptual/rank|pixel_space/style"
    return {place: "may be null" if re.fullmatch(null, place) else k for place, k in found.items()}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_passes_and_has_the_same_keys_and_types(path: Path) -> None:
    assert params.load(path).profile == path.stem
    expected = shape(content())
    if path.stem == "own":  # tunes no model to a style, and lets the data say which styles there are
        expected = {place: kind for place, kind in expected.items() if not place.startswith(NAMED_STYLES)}
    shown = shape(YAML(typ="safe").load(path))
    if path.stem.startswith("paper"):  # trains its judges of defects, where the others name a folder that has them
        shown, expected = (
            {place: kind for place, kind in each.items() if not place.startswith("pixel_space/judge")}
            for each in (shown, expected)
        )
    assert shown == expected


def test_the_active_parameters_are_the_embedded_profile_byte_for_byte() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "profiles" / "embedded.yaml").read_bytes()


# ------------------------------------------------------------------------------------------------ names that collide


@pytest.mark.parametrize(
    ("where", "value", "at"),
    [
        ("protocol/guidance", [4.0, 4.0000001], ".1"),
        ("protocol/guidance", [7.5, 7.50000001], ".1"),
        ("protocol/guidance", [4, 4.0], ""),
        ("base_model/guidance", [1.0, 4.0, 3.9999999], ".2"),
        ("vae_decoder/guidance", [4.0000001], ".0"),
        ("signal_leak/guidance", 1.23456789, ""),
        ("latent_perceptual/guidance", 4.0000001, ""),
        ("latent_perceptual/averages", [2.0, 2.0000001], ".1"),
        ("signal_leak/values", [0.1, 0.10000001], ".1"),
        ("signal_leak/values", [0.0, -0.0], ""),
        ("signal_leak/targets", [7, 7], ""),
    ],
)
def test_numbers_that_would_name_one_folder_are_refused(where: str, value: object, at: str) -> None:
    line = refusal(edited(where, value))
    assert line.startswith(f"p.yaml: {where.replace('/', '.')}{at}: ")
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("where", "name", "settings"),
    [
        ("latent_perceptual/trainings", "untuned-plain", {"loss": "plain"}),
        ("latent_perceptual/trainings", "lpl-average-4", {"loss": "plain"}),
        ("latent_perceptual/trainings", "lpl-steps-5", {"loss": "plain"}),
        ("art_finetuning/adapters", "untuned-decoder", {"rank": 4, "empty_prompts": 0.0}),
        ("signal_leak/models", "low-3", {"zero_snr": True}),
        ("signal_leak/models", "white-unguided", {"zero_snr": True}),
        ("signal_leak/models", "tuned-watercolor", {"zero_snr": True}),
    ],
)
def test_a_variant_is_not_called_as_what_is_made_of_others(where: str, name: str, settings: dict[str, Any]) -> None:
    tree = edited(f"{where}/{name}", settings)
    section = tree[where.split("/")[0]]
    section["trained" if "trained" in section else "variants"].append(name)
    if where.startswith("latent"):
        section |= {"followed": ["lpl"], "averages": [4], "steps": [5]}
    assert f"{where.replace('/', '.')}: '{name}' " in refusal(tree)


@pytest.mark.parametrize(("name", "settings"), [("flow", {"zero_snr": True}), ("straight", {"flow": True})])
def test_a_flow_and_nothing_else_is_called_one(name: str, settings: dict[str, Any]) -> None:
    tree = edited(f"signal_leak/models/{name}", settings)
    tree["signal_leak"]["trained"].append(name)
    assert "signal_leak.models: a flow is called 'flow', and nothing else is" in refusal(tree)


def test_styles_that_some_disks_take_for_one_are_refused() -> None:
    said = refusal(edited("signal_leak/styles", {"watercolor": "Watercolor", "other": "waterColor"}))
    assert said.startswith("p.yaml: signal_leak.styles: ")


# ------------------------------------------------------------------------------------------------ hostile values


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "a\x1b[31m", "a\u202eb", "a\x7f"])
@pytest.mark.parametrize(
    "where", ["data/folder", "base/location", "perceptual/weights", "signal_leak/dark", "signal_leak/styles/watercolor"]
)
def test_control_characters_are_refused_and_not_repeated(where: str, text: str) -> None:
    said = refusal(edited(where, text))
    assert f"p.yaml: {where.replace('/', '.')}: control characters" in said
    assert all(line.isprintable() for line in said.splitlines())


@pytest.mark.parametrize("style", ["../out", "a/b", "..", ".", "a\\b", "a@1", "a+b", "", "s" * 101])
@pytest.mark.parametrize("where", ["base/train/unseen_styles", "signal_leak/styles/other"])
def test_a_style_is_a_plain_name(where: str, style: str) -> None:
    said = refusal(edited(where, [style] if "unseen" in where else style))
    assert said.startswith(f"p.yaml: {where.replace('/', '.')}")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("folder", [".", "", "./", "build", "build/x", "./build", "x/../build", ".scratch", "results"])
def test_the_data_folder_is_not_one_that_the_pipeline_writes(folder: str) -> None:
    assert refusal(edited("data/folder", folder)).startswith("p.yaml: data.folder: ")


@pytest.mark.parametrize("location", ["../x", "a/b/c", "/etc", "a b", "https://x.org/a"])
def test_a_hubs_id_is_no_path(location: str) -> None:
    tree = edited("base/source", "hub")
    tree["base"] |= {"location": location, "revision": "abc"}
    assert refusal(tree).startswith("p.yaml: base.location: ")


def numbers(tree: dict[str, Any]) -> list[str]:
    """The places of all numbers, those in lists included."""
    found = []
    for place in leaves(tree):
        value: Any = tree
        for part in place.split("/"):
            value = value[part]
        listed = value if isinstance(value, list) else [value]
        if any(isinstance(each, int | float) and not isinstance(each, bool) for each in listed):
            found.append(place)
    return found


@pytest.mark.parametrize("value", [10**13, 10**400, -(10**13), float("inf"), float("nan"), True, "4", 1e300, [[4]]])
@pytest.mark.parametrize("where", numbers(content()))
def test_every_number_has_bounds(where: str, value: object) -> None:
    """Whatever would fill the memory hours later is refused now."""
    before: Any = content()
    for part in where.split("/"):
        before = before[part]
    if "seed" in where and value == 10**13:
        pytest.skip("a seed may be large")
    said = refusal(edited(where, [value] if isinstance(before, list) else value))
    assert said.startswith(f"p.yaml: {where.replace('/', '.')}")
    assert all(len(line) < 300 for line in said.splitlines())


def test_batches_that_fill_the_memory_are_refused_together() -> None:
    tree = edited("data/size", 1024)
    for section in ("sampling", ("art_finetuning", "optimisation"), ("base", "train", "denoiser")):
        node = tree
        for part in (section,) if isinstance(section, str) else section:
            node = node[part]
        node["batch"] = 60_000
    lines = refusal(tree).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "base.train.denoiser.batch",
        "sampling.batch",
        "art_finetuning.optimisation.batch",
    ]


def test_faults_of_several_sections_are_listed_at_once_and_at_most_twenty() -> None:
    tree = edited("vae_decoder/crop", 72)
    tree["latent_perceptual"]["crop"] = 9
    assert sorted(line.split(": ")[1] for line in refusal(tree).splitlines()) == [
        "latent_perceptual.crop",
        "vae_decoder.crop",
    ]
    lines = refusal(content() | {f"unknown{number}": 1 for number in range(50)}).splitlines()
    assert len(lines) == 20
    assert lines[-1] == "p.yaml: and 31 other faults"
    assert lines[-2].startswith("p.yaml: unknown")


def test_what_a_line_repeats_is_cut() -> None:
    for tree in (
        edited("data/folder", "d" * 100_000),
        edited("k" * 100_000, 1),
        edited("protocol/repeats", [1] * 10_000),
        edited("art_finetuning/variants", ["v" * 64 for _ in range(9)]),
    ):
        assert len(refusal(tree)) < 600


# ------------------------------------------------------------------------------------------------ hostile files

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "data",
    [
        BOMB,
        MERGED,
        "a: &a [*a]",
        "a: &a {b: *a}",
        "[" * 30_000,
        "{a: " * 8000,
        "- " * 15_000,
        "\n".join(" " * at + "a:" for at in range(200)),
        TEXT.replace("  threads: 1", "\tthreads: 1"),
        TEXT + "---\na: 1\n",
        TEXT.replace("seed: 2026", "seed: !unknown 1"),
        TEXT.replace("seed: 2026", "seed: !!binary aGVsbG8="),
        TEXT.replace("seed: 2026", "seed: 2020-01-01"),
        TEXT.replace("seed: 2026", "seed: " + "9" * 5000),
        TEXT.encode("utf-16"),
        TEXT.encode() + b"# caf\xe9",
        bytes(1000),
        b"a" * 10**8,
        "1: 2\n" + TEXT,
        "null: 2\n" + TEXT,
        "[a, b]: 2\n" + TEXT,
        '"a\\0b": 1\n' + TEXT,
        TEXT.replace("  threads: 1", "  3: 4\n  threads: 1"),
        TEXT + "another_study: {}\n",
    ],
    ids=range(24),
)
def test_a_hostile_file_is_one_line_within_a_second(data: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    before = time.process_time()
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")) as caught:
        params.load(path)
    assert time.process_time() - before < 1
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_anchors_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    text = TEXT.replace("crop: 0  ", "crop: &crop 8  ", 1).replace("slices: 16", "slices: *crop")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert params.load(path).latent_perceptual.slices == 8
