"""Subjects in a room, and one in an aquarium: one function each, building its scene from back to front."""

import numpy as np

from atelier.data.painter.frames import Frame
from atelier.data.painter.lights import COLOURS
from atelier.data.painter.shapes import box, darker, ellipse, lighter, mix, ribbon, ridge, rosette
from atelier.data.painter.stage import BACKDROP, DETAIL, GROUND, INK, WHITE, Stage


def face(stage: Stage) -> None:
    """A head and shoulders; brows and mouth follow the mood."""
    stage.room(1.2)
    frame = Frame(stage.between(0.42, 0.58), stage.between(0.4, 0.47), stage.between(0.85, 1.1))
    skin = mix((0.95, 0.77, 0.64), (0.5, 0.32, 0.22), stage.between(0.0, 0.85) ** 1.4)
    hair, long_hair = stage.one_of("black", "brown", "brown", "orange", "yellow", "grey"), stage.chance(0.55)
    if long_hair:
        stage.add(frame.blob(stage.rng, 0, 0.08, 0.27, 0.37, 0.05), darker(hair, 0.2), volume=0.5, grain=1.5)
    coat = frame.mirrored((0.12, 0.31), (0.36, 0.42), (0.46, 1.0))
    stage.add(coat, stage.colour, bottom=darker(stage.colour, 0.25), volume=0.4, grain=1.1)
    stage.add(frame.box(-0.085, 0.16, 0.085, 0.36), darker(skin, 0.18), grain=1.57)
    stage.add(frame.ellipse(0, 0, 0.205, 0.27), skin, volume=0.85, grain=1.3)
    crown = [(0.23 * np.cos(t), 0.29 * np.sin(t) - 0.02) for t in np.linspace(np.pi, 2 * np.pi, 15)]
    fringe = frame.polygon(*crown, (0.17, -0.1), (stage.between(-0.12, 0.12), -0.2), (-0.17, -0.1))
    stage.add(fringe, hair, volume=0.5, grain=0.4)
    look, droop = stage.between(-0.025, 0.025), 0.025 * stage.smile
    for u in (-0.088, 0.088):
        stage.add(frame.ellipse(u, -0.02, 0.05, 0.03), mix(WHITE, skin, 0.15), part=DETAIL)
        stage.add(frame.disc(u + look, -0.02, 0.028), INK, part=DETAIL)
        inner, outer = 0.3 * u, 1.7 * u
        brow = frame.ribbon(0.028, 0.028, (inner, -0.085 - droop), (outer, -0.085 + droop))
        stage.add(brow, darker(hair, 0.4), part=DETAIL)
    stage.add(frame.polygon((0, -0.01), (0.04, 0.1), (-0.03, 0.1)), darker(skin, 0.28), part=DETAIL)
    bend = 0.045 * stage.smile
    mouth = frame.ribbon(0.036, 0.036, (-0.085, 0.165 - bend), (0, 0.165 + bend), (0.085, 0.165 - bend))
    stage.add(mouth, (0.66, 0.16, 0.17), part=DETAIL)
    stage.phrases.append("with long hair" if long_hair else "with short hair")


def flowers(stage: Stage) -> None:
    """A bunch of flowers in a vase."""
    table = stage.between(0.72, 0.8)
    stage.room(table)
    frame = Frame(stage.between(0.4, 0.6), table + stage.between(0.06, 0.12), stage.between(0.9, 1.1))
    stage.add(frame.ellipse(0.08, 0, 0.2, 0.03), (0.2, 0.17, 0.17), part=DETAIL)
    spread = (np.arange(stage.count) + 0.5) / stage.count
    heads = np.stack([0.66 * (spread - 0.5), -0.58 - 0.2 * np.sin(np.pi * spread)], axis=1)
    heads = heads + stage.rng.uniform((-0.03, -0.07), (0.03, 0.07), heads.shape)
    for u, v in heads:
        stem = frame.ribbon(0.022, 0.016, (0, -0.28), (u / 2, (v - 0.3) / 2 - 0.02), (u, v))
        stage.add(stem, (0.2, 0.42, 0.18), part=DETAIL)
    for _ in range(4):
        leaf = frame.ellipse(stage.between(-0.2, 0.2), -stage.between(0.36, 0.5), 0.09, 0.035, stage.between(0.0, 3.1))
        stage.add(leaf, (0.22, 0.46, 0.2), volume=0.4, grain=0.8, part=GROUND)
    radius = {3: 0.156, 5: 0.132}.get(stage.count, 0.116)
    heart = (0.5, 0.28, 0.1) if stage.colour == COLOURS["yellow"] else (0.98, 0.78, 0.2)
    for u, v in heads:
        turn = stage.between(0.0, 6.28)
        petals, inner = frame.place(rosette(u, v, radius, turn)), frame.place(rosette(u, v, 0.6 * radius, turn + 0.63))
        stage.add(petals, stage.colour, bottom=lighter(stage.colour, 0.2), volume=0.5, grain=turn)
        stage.add(inner, lighter(stage.colour, 0.22), part=DETAIL)
        stage.add(frame.disc(u, v, 0.25 * radius), heart, part=DETAIL)
    wide = stage.between(0.85, 1.15)
    profile = [(wide * u, v) for u, v in ((0.07, -0.36), (0.055, -0.29), (0.13, -0.17), (0.12, -0.07), (0.07, 0.0))]
    vase = stage.one_of("blue", "white", "green", "brown", "violet")
    stage.add(frame.mirrored(*profile), vase, volume=0.9, grain=1.4)
    stage.phrases.append("in a vase")


def apples(stage: Stage) -> None:
    """A still life: apples on a table, sometimes before a bowl."""
    table = stage.between(0.42, 0.55)
    stage.room(table)
    stage.phrases.append("on a table")
    if stage.chance(0.4):
        frame, ware = Frame(stage.between(0.3, 0.7), table - 0.07, 0.3), stage.one_of("blue", "white", "green", "grey")
        rim = [(np.cos(t), np.sin(t)) for t in np.linspace(0, np.pi, 15)]
        stage.add(frame.polygon(*rim), ware, volume=0.7, grain=0.2, part=GROUND)
        stage.add(frame.ellipse(0, 0, 1, 0.17), darker(ware, 0.45), part=GROUND)
        stage.phrases.append("before a bowl")
    size = {2: 0.165, 3: 0.14, 4: 0.13}.get(stage.count, 0.115) * stage.between(0.9, 1.1)
    for x, near in stage.places(0.12, 0.3):
        frame = Frame(x, table + 0.1 + (0.78 - table) * near, size * (0.85 + 0.25 * near))
        fruit = mix(stage.colour, stage.one_of("yellow", "red", "green"), stage.between(0.0, 0.22))
        stage.add(frame.ellipse(0.5, 0.78, 1.15, 0.3), (0.2, 0.15, 0.15), part=DETAIL)
        skin = frame.blob(stage.rng, 0, 0, 1, 0.94, 0.03)
        stage.add(skin, lighter(fruit, 0.08), bottom=darker(fruit, 0.2), volume=1.0, grain=1.3)
        stage.add(frame.ellipse(0, -0.72, 0.3, 0.11), darker(fruit, 0.5), part=DETAIL)
        stage.add(frame.ribbon(0.14, 0.14, (0, -0.7), (0.12, -1.25)), (0.3, 0.2, 0.12), part=DETAIL)
        stage.add(frame.ellipse(0.42, -1.12, 0.34, 0.15, -0.5), (0.26, 0.52, 0.2), part=DETAIL)
        stage.add(frame.ellipse(-0.38, -0.34, 0.17, 0.13, 0.6), lighter(fruit, 0.6), part=DETAIL)


def cat(stage: Stage) -> None:
    """Sitting cats."""
    floor = stage.between(0.66, 0.78)
    stage.room(floor)
    size = {1: 0.62, 2: 0.46}[stage.count] * stage.between(0.9, 1.08)
    fur, eye = stage.colour, lighter(stage.one_of("yellow", "green", "orange"), 0.15)
    for x, near in stage.places(0.26, 0.25):
        frame = Frame(x, floor + 0.08 + 0.08 * near, size, stage.either_side())
        stage.add(frame.ellipse(0.06, 0, 0.36, 0.05), (0.17, 0.14, 0.15), part=DETAIL)
        tail = frame.ribbon(0.12, 0.07, (0.18, -0.06), (0.42, -0.07), (0.52, -0.22), (0.45, -0.42))
        stage.add(tail, darker(fur, 0.15), grain=1.2)
        body = frame.mirrored((0.1, -0.66), (0.2, -0.4), (0.28, -0.12), (0.22, 0.01))
        stage.add(body, fur, bottom=darker(fur, 0.12), volume=0.7, grain=1.4)
        stage.add(frame.ellipse(0, -0.26, 0.09, 0.2), lighter(fur, 0.3), grain=1.5, part=DETAIL)
        for a in (-1, 1):
            ear = frame.polygon((0.04 * a, -0.78), (0.18 * a, -1.03), (0.22 * a, -0.76))
            inner = frame.polygon((0.085 * a, -0.8), (0.165 * a, -0.95), (0.175 * a, -0.79))
            stage.add(ear, fur, grain=1.5)
            stage.add(inner, mix(fur, COLOURS["pink"], 0.6), part=DETAIL)
        stage.add(frame.ellipse(0, -0.7, 0.22, 0.185), lighter(fur, 0.06), volume=0.7, grain=1.3)
        for a in (-1, 1):
            stage.add(frame.ellipse(0.09 * a, -0.72, 0.052, 0.045), eye, part=DETAIL)
            stage.add(frame.ellipse(0.09 * a, -0.72, 0.02, 0.04), INK, part=DETAIL)
        stage.add(frame.polygon((-0.035, -0.65), (0.035, -0.65), (0, -0.61)), (0.85, 0.45, 0.5), part=DETAIL)
    stage.phrases.append("on the floor")


def fish(stage: Stage) -> None:
    """Fish in clear water, among weeds."""
    deep = COLOURS["green"] if stage.chance(0.33) else COLOURS["blue"]
    sea = mix(deep, (0.25, 0.65, 0.75), 0.5)
    stage.add(box(-0.1, -0.1, 1.1, 1.1), lighter(sea, 0.35), bottom=darker(sea, 0.35), part=BACKDROP)
    stage.add(ridge(stage.rng, stage.between(0.84, 0.92), 0.02), (0.83, 0.73, 0.52), grain=0.1, part=GROUND)
    for _ in range(int(stage.rng.integers(2, 6))):
        x, h = stage.between(0.03, 0.97), stage.between(0.15, 0.4)
        weed = ribbon([(x, 0.95), (x + 0.04, 0.95 - 0.4 * h), (x - 0.03, 0.95 - 0.75 * h), (x, 0.95 - h)], 0.05, 0.015)
        stage.add(weed, (0.16, 0.42, 0.25), grain=1.57, part=GROUND)
    size = {1: 0.36, 2: 0.25, 3: 0.19}[stage.count] * stage.between(0.9, 1.1)
    side, t = stage.either_side(), np.linspace(0, 2 * np.pi, 26)
    fin, outline = darker(stage.colour, 0.25), np.stack([np.cos(t), 0.52 * np.sin(t) * (1 + 0.25 * np.cos(t))], axis=1)
    for i, (x, near) in enumerate(stage.places(0.28 if stage.count > 1 else 0.45, 0.2)):
        y = 0.46 if stage.count == 1 else 0.22 + 0.5 * (i + 0.3) / stage.count
        frame = Frame(x, y, size * (0.85 + 0.3 * near), side)
        stage.add(frame.polygon((-0.8, 0), (-1.4, -0.42), (-1.22, 0), (-1.4, 0.42)), fin, grain=0.3)
        stage.add(frame.polygon((0.3, -0.5), (-0.35, -0.8), (-0.45, -0.35)), fin, grain=0.8)
        belly = lighter(stage.colour, 0.4)
        stage.add(frame.place(outline), lighter(stage.colour, 0.05), bottom=belly, volume=0.6, grain=0.15)
        gill = frame.ribbon(0.07, 0.07, (0.32, -0.48), (0.24, 0), (0.32, 0.5))
        stage.add(gill, darker(stage.colour, 0.45), part=DETAIL)
        stage.add(frame.polygon((0.05, 0.02), (-0.4, 0.3), (-0.3, -0.04)), fin, part=DETAIL)
        stage.add(frame.disc(0.62, -0.12, 0.14), WHITE, part=DETAIL)
        stage.add(frame.disc(0.65, -0.12, 0.075), INK, part=DETAIL)
        for k in range(2):
            bubble = ellipse(
                x + side * (1.12 + 0.1 * k) * frame.scale, y - (0.25 + 0.3 * k) * frame.scale, 0.014, 0.014
            )
            stage.add(bubble, (0.9, 0.97, 1.0), part=DETAIL)
    stage.phrases.append("among weeds")
