"""The page of the signal leak, on made-up measures: its tables hold what was measured, its captions say on how much."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from matplotlib import pyplot as plt
from safetensors.torch import save_file
from scipy.stats import spearmanr

import contact_sheets
from atelier import claims, params, verdicts
from atelier.data import prepare
from atelier.data.pictures import Pictures, in_memory
from atelier.diffusion import signal_and_noise
from atelier.evaluation.intervals import Interval
from atelier.files import write_seal
from atelier.methods.signal_leak import FrequencyLeak, PixelLeak, first_step
from atelier.report.items import Figure, Table, Text
from atelier.sampling import store
from atelier.studies.signal_leak import explore, measure, report
from atelier.studies.signal_leak.params import Config
from atelier.studies.signal_leak.report_light import DIVERSITY, labels
from atelier.studies.signal_leak.report_results import Results
from atelier.studies.signal_leak.sample import COLOURS
from atelier.workspace import Workspace

PROFILES = Path(__file__).parents[3] / "profiles"
EMBEDDED = params.load(PROFILES / "embedded.yaml")
EACH = EMBEDDED.section("signal_leak").pictures * len(EMBEDDED.protocol.all_repeats)  # pictures a condition
CHANNELS, SIDE = 2, 2
SCHEDULER = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.000234, beta_end=0.0033)


def rows(cells: dict[str, float], measured: str) -> pd.DataFrame:
    """A measure's row a cell: its value at once, and in four groups a little apart, so that intervals have a width."""
    table = pd.DataFrame(
        [{"cell": cell, "measure": measured, "n": 20, "whole": value} for cell, value in cells.items()]
    )
    shifts = (-0.1, -0.03, 0.03, 0.1)
    return table.assign(**{f"group{group}": table["whole"] + shift for group, shift in enumerate(shifts)})


def manifest(style: str, train: int, test: int) -> pd.DataFrame:
    return pd.DataFrame({"art_style": style, "split": ["train"] * train + ["test"] * test})


def leak(mean: float, n: int, std: float = 1.0) -> PixelLeak:
    shape = (CHANNELS, SIDE, SIDE)
    return PixelLeak(np.full(shape, mean), np.full(shape, std), n)


def results(table: pd.DataFrame, profile: params.Params = EMBEDDED) -> Results:
    """Results of these measures; the mean of natural latents has variance 1 in every channel."""
    natural = leak(0.0, 12)
    return Results(
        params=profile,
        workspace=Workspace(),
        table=table,
        spectrum=pd.DataFrame({"u": [0, 0, 1, 1], "v": [0, 0, 1, 1], "channel": [0, 1, 0, 1], "n": 12,
                               "whole": [3.0, 5.0, 0.1, 0.3]}),
        first_steps=pd.DataFrame(),
        colours=colours(),
        leaks={"pixel": natural, "low-1": FrequencyLeak([(0, 0)], np.zeros(CHANNELS), np.eye(CHANNELS), natural),
               "all-Near": leak(1.0, 30, 2.0), "all-Far": leak(2.0, 40), "7-Far": leak(9.0, 7)},
        works=pd.concat([manifest("Watercolor", 9, 3), manifest("Expressionism", 4, 1)], ignore_index=True),
        natural=manifest("", 3, 5).assign(path=["", *(f"{number}.png" for number in range(1, 8))]),
        kind="photographs",
        scheduler=SCHEDULER,
        vae=AutoencoderKL(latent_channels=CHANNELS, block_out_channels=(4,), norm_num_groups=2, sample_size=SIDE),
    )  # fmt: skip


def colours() -> pd.DataFrame:
    """Channel 0 makes pictures redder step by step; channel 1 makes nothing of it, up and down."""
    listed = [
        {"repeat": repeat, "place": 0, "channel": channel, "value": value, "made": value + 0.01 * repeat,
         "red": 0.5 + (0.1 * value if channel == 0 else 0.1 * abs(value)), "green": 0.5, "blue": 0.5 - 0.1 * value}
        for channel in range(2) for value in (-2.0, 0.0, 2.0) for repeat in range(4)
    ]  # fmt: skip
    return pd.DataFrame(listed)


NATURAL = ["real", "returned", "white", "again", "offset", "pixel", "low-1", "low-3"]
STYLE_CELLS = {"real-watercolor": 0.1, "returned-watercolor": 0.2, "plain-watercolor+leak": 0.7,
               "words-watercolor": 0.6, "words-watercolor+leak": 0.4, "tuned-watercolor": 0.8,
               "tuned-watercolor+leak": 0.5, "tuned-watercolor+leak-7": 0.3}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of every cell, four a repeat; a picture's grey level is its number in the cell, places run backwards."""
    listed = pd.DataFrame(
        {"repeat": [0] * 4 + [1] * 4, "place": [3, 2, 1, 0] * 2, "prompt": list("abcdabce"), "path": ""}
    )
    made = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 3, 8, 8)
    by_hand = colours().assign(prompt="a")
    made_by_hand = torch.arange(len(by_hand), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)

    def read(folders: list[Path]) -> tuple[Pictures, pd.DataFrame]:
        (folder,) = folders  # of the one training seed
        cell, guidance = folder.relative_to(Workspace().samples / "signal_leak" / "untuned" / "0").parts
        assert guidance == "guidance-4"
        return (in_memory(made_by_hand), by_hand) if cell == COLOURS else (in_memory(made), listed)

    monkeypatch.setattr(store, "read", read)
    monkeypatch.setattr(store, "listed", lambda folders: read(folders)[1])
    monkeypatch.setattr(
        prepare, "pictures", lambda table, *_, **__: in_memory(made[torch.arange(len(table)) % len(made)])
    )


# ------------------------------------------------------------------------------------------------ the first step


def test_first_inputs_are_the_schedules() -> None:
    table = report.first_inputs(results(pd.DataFrame()))
    assert table.name == "first_step"
    assert list(table.frame.index) == [
        f"this base, sampler's first of {EMBEDDED.sampling.steps}",
        "Stable Diffusion, sampler's first of 50",
        "this base, training's last",
        "Stable Diffusion, training's last",
    ]
    assert table.frame["signal"].iloc[1] == pytest.approx(0.0759967, abs=1e-6)
    assert table.frame["signal"].iloc[3] == pytest.approx(0.0682649, abs=1e-6)
    assert list(table.frame["step"].iloc[1:]) == [981, 999, 999]
    np.testing.assert_allclose(table.frame["signal"] ** 2 + table.frame["noise"] ** 2, 1, atol=1e-6)


def test_snr_is_that_of_the_mean_over_channels() -> None:
    figure = report.snr(results(pd.DataFrame()))
    signal, noise = (float(x[-1]) for x in signal_and_noise(SCHEDULER.betas))
    assert figure.metrics["snr/lowest"].value == pytest.approx(4.0 * (signal / noise) ** 2)
    assert figure.metrics["snr/median"].value == pytest.approx(2.1 * (signal / noise) ** 2)
    assert figure.metrics["snr/lowest"].n == 12
    assert "n = 12 photographs" in figure.caption


def test_slopes_of_finished_pictures_are_of_those_that_are_painted(tmp_path: Path) -> None:
    """A finished picture's mean is half its first latent's; a flow paints none here."""
    workspace = Workspace(tmp_path)
    first = torch.tensor([[1.0, -1.0], [2.0, 0.0], [-3.0, 4.0]])
    folder = workspace.samples / "signal_leak" / "untuned" / "0" / "white" / "guidance-4"
    folder.mkdir(parents=True)
    order = [2, 0, 1]  # the table of pictures is in another order
    pd.DataFrame({"repeat": 0, "place": order, "prompt": "x", "file": "x.png"}).to_csv(
        folder / "pictures.csv", index=False
    )
    save_file({"latents": (first[order] / 2)[:, :, None, None].repeat(1, 1, 2, 2)}, folder / store.LATENTS)
    write_seal(folder)
    firsts = pd.DataFrame({"repeat": 0, "place": [0, 1, 2] * 2, "channel": [0] * 3 + [1] * 3,
                           "first": first.T.flatten(), "estimated": 0.0})  # fmt: skip
    slope = rows({"white": 0.57, "white-shuffled": -0.04, "flow": 0.02, "flow-shuffled": 0.07}, "slope")
    both = pd.concat([firsts.assign(model="white"), firsts.assign(model="flow")])
    table = report.slopes(replace(results(slope), workspace=workspace, first_steps=both))
    assert list(table.frame["finished picture"]) == ["+0.50", ""]
    assert table.frame.loc["white", "slope"].startswith("+0.57 (+")
    assert table.frame.loc["white", "shuffled"].startswith("-0.04 (-")
    assert isinstance(table.metrics["slope/flow"].value, Interval)
    assert table.metrics["slope/flow"].value.mean == pytest.approx(0.02)
    assert f"n = {EACH} first latents" in table.caption


def test_a_perfect_denoiser_of_unit_variance_reads_its_signal() -> None:
    """alpha S / (alpha^2 S + s^2) with S = 1."""
    alpha = first_step(SCHEDULER, EMBEDDED.sampling.steps).alpha
    assert report.perfect_slope(results(pd.DataFrame())).text.endswith(f"median over channels: {alpha:.2f}")


def test_a_deficit_is_predicted_for_each_schedule() -> None:
    study = params.load(PROFILES / "study.yaml")
    names = ["white", "zero-snr", "matched", "between", "sd-betas"]
    measured = rows({f"{name}-unguided": 0.7 for name in names}, "channel_ratio")
    wide = replace(results(measured, study), leaks={
        "low-1": FrequencyLeak([(0, 0)], np.zeros(CHANNELS), 4 * np.eye(CHANNELS), leak(0.0, 12)),
    })  # fmt: skip
    frame = report.deficits(wide).frame
    assert list(frame.index) == ["this base", *names[1:]]
    step = first_step(SCHEDULER, study.sampling.steps)
    expected = (4 * step.alpha**2 + step.s**2) ** -0.5
    assert frame.loc["this base", "predicted"] == pytest.approx(expected)
    assert frame.loc["zero-snr", "SNR of the mean"] == pytest.approx(0, abs=1e-6)
    assert frame.loc["zero-snr", "predicted"] == pytest.approx(1, abs=1e-6)
    figure = report.deficit(wide)
    assert set(figure.metrics) == {f"deficit/{name}" for name in names}
    n = len(study.protocol.all_repeats) * Config.of(study).pictures
    assert f"n = {n} pictures" in figure.caption


def test_a_flow_whose_first_step_holds_nothing_has_no_deficit() -> None:
    paper = params.load(PROFILES / "paper.yaml")
    measured = rows({f"{name}-unguided": 0.7 for name in ("white", "zero-snr", "flow")}, "channel_ratio")
    wide = replace(results(measured, paper), leaks={
        "low-1": FrequencyLeak([(0, 0)], np.zeros(CHANNELS), 4 * np.eye(CHANNELS), leak(0.0, 12)),
    })  # fmt: skip
    frame = report.deficits(wide).frame
    assert frame.loc["flow", "SNR of the mean"] == pytest.approx(0, abs=1e-5)  # diffusers' path begins at 0.999
    assert frame.loc["flow", "predicted"] == pytest.approx(1, abs=2e-3)


# ------------------------------------------------------------------------------------------------ light


def test_labels_name_every_guided_condition_in_order() -> None:
    assert labels(results(pd.DataFrame())) == {
        "white": "white noise",
        "again": "other white noise",
        "offset": "offset noise 0.1",
        "pixel": "pixel leak",
        "low-1": "frequency leak, N = 1",
        "low-3": "frequency leak, N = 3",
    }
    study = results(pd.DataFrame(), params.load(PROFILES / "study.yaml"))
    assert labels(study)["zero-snr"] == "tuned: zero-snr"
    assert "watercolor" not in labels(study)


@pytest.mark.usefixtures("painted")
def test_diversity_has_what_was_measured() -> None:
    """Without an evaluator there is no CLIP score; reference rows are measured without prompts."""
    measures = [name for name in DIVERSITY if name not in ("clip", "subject")]
    table = pd.concat(rows({cell: float(number) for number, cell in enumerate(NATURAL)}, name) for name in measures)
    shown = report.diversity(results(table))
    assert list(shown.frame.columns) == measures
    assert shown.frame.index[:3].tolist() == ["training split", "these, decoded", "white noise"]
    assert shown.frame.loc["frequency leak, N = 3", "kd"] == 7.0
    assert shown.metrics["kd/low-3"].n == EACH
    assert len(shown.metrics) == len(NATURAL) * len(measures)
    for words in (f"n = {EACH} pictures", "4 repeats", "5 held-out photographs", "5 prompts", "guidance 4"):
        assert words in shown.caption
    prompted = rows(dict.fromkeys(NATURAL[2:], 70.0), "clip")
    with_clip = report.diversity(results(pd.concat([table, prompted])))
    assert with_clip.frame["clip"].isna().sum() == 2
    assert "clip/real" not in with_clip.metrics
    assert with_clip.metrics["clip/pixel"].value.mean == pytest.approx(70)  # type: ignore[union-attr]


@pytest.mark.usefixtures("painted")
def test_pictures_are_the_first_repeat_in_order_of_their_places() -> None:
    shown = results(pd.DataFrame()).pictures("white", 3)
    assert shown[:, 0, 0, 0].tolist() == [3, 2, 1]


@pytest.mark.usefixtures("painted")
def test_sheets_and_densities_are_drawn() -> None:
    measured = pd.concat(rows(dict.fromkeys(NATURAL, 0.5), name) for name in ("luminance_ratio", "contrast_ratio",
                                                                              "channel_ratio"))  # fmt: skip
    known = results(measured)
    sheet = report.natural_sheet(known)
    assert contact_sheets.tiles(sheet.figure).shape[:2] == (
        7,
        10,
    )  # photographs and six conditions; up to ten pictures each
    assert len(report.spread(known).figure.axes[0].get_yticklabels()) == 3 * len(NATURAL)
    assert "all photographs for comparison" in report.luminance(known).caption


@pytest.mark.usefixtures("painted")
def test_first_latents_are_beside_white_noise_that_they_share() -> None:
    shown = report.browser(results(pd.DataFrame()))
    assert shown.rows[0] == "white noise"
    assert "other white noise" not in shown.rows  # whose noise is another
    assert shown.columns[:4] == list("dcba")  # in order of their places, which run backwards


def test_the_prompts_light_is_compared_pairwise() -> None:
    table = pd.concat([rows({"dark": 0.3, "bright": 0.5, "dark+leak": 0.4, "bright+leak": 0.45}, "luminance")])
    shown = report.prompted_light(results(table))
    assert shown.frame.loc["white noise"].tolist() == ["0.300", "0.500", "+0.200 (+0.200 to +0.200)"]
    assert list(shown.frame.columns) == ["'at night'", "'at noon'", "difference"]
    assert shown.metrics["light/difference+leak"].value.mean == pytest.approx(0.05)  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------ styles


def test_styles_are_compared_where_there_are_held_out_works() -> None:
    """One work of Expressionism is held out: too few for a distance, so that it has no row."""
    table = pd.concat([rows(STYLE_CELLS, "kd_haar"), rows({"words-watercolor": 0.9}, "style")])
    shown = report.style_distances(results(table))
    assert isinstance(shown, Table)
    assert set(shown.frame.index.get_level_values("style")) == {"Watercolor"}
    assert len(shown.frame) == 7
    of_style = shown.frame.loc["Watercolor"]
    assert (of_style["held-out works"] == 3).all()
    assert of_style.loc["untuned, words", "style"] == 0.9
    assert of_style.loc["tuned and leak", "change of kd_haar"] == "-0.3 (-0.3 to -0.3)"
    assert of_style.loc["tuned", "change of kd_haar"] == ""
    assert set(shown.metrics) == {f"kd_haar/{name}-watercolor+leak/change" for name in ("words", "tuned")}
    assert f"n = {EACH} pictures" in shown.caption


def test_targets_end_with_all_training_works() -> None:
    known = results(rows(STYLE_CELLS, "kd_haar"))
    shown, drawn = report.targets(known), report.target_changes(known)
    assert isinstance(shown, Table)
    assert isinstance(drawn, Figure)
    assert shown.frame.index.tolist() == [("watercolor", 7), ("watercolor", 9)]
    assert shown.frame["change of kd_haar"].str.slice(0, 4).tolist() == ["-0.5", "-0.3"]
    assert shown.metrics["kd_haar/tuned-watercolor+leak-7/change"].value.mean == pytest.approx(-0.5)  # type: ignore[union-attr]
    assert [label.get_text() for label in drawn.figure.axes[0].get_yticklabels()] == [
        "watercolor, 7 works",
        "watercolor, 9 works",
    ]


@pytest.mark.parametrize("shown", [report.style_distances, report.targets, report.target_changes])
def test_without_held_out_works_a_sentence_says_so(shown) -> None:  # type: ignore[no-untyped-def]
    item = shown(results(rows({"white": 1.0}, "kd")))
    assert isinstance(item, Text)
    assert "nothing is measured" in item.text


def test_shifts_are_of_all_works_of_a_style() -> None:
    shown = report.shifts(results(pd.DataFrame()))
    assert shown.frame.index.tolist() == ["Far", "Near"]
    assert shown.frame["shift"].tolist() == [4.0, 1.0]
    assert shown.frame["n"].tolist() == [40, 30]
    assert shown.frame.loc["Near", "std over natural"] == 2.0


def test_pixel_models_are_decoded_in_three_columns() -> None:
    assert contact_sheets.tiles(report.pixel_models(results(pd.DataFrame())).figure).shape[:2] == (2, 3)


# ------------------------------------------------------------------------------------------------ colour


def test_mean_colour_says_what_goes_one_way() -> None:
    frame = report.mean_colour(results(pd.DataFrame())).frame
    assert frame["monotone"].tolist() == ["yes", "no", "yes", "no", "no", "yes"]
    assert frame.loc[("channel 0", "red"), "from"] == pytest.approx(0.3)
    assert frame.loc[("channel 0", "red"), "to"] == pytest.approx(0.7)
    assert "n = 4" in report.mean_colour(results(pd.DataFrame())).caption


def test_response_has_a_line_a_channel_and_records_whether_colour_obeys() -> None:
    measured = pd.concat([rows({COLOURS: 0.9}, "obeys"), rows({COLOURS: 1.0}, "rank")])
    shown = report.response(results(measured))
    lines = [line for line in shown.figure.axes[0].get_lines() if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(np.asarray(lines[0].get_ydata(), dtype=float), [-1.985, 0.015, 2.015])
    assert shown.metrics["colour/obeys"].n == 24
    assert shown.metrics["colour/rank"].value.mean == pytest.approx(1)  # type: ignore[union-attr]
    assert len([axis for axis in report.colour_response(results(measured)).figure.axes if axis.axison]) == 3


@pytest.mark.usefixtures("painted")
def test_by_hand_shows_one_noise_by_channel_and_value() -> None:
    shown = report.by_hand(results(pd.DataFrame()))
    levels = contact_sheets.tiles(shown.figure)[:, :, 0, 0, 0]
    assert levels.flatten().tolist() == [0, 4, 8, 12, 16, 20]  # the first repeat of each channel and value
    assert contact_sheets.titles(shown.figure) == ["-2", "+0", "+2"]


# ------------------------------------------------------------------------------------------------ exploring


def explorer() -> explore.Explorer:
    rest = leak(0.0, 12, std=0.1)
    means = FrequencyLeak([(0, 0)], np.array([1.0, -1.0]), np.diag([4.0, 9.0]), rest)
    leaks = {"pixel": rest, "low-1": means, "low-3": leak(5.0, 12, std=0.1)}
    return explore.Explorer(SimpleNamespace(scheduler=SCHEDULER), leaks, steps=12)  # type: ignore[arg-type]


def test_explored_latents_share_their_noise_and_add_the_leak() -> None:
    step, white = first_step(SCHEDULER, 12), explorer().first_latents(explore.Choice(seed=3))
    shifted = explorer().first_latents(explore.Choice(explore.FREQUENCIES, 3, seed=3, strength=2.0))
    added = (shifted - step.s * white) / step.alpha
    assert added.mean().item() == pytest.approx(10.0, abs=0.2)
    assert not torch.equal(white, explorer().first_latents(explore.Choice(seed=4)))
    assert explore.Choice(explore.FREQUENCIES, 0).leak == "pixel"


def test_explored_means_are_those_that_are_set() -> None:
    """In standard deviations of pictures' means, of the lowest frequency: over the latent's side."""
    step, white = first_step(SCHEDULER, 12), explorer().first_latents(explore.Choice())
    choice = explore.Choice(explore.FREQUENCIES, 1, means=(2.0, -1.0))
    added = (explorer().first_latents(choice) - step.s * white) / step.alpha
    expected = torch.tensor([1.0 + 2 * 2.0, -1.0 - 3.0]) / SIDE
    torch.testing.assert_close(added.mean((2, 3)), expected.expand(explore.PICTURES, -1), rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------------------------ evidence


@pytest.mark.usefixtures("painted")
def test_headline_names_what_the_page_records() -> None:
    table = pd.concat(rows(dict.fromkeys(NATURAL, 0.5), name) for name in DIVERSITY)
    known = results(pd.concat([table, rows({COLOURS: 0.9}, "obeys"), rows({COLOURS: 1.0}, "rank")]))
    recorded = {**report.diversity(known).metrics, **report.response(known).metrics}
    assert set(report.headline(known)) <= set(recorded)


@pytest.mark.parametrize("values", [2, 3, 5])
def test_a_rank_correlation_changes_by_no_less_than_two_neighbours_exchanged(values: int) -> None:
    order = range(values)
    others = [spearmanr(order, each).statistic for each in permutations(order) if each != tuple(order)]
    assert report.rank_step(values) == pytest.approx(1 - max(others))


def test_equal_ranks_in_all_groups_are_as_certain_as_their_step() -> None:
    ranks = rows({COLOURS: 1.0, "ideal": 1.0}, "rank")
    evidence = report.evidence(results(ranks))
    assert evidence.resolutions["rank", COLOURS] == report.rank_step(len(results(ranks).config.values))
    part = claims.load("signal_leak")["D5"].every_part[1]
    tested = verdicts.compared(part, evidence)
    assert tested is not None
    assert tested.equal
    assert tested.supported_p > 0


def test_evidence_decides_what_was_measured() -> None:
    """Colour obeys; nothing that D4 compares was measured."""
    obeys, rank = rows({COLOURS: 0.9, "nothing": 0.0}, "obeys"), rows({COLOURS: 1.0, "ideal": 1.0}, "rank")
    colour = pd.concat([obeys, rank], ignore_index=True)
    colour.loc[colour["cell"] == COLOURS, "group0"] += 0.05  # differences that are all equal have no interval
    evidence = report.evidence(results(colour))
    decided = {verdict.claim: verdict for verdict in verdicts.decide(claims.load("signal_leak"), evidence)}
    assert decided["D5"].verdict == verdicts.SUPPORTED
    assert decided["D4"].reason is not None
    assert decided["D4"].reason.missing
    assert evidence.counts_of(decided["D5"]) == [EACH, EACH]
    assert evidence.over_of("D5") == "intervals over 4 groups of repeats, 1 training seed"
    assert evidence.null_comparisons == measure.null_comparisons()
