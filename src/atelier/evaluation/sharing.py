"""How works are shared out over groups of repeats, each of which then gives one value."""

from atelier.seeds import evenly


def rows_of_groups(n: int, each: int, groups: int) -> list[list[int]]:
    """Indices of n works in groups of ``each``, or of fewer where there are not enough; no index is used twice.

    Chosen evenly, because works are sorted by style. ValueError where a group would be empty.
    """
    if n < groups:
        raise ValueError(f"works: expected at least one for each of {groups} groups of repeats, got {n}")
    chosen = evenly(n, min(each, n // groups) * groups)
    return [chosen[first::groups] for first in range(groups)]
