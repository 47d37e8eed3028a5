"""Planted defects, the network that sees them, and whether it may judge."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.data.painter import paint_corpus
from atelier.evaluation import defects as evaluation
from atelier.machine import accelerator
from atelier.models import defect_judge as judges
from atelier.params import Machine, Optimisation
from atelier.training import defect_judge as training
from atelier.training.defects import DEFECTS, NAMES, SPECKLED, planted
from atelier.training.loop import fit

SIDE = 64
KINDS: tuple[judges.Kind, ...] = ("plain", "residual")


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    pixels, _, _ = paint_corpus(6, 6, 5, SIDE, 1)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="module")
def chance(pictures: Tensor) -> Tensor:
    return torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))


def alone(pictures: Tensor, strength: float, chance: Tensor, defect: str) -> Tensor:
    return planted(pictures / 255, torch.full((len(pictures), 1), strength), chance, [defect])


# ------------------------------------------------------------------------------------------------ planted defects


@pytest.mark.parametrize("defect", NAMES)
def test_a_defect_grows_with_its_strength_and_is_none_at_0(pictures: Tensor, chance: Tensor, defect: str) -> None:
    clean = pictures / 255
    assert torch.equal(alone(pictures, 0.0, chance, defect), clean)
    raw = DEFECTS[defect](clean, torch.zeros(len(clean)), chance)
    torch.testing.assert_close(raw, clean, rtol=0, atol=1e-5)
    errors = [
        (alone(pictures, strength, chance, defect) - clean).square().mean((1, 2, 3))
        for strength in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    assert bool((torch.stack(errors).diff(dim=0) > 0).float().mean() > 0.9)  # clipping may hide some
    assert float(errors[-1].mean()) > 1e-3


@pytest.mark.parametrize("defect", NAMES)
def test_a_pictures_defect_does_not_depend_on_the_others_in_its_batch(
    pictures: Tensor, chance: Tensor, defect: str
) -> None:
    whole = alone(pictures, 0.7, chance, defect)
    one = alone(pictures[3:4], 0.7, chance[3:4], defect)
    torch.testing.assert_close(whole[3:4], one, rtol=0, atol=1e-5)


def test_several_defects_are_planted_each_by_its_own_column(pictures: Tensor, chance: Tensor) -> None:
    strengths = torch.zeros(len(pictures), len(NAMES))
    strengths[0, NAMES.index("blur")] = 0.8
    made = planted(pictures / 255, strengths, chance)
    assert torch.equal(made[1:], pictures[1:] / 255)
    torch.testing.assert_close(made[:1], alone(pictures[:1], 0.8, chance[:1], "blur"))
    strengths[0, NAMES.index("cast")] = 0.8
    both = planted(pictures[:1] / 255, strengths[:1], chance[:1])
    after = alone((255 * made[:1]), 0.8, chance[:1], "cast")
    torch.testing.assert_close(both, after, rtol=0, atol=0.02)
    with pytest.raises(ValueError, match=r"strengths: expected \(12, 6\), got \(12, 2\)"):
        planted(pictures / 255, strengths[:, :2], chance)


def test_defects_are_what_their_names_say(pictures: Tensor, chance: Tensor) -> None:
    clean = pictures / 255
    cast = DEFECTS["cast"](clean, torch.ones(len(clean)), chance) - clean
    torch.testing.assert_close(cast.mean(1), torch.zeros_like(cast[:, 0]), rtol=0, atol=1e-6)  # no brighter, no darker
    assert float(cast.std((2, 3)).max()) < 1e-6  # everywhere the same
    spots = (alone(pictures, 1.0, chance, "speckle") != clean).any(1).float().mean((1, 2))
    assert float(spots.max()) <= SPECKLED + 1 / SIDE**2
    pattern = torch.fft.rfft2(DEFECTS["checkerboard"](clean, torch.ones(len(clean)), chance) - clean).abs().square()
    rows, columns = torch.fft.fftfreq(SIDE)[:, None].abs(), torch.fft.rfftfreq(SIDE)
    finest = (rows > 0.4) | (columns > 0.4)
    assert bool((pattern[..., finest].sum(-1) > 0.9 * pattern.flatten(2).sum(-1)).all())
    changed = (alone(pictures, 1.0, chance, "lost") - clean).abs().amax(1) > 0.02
    assert float(changed.float().mean()) < 0.4  # one part only


# ------------------------------------------------------------------------------------------------ the judge


@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_is_loaded_as_it_was_saved(pictures: Tensor, kind: judges.Kind, tmp_path: Path) -> None:
    judge = judges.build(kind, NAMES, 3)
    judges.save(judge, tmp_path, {"steps": 0})
    again = judges.load(tmp_path)
    seen = again(pictures / 255)
    assert seen.shape == (len(pictures), len(NAMES))
    assert bool(((seen >= 0) & (seen <= 1)).all())
    torch.testing.assert_close(seen, judge(pictures / 255), rtol=0, atol=0.02)  # half precision
    torch.testing.assert_close(again.score(pictures / 255, batch=5), seen.sum(1))
    assert again.defects == NAMES
    other = judges.build(kind, NAMES, 4).state_dict()
    assert not all(torch.equal(value, other[name]) for name, value in judge.state_dict().items())


def test_a_folder_that_is_no_judge_is_refused_in_a_line(tmp_path: Path) -> None:
    judges.save(judges.build("plain", NAMES, 3), tmp_path, {})
    config = tmp_path / judges.CONFIG
    for text, said in (
        ('{"kind": "large", "defects": ["blur"]}', "kind: expected one of plain, residual, got 'large'"),
        ('{"kind": "plain", "defects": []}', r"defects: expected names, got \[\]"),
        ('{"kind": "plain", "defects": ["blur"]}', "judge.safetensors"),
    ):
        config.write_text(text)
        with pytest.raises(ValueError, match=said) as caught:
            judges.load(tmp_path)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_learns_to_order_a_checkerboard(kind: judges.Kind, tmp_path: Path) -> None:
    """In a minute, on few pictures, one of its defects."""
    pixels, _, _ = paint_corpus(20, 20, 6, SIDE, 1)
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2)[..., :32, :32].contiguous()
    names = [f"p{number}" for number in range(len(pictures))]
    judge = judges.build(kind, ["checkerboard"], 3)
    here = accelerator(Machine(threads=1, device="cpu", precision="fp32"))
    task = training.task(judge, pictures, pictures, names, 1, here.device)
    optimisation = Optimisation(
        steps=60, batch=16, learning_rate=0.003, decay="cosine", warmup=5, beta2=0.99,
        weight_decay=0.0, clip=1.0, ema=0, checkpoint_every=60,
    )  # fmt: skip
    fit(task, optimisation, seed=1, scratch=tmp_path, accelerator=here)
    judge.eval()
    assert evaluation.in_order(judge, pictures, names, 9)["checkerboard"].mean() > 0.85


# ------------------------------------------------------------------------------------------------ whether it may judge


class Stub:
    """A judge that scores by one number a picture."""

    defects = ("blur", "cast")

    def __init__(self, score: Any) -> None:
        self.score = score


def test_pairs_are_in_order_where_the_stronger_defect_scores_higher(pictures: Tensor) -> None:
    names = [str(number) for number in range(len(pictures))]
    clean = pictures / 255

    def distance(made: Tensor) -> Tensor:
        return (made - clean).square().mean((1, 2, 3))

    for score, share in ((distance, 1.0), (lambda made: -distance(made), 0.0), (lambda made: torch.zeros(12), 0.5)):
        right = evaluation.in_order(Stub(score), pictures, names, 1)  # type: ignore[arg-type]
        assert set(right) == {"blur", "cast"}
        np.testing.assert_array_equal(right["blur"], share)


def test_pairs_depend_on_seed_and_name_alone(pictures: Tensor) -> None:
    names = [str(number) for number in range(len(pictures))]
    more, less = evaluation.planted_pairs(pictures, names, "lost", 1)
    again = evaluation.planted_pairs(pictures[4:6], names[4:6], "lost", 1)
    torch.testing.assert_close((more[4:6], less[4:6]), again, rtol=0, atol=1e-6)
    other, _ = evaluation.planted_pairs(pictures, names, "lost", 2)
    assert not torch.equal(more, other)


# ------------------------------------------------------------------------------------------------ two models' pictures


def test_repeatability_is_what_scores_of_the_same_pictures_differ_by() -> None:
    """Of a normal error of deviation s in each score: 1.96 sqrt(2) s."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=40_000) * 5
    first, again = (truth + 0.3 * rng.normal(size=len(truth)) for _ in range(2))
    assert evaluation.repeatability(first, again) == pytest.approx(1.96 * 2**0.5 * 0.3, rel=0.02)
    assert evaluation.repeatability(truth, truth) == 0
    assert evaluation.repeatability([0, 0, 0, 0], [1, -1, 1, -1]) == 1
    ties = evaluation.outcomes(first, again, evaluation.repeatability(first, again))
    assert (ties == 0).mean() == pytest.approx(0.95, abs=1e-3)  # models that do not differ


def test_outcomes_are_ties_within_the_width_and_antisymmetric() -> None:
    first, second = [1.0, 2.0, 3.0, 4.0, -1.0], [1.0, 1.5, 2.0, 6.0, -0.5]
    np.testing.assert_array_equal(evaluation.outcomes(first, second, 0.5), [0, 0, 1, -1, 0])
    np.testing.assert_array_equal(evaluation.outcomes(first, second, 0), [0, 1, 1, -1, -1])
    for width in (0.0, 0.5, 1.0, 3.0):
        forward, back = evaluation.outcomes(first, second, width), evaluation.outcomes(second, first, width)
        np.testing.assert_array_equal(forward, -back)
    assert evaluation.shares([1, 1, 0, -1]) == {"win": 0.5, "tie": 0.25, "lose": 0.25, "net": 0.25}
    assert evaluation.shares([0.0]) == {"win": 0.0, "tie": 1.0, "lose": 0.0, "net": 0.0}


def test_the_error_of_wins_less_losses_is_that_of_a_mean_of_outcomes() -> None:
    """And, of the paper's tables at 600 prompts, z = 9.5 (DiT) and 1.8 (LDM 1.5), as methods.md has it."""
    each = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], 500, p=(0.2, 0.5, 0.3))
    share = evaluation.shares(each)
    assert evaluation.net_error(share["win"], share["lose"], 500) == pytest.approx(each.std() / 500**0.5, rel=1e-12)
    for win, lose, z in ((0.328, 0.093, 9.5), (0.293, 0.24, 1.8), (0.310, 0.197, 3.9), (0.183, 0.115, 3.1)):
        assert (win - lose) / evaluation.net_error(win, lose, 600) == pytest.approx(z, abs=0.05)
    assert evaluation.net_error(1.0, 0.0, 10) == 0


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="first, second: expected as many scores, at least one, got 2 and 1"):
        evaluation.outcomes([1.0, 2.0], [1.0], 0.1)
    with pytest.raises(ValueError, match="scores, again: not all finite"):
        evaluation.repeatability([1.0, np.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match="width"):
        evaluation.outcomes([1.0], [1.0], -1)
    with pytest.raises(ValueError, match="each: expected outcomes"):
        evaluation.shares([0.5])
    with pytest.raises(ValueError, match=r"win, lose: expected shares of the same pairs, got 0.8 and 0.3"):
        evaluation.net_error(0.8, 0.3, 10)
