"""Subjects under the sky: one function each, building its scene from back to front."""

import numpy as np

from atelier.data.painter.frames import Frame
from atelier.data.painter.lights import COLOURS
from atelier.data.painter.shapes import blob, darker, ellipse, lighter, mix, polygon, ribbon, ridge
from atelier.data.painter.stage import BACKDROP, DETAIL, GROUND, INK, WHITE, Stage


def boat(stage: Stage) -> None:
    """Sailing boats on the sea."""
    horizon = stage.between(0.42, 0.6)
    stage.sky()
    if stage.chance(0.5):
        stage.add(ridge(stage.rng, horizon - 0.02, 0.02), (0.35, 0.45, 0.45), part=BACKDROP, far=0.9)
    stage.water(horizon)
    size = {1: 0.44, 2: 0.32, 3: 0.25}[stage.count] * stage.between(0.85, 1.15)
    hull = darker(stage.colour, 0.45) if stage.chance(0.5) else (0.36, 0.2, 0.13)
    for x, near in stage.places(0.2, 0.3):
        frame = Frame(x, horizon + 0.06 + 0.26 * near, size * (0.75 + 0.4 * near), stage.either_side())
        stage.add(frame.ellipse(0, 0.13, 0.52, 0.07), darker(hull, 0.5), part=DETAIL)
        stage.add(frame.ribbon(0.05, 0.035, (0, 0), (0, -1.15)), (0.3, 0.2, 0.14), part=DETAIL)
        stage.add(frame.polygon((0.04, -1.12), (0.04, -0.14), (0.5, -0.16)), stage.colour, volume=0.4, grain=1.3)
        jib = frame.polygon((-0.04, -1.0), (-0.04, -0.14), (-0.36, -0.14))
        stage.add(jib, lighter(stage.colour, 0.45), volume=0.4, grain=1.9)
        stage.add(frame.polygon((-0.55, -0.08), (0.6, -0.08), (0.42, 0.14), (-0.38, 0.14)), hull, volume=0.5)
    stage.phrases.append("on the sea")


def house(stage: Stage) -> None:
    """Houses in a field, gabled or hipped, with lamps lit in the dark."""
    ground = stage.between(0.62, 0.72)
    stage.sky()
    stage.land(ground)
    size = {1: 0.42, 2: 0.3}[stage.count] * stage.between(0.85, 1.1)
    roof = stage.one_of("brown", "grey") if stage.colour == COLOURS["red"] else stage.one_of("brown", "grey", "red")
    cover = (0.94, 0.96, 1.0) if stage.light_name == "snow" else roof
    lamp = (1.0, 0.83, 0.38) if stage.dark() else (0.32, 0.4, 0.5)
    for x, near in stage.places(0.26, 0.25):
        frame = Frame(x, ground + 0.04 + 0.12 * near, size * (0.85 + 0.25 * near), stage.either_side())
        if stage.chance(0.6):
            bush = frame.blob(stage.rng, 0.75, -0.3, 0.24, 0.42)
            stage.add(bush, (0.2, 0.4, 0.2), volume=0.7, grain=0.9, part=GROUND)
        stage.add(frame.box(0.22, -1.12, 0.36, -0.7), darker(roof, 0.35))
        wall = frame.box(-0.5, -0.62, 0.5, 0)
        stage.add(wall, stage.colour, bottom=darker(stage.colour, 0.15), volume=0.35, grain=1.57)
        ridge_top = [(0.3, -1.02)] if stage.chance(0.5) else [(0.0, -1.15)]
        stage.add(frame.mirrored(*ridge_top, (0.62, -0.58)), cover, volume=0.4, grain=0.5)
        stage.add(frame.box(-0.1, -0.36, 0.1, 0), darker(roof, 0.45), part=DETAIL)
        for u in (-0.3, 0.3):
            stage.add(frame.box(u - 0.1, -0.45, u + 0.1, -0.23), lamp, part=DETAIL, shines=stage.dark())
    stage.phrases.append("in a field")
    if stage.dark():
        stage.phrases.append("with lit windows")


def tree(stage: Stage) -> None:
    """Broad trees in a field; the crown has the colour of the season."""
    ground = stage.between(0.66, 0.76)
    stage.sky()
    stage.land(ground)
    size = {1: 0.62, 2: 0.46, 3: 0.36}[stage.count] * stage.between(0.9, 1.12)
    crown = ((-0.2, -0.62, 0.22, -0.25), (0.22, -0.64, 0.21, -0.18), (0.0, -0.84, 0.27, 0.0), (0.02, -0.62, 0.19, 0.12))
    for x, near in stage.places(0.2, 0.3):
        frame, lean = Frame(x, ground + 0.03 + 0.13 * near, size * (0.8 + 0.3 * near)), stage.between(-0.06, 0.06)
        stage.add(frame.ellipse(0, 0, 0.34, 0.05), (0.2, 0.24, 0.2), part=DETAIL)
        trunk = frame.ribbon(0.13, 0.05, (0, 0), (0.4 * lean, -0.35), (lean, -0.75))
        stage.add(trunk, (0.33, 0.22, 0.15), grain=1.57)
        for u, v, r, tone in crown:
            leaves = lighter(stage.colour, tone) if tone > 0 else darker(stage.colour, -tone)
            clump = frame.blob(stage.rng, u + lean, v, 1.05 * r, 0.9 * r)
            stage.add(clump, leaves, volume=0.9, grain=stage.between(0.4, 1.2))
    stage.phrases.append("in a field")


def mountain(stage: Stage) -> None:
    """Peaks with snow caps above a lake or a meadow."""
    base = stage.between(0.66, 0.78)
    stage.sky()
    size = {1: 0.56, 2: 0.46, 3: 0.38}[stage.count] * stage.between(0.9, 1.1)
    rock = mix(stage.colour, (0.45, 0.45, 0.5), 0.25)
    for x, near in stage.places(0.15, 0.4):
        frame, far = Frame(x, base, size * (0.85 + 0.3 * near), stage.either_side()), 0.45 * (1 - near)
        left, right = -stage.between(0.75, 0.95), stage.between(0.75, 0.95)
        peak, shoulder, foot = (0.0, -1.0), (0.45 * right, -0.56), (right, 0.1)
        body = frame.polygon((left, 0.1), (0.4 * left, -0.52), peak, shoulder, foot)
        stage.add(body, rock, volume=0.3, grain=0.9, far=far)
        shade = frame.polygon(peak, shoulder, foot, (0.18 * right, 0.1), (0.1 * right, -0.45))
        stage.add(shade, darker(rock, 0.35), grain=2.2, part=GROUND, far=far)
        hem = ((0.27 * right, -0.72), (0.1 * right, -0.66), (0.0, -0.74), (0.12 * left, -0.64), (0.24 * left, -0.7))
        stage.add(frame.polygon(peak, *hem), (0.97, 0.98, 1.0), volume=0.3, grain=0.9)
    if stage.chance(0.5):
        stage.water(base)
        stage.phrases.append("above a lake")
    else:
        stage.land(base + 0.02)
        stage.phrases.append("above a meadow")


def sun(stage: Stage) -> None:
    """The sun over the sea with its path on the water."""
    horizon, x, r = stage.between(0.5, 0.64), stage.between(0.25, 0.75), stage.between(0.11, 0.17)
    stage.sky()
    frame, glow = Frame(x, horizon - stage.between(0.0, 0.3), r), lighter(stage.colour, 0.3)
    for radius, share in ((1.9, 0.35), (1.45, 0.65)):
        halo = mix(stage.light.sky_low, glow, share)
        stage.add(frame.ellipse(0, 0, radius, radius), halo, part=BACKDROP, shines=True)
    stage.add(frame.ellipse(0, 0, 1, 1), stage.colour, shines=True)
    stage.water(horizon)
    for i in range(6):
        wide = r * (0.9 - 0.07 * i) * stage.between(0.7, 1.25)
        gleam = ellipse(x + stage.between(-0.03, 0.03), horizon + 0.03 + 0.068 * i, wide, 0.017)
        stage.add(gleam, glow, part=DETAIL, shines=True)
    stage.phrases.append("over the sea")
    if stage.chance(0.4):
        rock = blob(stage.rng, 0.0 if x > 0.5 else 1.0, horizon + 0.02, 0.26, 0.11)
        stage.add(rock, (0.22, 0.22, 0.25), volume=0.4, grain=0.4, part=GROUND)
        stage.phrases.append("and a dark rock")


def bird(stage: Stage) -> None:
    """Birds on a branch."""
    stage.sky()
    stage.land(stage.between(0.82, 0.95))
    y, tilt = stage.between(0.64, 0.72), stage.between(-0.06, 0.06)
    branch = ribbon([(-0.05, y - tilt), (0.5, y + 0.02), (1.05, y + tilt)], 0.055, 0.03)
    stage.add(branch, (0.32, 0.21, 0.15), volume=0.3, part=GROUND)
    leaf = (0.93, 0.95, 0.98) if stage.light_name == "snow" else (0.28, 0.5, 0.22)
    for x in stage.rng.uniform(0.0, 1.0, 6):
        twig = ellipse(x, y + stage.between(-0.05, 0.06), 0.055, 0.024, stage.between(0.3, 2.8), 12)
        stage.add(twig, leaf, grain=0.8, part=GROUND)
    size = {1: 0.27, 2: 0.185}[stage.count] * stage.between(0.9, 1.1)
    for x, _ in stage.places(0.22, 0.2):
        frame = Frame(x, y - 0.68 * size, size, stage.either_side())
        for u in (-0.1, 0.16):
            stage.add(frame.ribbon(0.06, 0.06, (u, 0.38), (u, 0.68)), (0.6, 0.35, 0.12), part=DETAIL)
        tail = frame.polygon((-0.5, -0.15), (-1.4, 0.4), (-1.2, 0.66), (-0.35, 0.35))
        stage.add(tail, darker(stage.colour, 0.35), grain=0.5)
        body = frame.ellipse(0, 0, 0.72, 0.5, -0.45)
        stage.add(body, stage.colour, bottom=lighter(stage.colour, 0.35), volume=0.6, grain=0.6)
        stage.add(frame.polygon((0.86, -0.86), (1.36, -0.62), (0.84, -0.5)), (0.95, 0.6, 0.12), part=DETAIL)
        stage.add(frame.ellipse(0.52, -0.64, 0.4, 0.38), lighter(stage.colour, 0.08), volume=0.5, grain=0.6)
        stage.add(frame.ellipse(-0.16, 0.04, 0.5, 0.25, -0.35), darker(stage.colour, 0.3), volume=0.3, grain=0.4)
        stage.add(frame.disc(0.62, -0.7, 0.11), WHITE, part=DETAIL)
        stage.add(frame.disc(0.64, -0.7, 0.065), INK, part=DETAIL)
    stage.phrases.append("on a branch")


def bridge(stage: Stage) -> None:
    """A stone bridge with one to three arches over a river."""
    stage.sky()
    bank = stage.between(0.5, 0.58)
    river = bank + 0.1
    stage.land(bank)
    stage.water(river)
    hump, deck, foot = stage.between(0.02, 0.1), bank - stage.between(0.02, 0.1), river + stage.between(0.1, 0.16)
    stone = mix(stage.colour, (0.66, 0.6, 0.52), 0.3)
    way = [
        (-0.1, deck + 0.02),
        *((x, deck - hump * np.sin(np.pi * x)) for x in np.linspace(0, 1, 15)),
        (1.1, deck + 0.02),
    ]
    stage.add(polygon(*way, (1.1, foot), (-0.1, foot)), stone, bottom=darker(stone, 0.2), volume=0.25)
    under = mix(stage.light.sky_low, (0.25, 0.45, 0.55), 0.5)
    under = darker(under, 0.55 if stage.light_name == "night" else 0.12)
    width = {1: 0.34, 2: 0.2, 3: 0.135}[stage.count]
    rise = min(width * 1.15, foot - deck - 0.06 + hump * 0.7)
    for i in range(stage.count):
        for shift, colour, shines in ((0.0, darker(stone, 0.62), False), (0.022, under, True)):
            x = (i + 0.5) / stage.count + shift
            arch = [(x + width * np.cos(t), foot - rise * np.sin(t)) for t in np.linspace(0, np.pi, 15)]
            opening = polygon(*arch, (x - width, foot + 0.01), (x + width, foot + 0.01))
            stage.add(opening, colour, part=GROUND, shines=shines)
    parapet = polygon(*[(x, y - 0.03) for x, y in way], *[(x, y + 0.018) for x, y in way[::-1]])
    stage.add(parapet, darker(stone, 0.3), part=DETAIL)
    stage.phrases.append({1: "with one arch", 2: "with two arches", 3: "with three arches"}[stage.count])
