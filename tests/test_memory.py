"""Memory is flat in the number of pictures: each stage's peak with four times as many differs by less than 5 %."""

from pathlib import Path

import pytest

from peaks import STAGES, peaks, world

FEW, TIMES = 300, 4  # more than are in memory at once, and than wavelet packets have coefficients


@pytest.mark.long
def test_a_stages_memory_does_not_grow_with_the_number_of_pictures(tiny_world: Path, tmp_path: Path) -> None:
    few, many = (dict(peaks(world(tmp_path / str(pictures), tiny_world, pictures))) for pictures in (FEW, TIMES * FEW))
    grown = {stage: many[stage] / few[stage] - 1 for stage in STAGES}
    print(*(f"{stage}: {few[stage]:.0f} MiB, {many[stage]:.0f} MiB, {grown[stage]:+.1%}" for stage in STAGES), sep="\n")
    assert {stage: round(share, 3) for stage, share in grown.items() if share >= 0.05} == {}
