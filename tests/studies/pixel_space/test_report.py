"""The page of pixel-space post-training, on made-up measures: what its tables hold, its sentences, its verdicts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

import contact_sheets
from atelier import claims, params, verdicts
from atelier.evaluation.judges import Bar
from atelier.files import read_table
from atelier.params import CORRECTED
from atelier.report import figures as report_figures
from atelier.report import study as studies
from atelier.report.items import Figure, Item, Table, Text
from atelier.studies.pixel_space import report, report_results, report_training
from atelier.studies.pixel_space.params import UNTUNED, Config, against, corrected
from atelier.studies.pixel_space.report_load import VOTED
from atelier.studies.pixel_space.report_pairs import net_votes
from atelier.studies.pixel_space.report_pictures import MEASURES
from atelier.studies.pixel_space.report_results import VOTES, Results
from atelier.training.defects import NAMES
from atelier.workspace import Workspace

ROOT = Path(__file__).parents[3]
STUDY = params.load(ROOT / "profiles" / "study.yaml")
GROUPS = len(STUDY.protocol.groups)
SPREAD = np.linspace(-0.01, 0.01, GROUPS)  # of a measure over groups
SUPERVISED = ("latent", "pixel", "both", "both-clean", "latent-longer", "latent-v", "both-v")
PREFERENCE = tuple(f"{loss}-{terms}" for loss in ("dpo", "simpo") for terms in ("latent", "pixel", "both"))
SHARES = {"share-10": 0.1, "share-90": 0.9}
PAIRS = [
    *((name, UNTUNED) for name in (*SUPERVISED, *PREFERENCE)),
    *(("both", other) for other in ("latent", "pixel", "both-clean", "latent-longer")),
    *(("simpo-both", other) for other in ("dpo-latent", "simpo-latent")),
    ("dpo-both", "dpo-latent"),
]
Measured = Mapping[tuple[str, str], Sequence[float]]


def training(name: str) -> dict[str, object]:
    """A training as its name says."""
    method = name.partition("-")[0] if name in PREFERENCE else "supervised"
    terms = next((each for each in ("latent", "pixel") if each in name), "both")
    more: dict[str, object] = {"kind": "v_prediction"} if name.endswith("-v") else {}
    more |= {"decoded": "clean"} if name == "both-clean" else {}
    more |= {"longer": 2.5} if name == "latent-longer" else {}
    more |= {"share": SHARES[name]} if name in SHARES else {}
    return {"method": method, "terms": terms, **more}


def section(variants: Sequence[str], ablations: Sequence[str] = ()) -> Config:
    """The study's section with these variants."""
    optimisation = Config.model_fields["supervised"].annotation
    assert optimisation is not None
    steps = {
        "steps": 100, "batch": 4, "learning_rate": 1e-4, "decay": "constant", "warmup": 0, "beta2": 0.999,
        "weight_decay": 0.0, "clip": 1.0, "ema": 0.0, "checkpoint_every": 50,
    }  # fmt: skip
    return Config.model_validate({
        "style": "Impressionism", "curated": {"painted": 400, "kept": 200, "held_out": 300},
        "candidates": {"prompts": 100, "each": 5, "guidance": 4.0}, "variants": list(variants),
        "ablations": list(ablations), "ablation_seeds": STUDY.protocol.training_seeds[:3] if ablations else [],
        "trainings": {name: training(name) for name in (*variants, *ablations)}, "rank": 8, "crop": 0, "slices": 4,
        "beta": 2500.0, "simpo_beta": 500.0, "margin": 0.0, "most": 1.2, "supervised": steps, "preference": steps,
        "guidance": 4.0, "pictures": 20, "restored": 20, "strength": 0.5, "inspected": 8, "sitting": 20,
        "judges": "data/defects",
        "judge_training": None,
    })  # fmt: skip


def having(
    variants: Sequence[str] = (*SUPERVISED, *PREFERENCE), ablations: Sequence[str] = tuple(SHARES)
) -> params.Params:
    """The profile ``study`` with this study's section, whatever it has of it."""
    return STUDY.model_copy(update={"pixel_space": section(variants, ablations)})


def measures(profile: params.Params, changed: Measured) -> pd.DataFrame:
    """Every cell, with 1 in all measures and groups but for what is ``changed``; ablations have three groups."""
    config = Config.of(profile)
    groups = {UNTUNED: GROUPS} | {name: 3 if name in config.ablations else GROUPS for name in config.names}
    names = (*MEASURES, *(f"defect_{name}" for name in NAMES))
    cells = {corrected(name): n for name, n in groups.items() if name not in config.ablations} | groups
    listed = {(name, cell): [1.0] * n for cell, n in cells.items() for name in names}
    floors = {"returned": 0.1, "real-returned": 0.2}
    listed |= {
        (name, cell): [floor] * GROUPS
        for cell, floor in floors.items()
        for name in ("defects", "high", "high_rec", "fd", "fd_rec")
    }
    shares = {"win": 0.5, "tie": 0.2, "lose": 0.3, "net": 0.2}
    for pair in (pair for pair in PAIRS if set(pair) <= set(groups)):
        for cell in (against(*pair), corrected(against(*pair))):
            listed |= {
                (f"{outcome}_{what}", cell): list(share + SPREAD)
                for outcome, share in shares.items()
                for what in ("defects", "fit")
            }
    of_works = [name for name in config.variants if not name.endswith("-v")]
    listed |= {(f"high_{where}", name): list(1 + SPREAD) for name in of_works for where in ("inside", "outside")}
    listed |= {("winner_error", name): list(0.05 + SPREAD) for name in config.variants if name in PREFERENCE}
    listed |= {("round_trip", f"t-{t}"): list(0.8 + SPREAD) for t in (250, 500, 750)}
    listed |= {("log_form_ratio", "noisiest"): list(1 + SPREAD), ("log_form_ratio", "cleanest"): list(0 * SPREAD)}
    listed |= {(name, "nothing"): [0.0] * GROUPS for name in ("net_defects", "net_fit", "winner_error")}
    listed |= {key: list(values) for key, values in changed.items()}
    return pd.DataFrame(
        {"measure": name, "cell": cell, "n": 0 if cell == "nothing" else 20 * len(values),
         "whole": float(np.mean(values)), **{f"group{group}": value for group, value in enumerate(values)}}
        for (name, cell), values in listed.items()
    )  # fmt: skip


def every_pair(profile: params.Params, nets: Mapping[tuple[str, str], float]) -> pd.DataFrame:
    """Each pair of the base and main variants: the later wins by 0.1 for each place, but for those of ``nets``."""
    names = [UNTUNED, *Config.of(profile).variants]
    return pd.DataFrame(
        {"measure": measure, "start": start, "A": a, "B": b, "group": str(group), "n": 20, "tie": 0.1, "error": 0.05,
         "win": 0.45 + net / 2 + spread, "lose": 0.45 - net / 2}
        for place, a in enumerate(names) for b in names[:place] for net in (nets.get((a, b), 0.1 * place),)
        for measure in ("defects", "fit") for start in ("white", "corrected")
        for group, spread in [("whole", 0.0), *enumerate(SPREAD)]
    )  # fmt: skip


def bars(**low: float) -> list[Bar]:
    """Both judges' bars, met but for the measuring judge's defects of which a low end is given."""
    return [
        Bar(name=f"defect judge, {role}, {defect}, {kind} in order", value=0.95, n=200, least=0.8, high=0.98,
            low=low.get(defect, 0.9) if role == "measuring" else 0.9)
        for role in ("choosing", "measuring") for defect in NAMES for kind in ("works", "photographs")
    ]  # fmt: skip


def histories(profile: params.Params) -> pd.DataFrame:
    """Two steps of every training and seed."""
    config = Config.of(profile)
    return pd.DataFrame(
        {"step": step, "learning_rate": 1e-4, "variant": name, "training_seed": seed}
        | ({"denoising": 1.0 / step, "pixel": 0.1} if one.method == "supervised" else {"latent": 0.7, "accuracy": 0.5})
        for name, one in config.trainings.items()
        for seed in profile.protocol.training_seeds
        for step in (1, 2)
    )  # fmt: skip


def probes(profile: params.Params) -> pd.DataFrame:
    """Three checkpoints of every preference training and seed; the last seed stops at the second."""
    seeds = profile.protocol.training_seeds
    columns = ["step", "winner", "loser", "accuracy", "variant", "training_seed"]
    return pd.DataFrame(
        [
            (step, 1 + step / 1000, 1 + step / 100 + seed / 10, 0.5, name, seed)
            for name, one in Config.of(profile).trainings.items()
            if one.method != "supervised"
            for seed in seeds
            for step in (0, 50, 100)
            if step < 100 or seed != seeds[-1]
        ],
        columns=columns,
    )  # fmt: skip


def card(name: str, config: Config, seed: int) -> dict[str, object]:
    """A training's: a weight and units where its terms and method have them; two of *simpo-latent* stopped."""
    one = config.trainings[name]
    pairs = one.method != "supervised"
    return {
        "weight": None if one.terms == "latent" or (one.terms == "pixel" and pairs) else 2.0,
        "factor": 0.5 if pairs and one.terms != "latent" else None,
        "stopped": 70 if name == "simpo-latent" and seed < 2 else None,
    }


def results(profile: params.Params | None = None, changed: Measured | None = None, **fields: object) -> Results:
    """A page's results, with two pictures a row."""
    profile = profile or having()
    config = Config.of(profile)
    pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    made = Results(
        params=profile,
        config=config,
        n_learnt=200,
        n_held_out=300,
        pairs=pd.DataFrame({"prompt": ["a", "b"], "winner_defects": [0.1, 0.2], "loser_defects": [1.1, 2.2]}),
        cards={name: [card(name, config, seed) for seed in range(5)] for name in config.names},
        history=histories(profile),
        probes=probes(profile),
        rows=measures(profile, changed or {}),
        every_pair=every_pair(profile, {}),
        gradients=pd.DataFrame(
            {"t": t, "form": form, "n": 40, **{f"group{group}": 10.0 ** (at - 1) for group in range(GROUPS)}}
            for at, form in enumerate(("latent", "noisy", "clean")) for t in (50, 950)
        ),
        bars=bars(),
        browsed=contact_sheets.browsed((UNTUNED, *config.names), pictures),
        first_pairs={"best": pictures, "worst": pictures},
        decoded={"as it is": pictures, "the estimate": pictures},
        decoded_at=[50, 950],
        votes=read_table(ROOT / "docs" / "papers" / VOTES, VOTED),
    )  # fmt: skip
    return replace(made, **fields)


def items(page: Results) -> Iterator[Item]:
    """Everything that the notebook shows."""
    for name in report.__all__:
        if name not in ("Results", "evidence", "floors", "headline", "load"):
            shown = getattr(report, name)(page)
            yield from shown if isinstance(shown, list) else [shown]


def named(page: Results, kind: type[Item], name: str) -> Item:
    (found,) = (item for item in items(page) if isinstance(item, kind) and item.name == name)
    return found


def decided(page: Results) -> dict[str, verdicts.Verdict]:
    known = claims.load("pixel_space")
    return {verdict.claim: verdict for verdict in verdicts.decide(known, report.evidence(page))}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    with plt.rc_context({"figure.max_open_warning": 0}):
        yield
    plt.close("all")


# ------------------------------------------------------------------------------------------------ the whole page

EMBEDDED = ("latent", "pixel", "both", "both-clean", "dpo-latent", "dpo-both", "simpo-latent", "simpo-both")
PAGES = {
    "all": having(),
    "embedded": having(EMBEDDED, ()),
    "supervised": having(("latent", "both"), ()),
    "one": having(("dpo-both",), ()),
}


@pytest.mark.parametrize("name", PAGES)
def test_whatever_is_trained_has_its_page(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_figures, "contact_sheet", lambda *_, **__: plt.figure())
    page = results(PAGES[name])
    shown = list(items(page))
    names = [(type(item), item.name) for item in shown if not isinstance(item, Text)]
    assert len(set(names)) == len(names)
    recorded = [metric for item in shown for metric in item.metrics]
    assert len(set(recorded)) == len(recorded), "recorded twice"
    assert set(report.headline(page)) <= set(recorded)
    assert {f"defects/{variant}" for variant in page.config.names} <= set(recorded)
    for item in shown:
        if isinstance(item, Figure) and not item.name.startswith("history"):
            assert "n = " in item.caption or "prompt" in item.caption or "work by" in item.caption, item.name


def test_data_without_an_evaluator_masks_or_bars_has_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_figures, "contact_sheet", lambda *_, **__: plt.figure())
    page = results(bars=[], every_pair=every_pair(having(), {}).query("measure == 'defects'"))
    unknown = page.rows["measure"].str.contains(r"^(?:fit|style|subject|clip|high_inside|high_outside)$|_fit$|_rec$")
    page = replace(page, rows=page.rows[~unknown])
    shown = list(items(page))
    assert not {"asked", "inside_outside", "judges"} & {item.name for item in shown if not isinstance(item, Text)}
    assert "no evaluator" in report.style_and_subject(page).text
    assert {name for name, each in decided(page).items() if each.verdict in verdicts.DECIDED} <= {"E5"}


@pytest.mark.parametrize("name", ["all", "one"])
def test_the_notebook_runs_and_shows_everything(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = results(PAGES[name])
    study = studies.Study("pixel_space", page.params, Workspace(tmp_path))
    monkeypatch.setattr(studies.Study, "begin", lambda *_: study)
    monkeypatch.setattr(report, "load", lambda *_: page)
    monkeypatch.setattr(studies, "display", lambda *_, **__: None)
    cells = json.loads((ROOT / "notebooks" / "pixel_space.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    variables: dict[str, object] = {}
    for source in code:
        exec(source, variables)
        assert source.startswith("# papermill") or len(source.splitlines()) <= 8
    written = json.loads((study.folder / "metrics.json").read_text())
    assert list(written["verdicts"]) == [f"E{number}" for number in range(1, 7)]
    unseen = {"Results", "evidence", "floors", "headline", "load"}
    assert {each for each in report.__all__ if f"report.{each}(" not in "".join(code)} == unseen
    if name == "all":
        figures = {path.stem for path in (study.folder / "figures").iterdir()}
        assert {"browser_01", "pairs", "head_to_head", "transitivity", "gradients", "decoded", "sweep"} <= figures


def test_every_line_of_the_answer_says_something_of_its_claim() -> None:
    lines = report.answer(results()).text.splitlines()
    assert [line[:2] for line in lines[:6]] == [f"E{number}" for number in range(1, 7)]
    assert "make ab" in lines[6]
    assert "fewer in 50 % of pairs, more in 30 %, wins less losses +20 (+19" in lines[0]
    assert "the paper's voters: 32.8 and 9.3 % in DiT; 29.3 and 24.0 % in LDM1.5" in lines[0]
    assert "31.0 and 19.7 % in DiT; 18.3 and 11.5 % in Emu" in lines[1]
    assert "dpo-latent +5 (+4" in lines[1]
    few = report.answer(results(PAGES["supervised"])).text.splitlines()
    assert all("does not measure" in few[number] for number in (1, 3, 5))
    assert "does not measure" not in few[0]


def test_the_answer_turns_with_the_numbers() -> None:
    worse = {("net_defects", "both-over-latent"): list(-0.2 + SPREAD), ("high_rec", "both"): list(0.8 + SPREAD)}
    line = report.answer(results(changed=worse)).text.splitlines()[0]
    assert "both terms have more defects than latent" in line
    assert "half Nyquist falls: -0.2" in line
    none = {("net_defects", "both-over-latent"): list(SPREAD)}
    assert "show no difference in defects from latent" in report.answer(results(changed=none)).text


def test_the_answer_first_says_that_a_judge_that_failed_decides_nothing() -> None:
    failed = replace(results(), bars=bars(blur=0.7))
    first, second = report.answer(failed).text.splitlines()[:2]
    assert "did not pass its validation" in first
    assert second.startswith("E1")
    assert "validation" not in report.answer(results()).text


@pytest.mark.parametrize(
    ("more", "said"), [(0.3, "above 0, +0.3"), (-0.3, "below 0, -0.3"), (0.0, "not shown to differ")]
)
def test_the_answer_has_what_the_pixel_term_does_with_a_reference_and_without(more: float, said: str) -> None:
    changed = {
        ("fit", "simpo-both"): list(1 + more + SPREAD), ("fit", "simpo-latent"): [1.0] * GROUPS,
        ("fit", "dpo-both"): [1.1] * GROUPS, ("fit", "dpo-latent"): [1.1] * GROUPS,
    }  # fmt: skip
    assert f"the difference is {said}" in report.answer(results(changed=changed)).text.splitlines()[5]


# ------------------------------------------------------------------------------------------------ the paper's numbers


def test_the_papers_votes_add_up_and_are_the_papers() -> None:
    votes = results().votes
    assert list(votes["table"].value_counts().sort_index()) == [3, 3, 3, 3, 5, 4]
    for question in ("flaws", "appeal"):
        total = votes[[f"{question}_{outcome}" for outcome in ("win", "tie", "lose")]].sum(axis=1)
        assert ((total - 100).abs() < 0.15).all()
    # what its introduction says: improvements on appeal and flaws, supervised and by preference
    table = votes[votes["model"] == "DiT"].drop_duplicates(["a", "b"]).set_index(["a", "b"])
    nets = [
        round(net_votes(table.loc[pair], question).mean, 1)
        for pair in (("both", "latent"), ("simpo-both", "dpo-latent"))
        for question in ("appeal", "flaws")
    ]
    assert nets == [18.2, 23.5, 17.8, 11.3]
    assert list(votes[votes["label"] == "lost"]["flaws_win"]) == [50.7]


def test_net_votes_have_the_error_of_their_prompts() -> None:
    row = results().votes.set_index(["table", "a", "b"]).loc[(2, "both", "latent")]
    net = net_votes(row, "flaws")
    error = ((0.293 + 0.24 - 0.053**2) / 600) ** 0.5
    assert net[:3] == pytest.approx((5.3, 5.3 - 196 * error, 5.3 + 196 * error))


def test_the_papers_table_names_its_lost_row() -> None:
    table = named(results(), Table, "paper")
    assert len(table.frame) == 21
    lost = table.frame[table.frame["A"] == "(label lost)"]
    assert list(lost["flaws"]) == ["50.7 / 35.7 / 13.7"]
    assert "label is lost" in table.caption


# ------------------------------------------------------------------------------------------------ pairs


def test_pairs_stand_beside_the_papers_votes() -> None:
    page = results()
    table = named(page, Table, "head_to_head")
    row = table.frame.loc["both over latent"]
    assert row["fewer defects"] == "50 / 20 / 30"
    assert row["fewer defects, wins less losses"].startswith("+20 (+19")
    assert row["fewer defects, corrected start"].startswith("+20 (+19")
    assert row["paper, flaws"] == "32.8 / 57.8 / 9.3 (DiT); 29.3 / 46.7 / 24.0 (LDM1.5)"
    assert row["paper, appeal"] == "34.8 / 48.6 / 16.6 (DiT); 41.5 / 24.0 / 34.4 (LDM1.5)"
    assert table.frame.loc["both over both-clean", "paper, flaws"] == ""
    assert len(table.frame) == len(PAIRS)
    assert table.metrics["net/defects/both-over-latent"].value.mean == pytest.approx(20)
    assert table.metrics["net/defects/both-over-latent"].unit == "points"


def test_the_matrix_is_antisymmetric() -> None:
    few = PAGES["supervised"]
    page = results(few, every_pair=every_pair(few, {("both", "latent"): 0.4}))
    drawn = [text.get_text() for text in named(page, Figure, "transitivity").figure.axes[0].texts]
    assert sorted(drawn) == sorted(["10", "-10", "20", "-20", "40", "-40"])


def test_comparisons_that_do_not_add_up_are_named() -> None:
    few = PAGES["supervised"]

    def said(nets: Mapping[tuple[str, str], float]) -> str:
        shown = report.transitivity(results(few, every_pair=every_pair(few, nets)))
        return next(item.text for item in shown if isinstance(item, Text))

    assert said({}).startswith("Of 2 triples whose intervals exclude 0, 0 do not add up.")
    odd = said({("both", "latent"): -0.2})  # although it wins by more against the base
    assert "latent over both, against untuned" in odd
    assert "29.3 % against latents alone and lose 24.0 %" in odd
    assert "74.2 against 75.0 %" in odd


def test_a_share_of_pairs_can_change_by_one_pair() -> None:
    page = results()
    assert page.resolutions["net_defects", "both-over-latent"] == pytest.approx(1 / 20)
    assert page.resolutions["style", "both"] == pytest.approx(1 / 20)
    assert page.resolutions["style", "share-10"] == pytest.approx(1 / 20)


# ------------------------------------------------------------------------------------------------ the judge


def test_validation_lists_both_judges_by_defect() -> None:
    table = report.validation(results())
    assert isinstance(table, Table)
    assert list(table.frame.index) == list(NAMES)
    assert table.frame.loc["blur", "measuring, works (%)"] == "95 (90 to 98)"
    assert table.metrics["judge/choosing/lost/photographs"].n == 200
    assert "required: 80 %" in table.caption


def test_a_judge_that_misses_one_defect_judges_nothing() -> None:
    page = results(changed=BETTER, bars=bars(blur=0.75))
    assert not page.is_validated
    assert "it fails on blur" in report.may_judge(page).text
    assert {key for key in report.evidence(page).values if "defect" in key[0]} == set()
    for name in ("E1", "E2", "E6"):
        reason = decided(page)[name].reason
        assert reason is not None
        assert "not measured" in reason.says, name
    assert decided(page)["E5"].verdict in verdicts.DECIDED  # needs no such judge
    assert not results(bars=[]).is_validated
    assert isinstance(report.validation(results(bars=[])), Text)
    failing = [bar for bar in bars() if "choosing" not in bar.name]  # the one that chooses decides nothing
    assert results(bars=failing).is_validated


# ------------------------------------------------------------------------------------------------ verdicts


BETTER = {
    ("high_rec", "both"): list(0.8 + SPREAD),
    ("high_rec", "simpo-both"): list(0.8 + SPREAD),
    ("high_inside", "pixel"): list(0.8 + SPREAD),
    ("high_outside", "pixel"): list(1.2 + SPREAD),
    ("top", "both-clean"): list(0.8 + SPREAD),
    ("fit", "simpo-both"): list(1.2 + SPREAD),
    ("fit", "dpo-both"): list(0.9 + SPREAD),
    ("defects", "dpo-both"): list(0.8 + SPREAD),
    **{(name, cell): list(1 + SPREAD) for name in ("subject", "style") for cell in ("both", "simpo-both")},
}


def test_what_the_paper_says_would_be_supported() -> None:
    assert {name: verdict.verdict for name, verdict in decided(results(changed=BETTER)).items()} == dict.fromkeys(
        (f"E{number}" for number in range(1, 7)), verdicts.SUPPORTED
    )


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("E1", {("net_defects", "both-over-latent"): list(-0.2 + SPREAD)}),
        ("E1", {("high_rec", "both"): list(1.2 + SPREAD)}),
        ("E2", {("net_defects", "simpo-both-over-dpo-latent"): list(-0.2 + SPREAD)}),
        ("E3", {("style", "simpo-both"): list(0.9 + SPREAD)}),
        ("E4", {("high_outside", "both"): list(1.4 + SPREAD)}),
        ("E5", {("top", "both-clean"): list(1.2 + SPREAD)}),
        ("E6", {("fit", "simpo-both"): list(0.5 + SPREAD)}),
        ("E6", {("defects", "dpo-both"): list(1.2 + SPREAD)}),
    ],
)
def test_the_opposite_is_reversed(name: str, changed: Measured) -> None:
    assert decided(results(changed={**BETTER, **changed}))[name].verdict == verdicts.REVERSED


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("E5", {("round_trip", "t-750"): list(0.4 + SPREAD)}),
        ("E5", {("log_form_ratio", "noisiest"): list(0.5 + SPREAD)}),  # 3 times, of 5
        ("E1", {("net_defects", "both-over-latent"): list(0.002 + SPREAD)}),
    ],
)
def test_too_little_is_not_seen(name: str, changed: Measured) -> None:
    assert decided(results(changed={**BETTER, **changed}))[name].verdict == verdicts.NOT_SEEN


@pytest.mark.parametrize("arm", ["dpo-latent", "simpo-both"])
def test_where_winners_are_lost_the_preference_claim_has_no_verdict(arm: str) -> None:
    page = results(changed={**BETTER, ("winner_error", arm): list(0.25 + SPREAD)})
    verdict = decided(page)["E2"]
    assert verdict.verdict == verdicts.UNMET
    assert verdict.reason is not None
    assert verdict.reason.part.name == f"WINNER_ERROR of {arm} against nothing"
    assert decided(page)["E6"].verdict == verdicts.SUPPORTED


def test_a_spectrum_that_is_all_but_the_decoders_decides_nothing() -> None:
    changed = {**BETTER, ("high_rec", "real-returned"): [0.9] * GROUPS}
    verdict = decided(results(changed=changed))["E1"]
    assert verdict.verdict == verdicts.CANNOT_TELL
    assert verdict.reason is not None
    assert verdict.reason.part.measure == "high_rec"


def test_evidence_counts_pictures_and_pairs() -> None:
    evidence = report.evidence(results())
    assert evidence.counts["E1"] == [20 * GROUPS, 20 * GROUPS]
    assert evidence.over_of("E1") == f"intervals over {GROUPS} groups of repeats, {GROUPS} training seeds"
    assert evidence.floors == {
        "high": pytest.approx(0.1), "fd": pytest.approx(0.1),
        "high_rec": pytest.approx(0.2), "fd_rec": pytest.approx(0.2),
    }  # fmt: skip
    assert {len(evidence.values[measure, "nothing"]) for measure in ("net_defects", "round_trip", "top")} == {GROUPS}


def test_what_is_compared_with_nothing_is_so_from_both_starts() -> None:
    moved = {("net_defects", "both-over-latent-corrected"): list(-0.3 + SPREAD)}
    finding = decided(results(changed={**BETTER, **moved}))["E1"].findings[0]
    assert finding.corrected is not None
    assert finding.corrected.interval.mean == pytest.approx(-0.3)
    assert finding.starts_disagree


# ------------------------------------------------------------------------------------------------ training


def test_variants_say_their_weights_and_where_they_stopped() -> None:
    table = report.variants(results())
    assert table.frame.loc["simpo-latent", "stopped"] == "2 of 5, at 70 and 70"
    assert list(table.frame.loc["latent", ["share", "weight", "stopped", "decoded"]]) == ["", "", "", ""]
    assert list(table.frame.loc["both-clean", ["share", "weight", "decoded"]]) == ["0.5", "2", "the clean estimate"]
    assert list(table.frame.loc["dpo-both", ["stopped", "units"]]) == ["none", "0.5"]
    assert list(table.frame.loc["dpo-pixel", ["weight", "units"]]) == ["", "0.5"]
    assert list(table.frame.loc["pixel", ["weight", "units", "share"]]) == ["2", "", ""]
    assert table.frame.loc["latent-longer", "steps"] == "250"
    assert table.frame.loc["both-v", "predicts"] == "v"


def test_curves_are_drawn_of_what_a_training_has() -> None:
    shown = {figure.name: figure for figure in report.curves(results())}
    assert list(shown) == ["history_denoising", "history_pixel", "preferences"]
    titles = [axis.get_ylabel() for axis in shown["preferences"].figure.axes if axis.get_ylabel()]
    assert titles == list(report_training.PROBED.values())
    last = shown["preferences"].figure.axes[2].containers[0].lines[0]  # the first variant, losers
    assert last.get_ydata()[-1] == pytest.approx(2 + np.mean(range(GROUPS - 1)) / 10)  # without the seed that stopped
    assert [figure.name for figure in report.curves(results(PAGES["supervised"]))] == [
        "history_denoising",
        "history_pixel",
    ]
    assert [figure.name for figure in report.curves(results(PAGES["one"]))] == ["preferences"]


def test_pairs_say_how_far_apart_they_are() -> None:
    shown = report.chosen(results())
    text = next(item for item in shown if isinstance(item, Text))
    assert "2 pairs of preferences; the choosing judge's score of the worst is 1.5 above" in text.text
    assert "learn 200 works" in text.text
    sheet = next(item for item in shown if isinstance(item, Figure))
    assert contact_sheets.labels(sheet.figure) == ["best", "worst"]


def test_the_cost_of_a_step_is_said_beside_the_papers_remark() -> None:
    assert "2.5 times the steps" in report.cost(results()).text
    assert "1-8 hours on 8 H100 GPUs" in report.cost(results(PAGES["one"])).text


# ------------------------------------------------------------------------------------------------ pictures


def test_the_base_and_every_variant_are_beside_each_other() -> None:
    page = results()
    shown = report.browser(page)
    assert shown.rows == [UNTUNED, *page.config.names]
    assert shown.caption.startswith(f"n = {2 * len(shown.rows)} pictures")


def test_both_starts_have_their_tables() -> None:
    page = results()
    white, moved = report.measures(page)
    assert list(white.frame.index) == ["returned", "real-returned", UNTUNED, *page.config.names]
    assert list(moved.frame.index) == [corrected(name) for name in (UNTUNED, *page.config.variants)]
    assert all(name.endswith(CORRECTED) for name in moved.frame.index)
    assert [table.name for table in report.changes(page)] == ["changes", "changes_corrected"]
    row = report.changes(results(changed=BETTER))[0].frame.loc["both less latent"]
    assert row["error of log10 power above half Nyquist"].startswith("-0.2 (-0.2")


def test_defects_are_told_by_kind() -> None:
    figure, table = report.defects(results(changed={("defect_blur", "both"): list(0.3 + SPREAD)}))
    assert isinstance(table, Table)
    assert table.frame.loc["both", "blur"].startswith("0.3 ± 0.0")
    assert list(table.frame) == [*NAMES, "all"]
    assert isinstance(figure, Figure)
    labels = [label.get_text() for label in figure.figure.axes[0].get_yticklabels()]
    assert [label for label in labels if label] == list(NAMES)


def test_subject_and_background_are_told_apart() -> None:
    _, table = report.inside_outside(results(changed=BETTER))
    assert table.frame.loc["pixel", "inside the subject"].startswith("0.8 ±")
    assert table.frame.loc["pixel", "outside it"].startswith("1.2 ±")
    page = results()
    unpainted = replace(page, rows=page.rows[~page.rows["measure"].str.startswith("high_i")])
    assert report.inside_outside(unpainted) == []


def test_the_sweep_takes_what_differs_in_its_share_alone() -> None:
    (figure,) = report.sweep(results())
    assert set(figure.metrics) >= {"sweep/defects/share-10", "sweep/defects/both", "sweep/defects/share-90"}
    assert not any("clean" in name or name.endswith("-v") for name in figure.metrics)
    assert report.sweep(results(PAGES["embedded"])) == []


def test_alignment_stands_beside_the_papers() -> None:
    table = report.style_and_subject(results())
    assert table.frame.loc["both", "paper's text alignment (%)"] == "74.0 (DiT); 72.1 (LDM1.5)"
    assert table.frame.loc["both", "style as prompted (%)"] == "100 (100 to 100)"
    base = table.frame.loc[UNTUNED, "paper's text alignment (%)"]
    assert base == "74.0 (DiT, supervised); 61.4 (LDM1.5, supervised); 74.0 (DiT, preferences); 89.2 (Emu, preferences)"


# ------------------------------------------------------------------------------------------------ both forms


def test_figure_seven_is_redrawn_as_pictures_and_as_norms() -> None:
    pictures, norms = report.figure_seven(results())
    assert isinstance(pictures, Figure)
    assert contact_sheets.labels(pictures.figure)[:2] == ["as it is", "the estimate"]
    assert norms.metrics["gradient/clean/950"].value.mean == pytest.approx(1.0)  # log10 of 10
    assert norms.metrics["gradient/latent/50"].n == 40


def test_the_ratio_of_forms_is_told_in_times() -> None:
    text = report.ratio(results()).text
    assert "grows 10 times" in text
    assert "more than 5" in text


def test_round_trips_are_in_the_order_of_noise() -> None:
    table = report.round_trips(results())
    assert isinstance(table, Table)
    assert list(table.frame.index) == ["250", "500", "750"]
    assert table.frame.loc["500", "variance explained"].startswith("0.8 (0.7")


def test_labels_of_dots_stand_once() -> None:
    interval = results().interval("defects", "both")
    table = report_results.dotted([("a", "x", interval), ("a", "y", interval), ("b", "x", interval)])
    assert list(table.index) == ["a", "", "b"]
    assert list(table["group"]) == ["x", "y", "x"]
