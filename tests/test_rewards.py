"""Rewards: exact functions of pixels, what they see of the painter's own pictures, and probes with a known answer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from atelier.data.painter import paint_work
from atelier.evaluation import rewards
from atelier.evaluation.rewards import COLOURS, Probe, brightness, colour, colour_named, hue, load_probes, save_probes

WORKS = [paint_work(991, number) for number in range(160)]
PICTURES = torch.from_numpy(np.stack([work.picture for work in WORKS])).permute(0, 3, 1, 2).contiguous()
RGB = {
    "red": (212, 41, 36), "orange": (240, 130, 33), "yellow": (245, 204, 56), "green": (64, 143, 61),
    "blue": (41, 97, 194), "violet": (128, 74, 168), "pink": (242, 148, 173),
}  # fmt: skip


def plain(*halves: tuple[int, int, int]) -> Tensor:
    """A picture of equal stripes."""
    rows = [torch.tensor(half, dtype=torch.uint8).view(3, 1, 1).expand(3, 12 // len(halves), 8) for half in halves]
    return torch.cat(rows, 1)[None]


# ------------------------------------------------------------------------------------------------ pixels


def test_a_colour_is_the_share_of_saturated_pixels() -> None:
    grey, black = (128, 126, 125), (20, 4, 4)
    for name, rgb in RGB.items():
        assert colour(plain(rgb), [f"a {name} boat"]).tolist() == [1.0]
        assert colour(plain(rgb, grey, black), [f"a {name} boat"]).tolist() == [1.0]
        others = [other for other in COLOURS if other != name]
        assert [colour(plain(rgb), [f"the {other} cat"])[0] for other in others] == [0.0] * len(others)
    assert colour(plain(RGB["red"], RGB["red"], RGB["blue"]), ["two red boats"])[0] == pytest.approx(2 / 3)
    assert colour(plain(grey), ["a red boat"]).tolist() == [0.0]


def test_hues_are_those_of_the_standard_library() -> None:
    import colorsys

    pixels = torch.randint(256, (1, 3, 20, 20), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    found, _ = hue(pixels)
    flat = (pixels[0].flatten(1).T.double() / 255).tolist()
    expected = np.array([colorsys.rgb_to_hsv(*rgb)[0] * 360 for rgb in flat])
    np.testing.assert_allclose(found.flatten(), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a red boat at dawn, Cubism by Ada", "red"),
        ("The Orange fish", "orange"),
        ("a boat", None),
        ("a red boat and a blue house", None),
        ("a coloured boat of redwood", None),
        ("a grey cat", None),
    ],
)
def test_a_prompt_names_one_colour_or_none(prompt: str, name: str | None) -> None:
    assert colour_named(prompt) == name


def test_brightness_is_the_mean_luminance() -> None:
    found = brightness(torch.cat([plain((255, 255, 255)), plain((0, 0, 0)), plain((0, 255, 0), (0, 0, 0))]))
    np.testing.assert_allclose(found, [1.0, 0.0, 0.7152 / 2])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one colour of"):
        colour(plain((1, 2, 3)), ["a boat"])
    with pytest.raises(ValueError, match="expected one a picture, 1, got 2"):
        colour(plain((1, 2, 3)), ["a red boat", "a red boat"])
    with pytest.raises(ValueError, match="pictures"):
        brightness(torch.rand(1, 3, 4, 4))


# ------------------------------------------------------------------------------------------------ painted works


def test_titles_name_the_colour_that_was_painted() -> None:
    named = [(colour_named(work.title), work.colour) for work in WORKS]
    assert all(found in (None, truth) for found, truth in named)
    assert np.mean([found is not None for found, _ in named]) > 0.25


def test_painted_colours_are_seen_for_most_hues() -> None:
    """The subject covers a part, and light and mood shift its colour: more of it on average."""
    truth, wins = np.array([work.colour for work in WORKS]), {}
    for name in COLOURS:
        found = colour(PICTURES, [name] * len(WORKS))
        own, other = found[truth == name], found[truth != name]
        wins[name] = np.mean((own[:, None] > other) + 0.5 * (own[:, None] == other))
    assert np.mean(list(wins.values())) > 0.55, wins


def test_a_count_of_objects_is_not_told_by_pixels() -> None:
    """Connected pixels of the named colour: right in far less than 80 %, so that a count is no reward here."""
    hues, saturated = hue(PICTURES)
    names = np.array([name for _, name in rewards.HUES])
    names = names[np.searchsorted([low for low, _ in rewards.HUES], hues, side="right") - 1]
    right = []
    for number, work in enumerate(WORKS):
        if work.colour in COLOURS and work.subject not in ("bridge", "sun", "face"):
            parts, count = ndimage.label((names[number] == work.colour) & saturated[number], np.ones((3, 3)))
            sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
            right.append((sizes >= 12).sum() == work.count)
    assert np.mean(right) < 0.5


# ------------------------------------------------------------------------------------------------ probes


def gaussians(n: int, seed: int) -> tuple[Tensor, list[str]]:
    """Two classes in three dimensions of very different scales, at a Mahalanobis distance of 2."""
    generator = torch.Generator().manual_seed(seed)
    labels = ["a", "b"] * (n // 2)
    rows = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    rows[1::2, 0] += 2
    return rows * torch.tensor([1.0, 100.0, 0.01], dtype=torch.float64), labels


def test_a_probe_finds_the_posterior_of_gaussian_classes() -> None:
    """p(b | x) = sigmoid(2 x - 2) for classes of equal weight at 0 and 2; shrinkage bends it a little."""
    probe = Probe.fit(*gaussians(20_000, seed=1))
    rows, labels = gaussians(2000, seed=2)
    expected = torch.sigmoid(2 * rows[:, 0] - 2).numpy()
    found = probe.probability(rows, ["b"] * len(rows))
    assert np.abs(found - expected).max() < 0.05
    far = probe.probability(torch.tensor([[-40.0, 0, 0], [-20.0, 0, 0]], dtype=torch.float64), ["b", "b"])
    assert 0 < far[0] < far[1] < 1e-12  # in order, however unlikely both are
    assert probe.accuracy(rows, labels) == pytest.approx(0.841, abs=0.03)  # Phi(1)


def test_a_probe_of_many_features_and_few_rows_is_not_too_sure() -> None:
    """Its mean log-probability of new rows' classes is higher than without the temperature, and its order the same."""
    generator = torch.Generator().manual_seed(4)

    def drawn(n: int) -> tuple[Tensor, list[str]]:
        rows = torch.randn(n, 100, generator=generator, dtype=torch.float64)
        rows[1::2, :10] += 0.7
        return rows, ["a", "b"] * (n // 2)

    learnt, new = drawn(160), drawn(2000)
    probe, sure = Probe.fit(*learnt), Probe._discriminant(*learnt)
    assert np.log(probe.probability(*new)).mean() > np.log(sure.probability(*new)).mean() + 0.1
    assert (
        np.argsort(probe.probability(new[0], ["b"] * 2000)) == np.argsort(sure.probability(new[0], ["b"] * 2000))
    ).all()


def test_probes_are_read_as_they_were_written(tmp_path: Path) -> None:
    probe = Probe.fit(*gaussians(100, seed=1))
    save_probes({"subject": probe}, tmp_path, {"network": "trunk"})
    found = load_probes(tmp_path)["subject"]
    assert found.classes == probe.classes
    assert torch.equal(found.weight, probe.weight)
    assert torch.equal(found.bias, probe.bias)
    with pytest.raises(ValueError, match="'c' is none of a, b"):
        found.probability(torch.zeros(1, 3, dtype=torch.float64), ["c"])
