"""How a scene is painted: one function per style, (canvas, habit, generator) -> picture in canvas pixels.

Textures are between two and six 64ths of the picture wide: coarser than what a latent of one value an 8 x 8
block blurs away at once, finer than what it keeps for nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from atelier.data.painter.canvas import Canvas, blurred, blurred_colours, field, grey, grid, outlines, over, snapped
from atelier.data.painter.shapes import Array, Colour
from atelier.data.painter.stage import BACKDROP, DETAIL, SUBJECT


@dataclass(frozen=True)
class Habit:
    """How one artist differs from the others of a style."""

    artist: str
    size: float  # of dots, strokes, stones, facets: a factor
    slant: float  # radians added to the direction of strokes, or how much they turn
    line: float  # outline weight in units
    ground: Colour  # paper, canvas, ink or grout
    tint: Colour  # bias of the palette, multiplied in
    chroma: float  # factor of saturation


def biased(canvas: Canvas, habit: Habit) -> Canvas:
    """The canvas in the artist's palette."""

    def bias(colours: Array) -> Array:
        level = grey(colours)[..., None]
        return np.clip((level + (colours - level) * habit.chroma) * np.array(habit.tint), 0.0, 1.0)

    return replace(canvas, flat=bias(canvas.flat), lit=bias(canvas.lit))


# ------------------------------------------------------------------------------- marks of the brush


def spots(rng: np.random.Generator, spacing: float) -> Array:
    """Points (n, 2) of a shaken lattice over the unit square, ``spacing`` units apart, in random order."""
    n = round(64 / spacing) + 1
    x, y = np.meshgrid(np.arange(n), np.arange(n))
    points = (np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(0.05, 0.95, (n * n, 2))) / n
    return np.asarray(rng.permutation(points))


def at(points: Array, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the canvas pixel under each point, the nearest one for points outside."""
    pixel = np.clip(np.floor(points * side).astype(np.int64), 0, side - 1)
    return pixel[:, 1], pixel[:, 0]


def shaken(rng: np.random.Generator, colours: Array, tone: float, hue: float) -> list[tuple[int, int, int]]:
    """8-bit colours (n, 3) varied in brightness and hue."""
    n = len(colours)
    varied = colours * (1 + tone * rng.standard_normal((n, 1))) + hue * rng.standard_normal((n, 3))
    return [tuple(c) for c in np.round(np.clip(varied, 0, 1) * 255).astype(int).tolist()]


def strokes(
    draw: ImageDraw.ImageDraw,
    points: Array,
    angles: Array,
    colours: list[tuple[int, int, int]],
    size: tuple[float, float],
    side: int,
) -> None:
    """Straight strokes with tapered ends, ``size`` = (length, width) in units."""
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (size[0] / 128)
    across = np.stack([-np.sin(angles), np.cos(angles)], axis=1) * (size[1] / 128)
    rim = [along, 0.6 * along + across, across - 0.6 * along, -along, -0.6 * along - across, 0.6 * along - across]
    quads = np.stack([points + offset for offset in rim], axis=1)
    for quad, colour in zip(snapped(quads, side).reshape(len(points), 12), colours, strict=True):
        draw.polygon(quad.tolist(), fill=colour)


def board(canvas: Canvas, colour: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty support to draw on."""
    image = Image.new("RGB", (canvas.side, canvas.side), tuple(round(255 * c) for c in colour))
    return image, ImageDraw.Draw(image)


def as_array(image: Image.Image) -> Array:
    """8 bits to [0, 1]."""
    return np.asarray(image, dtype=np.float64) / 255


# ------------------------------------------------------------------------------------------ styles


def impressionism(canvas: Canvas, habit: Habit, rng: np.random.Generator) -> Array:
    """Broken colour: broad commas for air and ground, smaller ones for what matters."""
    image, draw = board(canvas, habit.ground)
    passes = ((3.0, (9.0, 3.4), BACKDROP), (2.1, (5.0, 2.2), SUBJECT), (1.6, (2.8, 1.6), DETAIL))
    for spacing, (length, width), part in passes:
        points = spots(rng, spacing * habit.size)
        points = points[canvas.part[at(points, canvas.side)] >= part]
        here = at(points, canvas.side)
        angles = canvas.grain[here] + habit.slant + 0.25 * rng.standard_normal(len(points))
        colours = shaken(rng, canvas.lit[here], 0.10, 0.035)
        strokes(draw, points, angles, colours, (length * habit.size, width * habit.size), canvas.side)
    return as_array(image)


def pointillism(canvas: Canvas, habit: Habit, rng: np.random.Generator) -> Array:
    """Round dots of purer colours side by side, the ground showing between them."""
    image, draw = board(canvas, habit.ground)
    side = canvas.side
    for spacing, width, part in ((2.5, 2.9, BACKDROP), (1.9, 2.1, SUBJECT)):
        points = spots(rng, spacing * habit.size)
        points = points[canvas.part[at(points, side)] >= part]
        seen = canvas.lit[at(points, side)]
        away = rng.choice(3, len(points))
        pure = (
            seen
            + (rng.random(len(points)) < 0.55)[:, None]
            * np.array([[0.22, 0.03, -0.12], [-0.12, 0.12, 0.05], [-0.06, -0.02, 0.26]])[away]
        )
        radius = width * habit.size / 128
        boxes = np.concatenate([points - radius, points + radius], axis=1)
        for dot, colour in zip(snapped(boxes, side), shaken(rng, pure, 0.06, 0.02), strict=True):
            draw.ellipse(dot.tolist(), fill=colour)
    return as_array(image)


def woodcut(canvas: Canvas, habit: Habit, rng: np.random.Generator) -> Array:
    """Black lines cut along each shape, broader in the shade, over one tint per shape."""
    x, y = grid(canvas.side)
    turn = canvas.grain + habit.slant
    bend = field(rng, canvas.side, ((3, 0.8),))
    across = (y * np.cos(turn) - x * np.sin(turn)) * 64 / (4.2 * habit.size) + 0.35 * bend
    wave = np.abs((across % 1.0) * 2 - 1)  # 0 on a ridge, 1 in a groove
    level = 0.1 + 0.9 * np.sqrt(grey(canvas.lit))  # even a night is cut, not only inked
    ink = np.clip((wave - (0.08 + 0.95 * level)) * (4.2 * habit.size * canvas.unit / 2), 0.0, 1.0)
    ink = np.where(canvas.part == DETAIL, np.clip((0.62 - level) * 6, 0.0, 1.0), ink)
    tint = np.array(habit.ground) * (0.42 + 0.58 * canvas.flat / (canvas.flat.max(axis=-1, keepdims=True) + 0.15))
    black = (0.07, 0.06, 0.08)
    return over(over(tint, ink, black), outlines(canvas, habit.line), black)


def flat_poster(canvas: Canvas, habit: Habit, rng: np.random.Generator) -> Array:
    """Flat planes: a light and a shaded half to each shape, four steps in the sky, one outline."""
    light = grey(canvas.lit) / (grey(canvas.flat) + 1e-3)
    tone = 1.0 + 0.13 * np.tanh((light - 1.04) * 60) * (canvas.part != DETAIL)
    steps = 5.0
    planes = np.floor(canvas.flat * steps + 0.5) / steps * 0.6 + canvas.flat * 0.4
    x, y = grid(canvas.side)
    ray = np.tanh(14 * np.sin(8 * (x + habit.slant * y) + rng.uniform(0, 6.28)))  # broad stripes behind the subject
    planes = planes * (1 + 0.045 * ray * (canvas.part == BACKDROP))[..., None]
    return over(np.clip(planes * tone[..., None], 0, 1), outlines(canvas, habit.line), habit.ground)


def color_field(canvas: Canvas, habit: Habit, rng: np.random.Generator) -> Array:
    """Soaked fields of colour with breathing edges."""
    unit = canvas.unit
    soft = blurred_colours(canvas.flat, 2.4 * habit.size * unit)
    near = blurred_colours(canvas.flat, 1.1 * habit.size * unit)
    picture = over(soft, 0.85 * blurred(canvas.subject * 1.0, 1.0 * unit), near)
    x, y = grid(canvas.side)
    frame = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) * 64
    cloud = field(rng, canvas.side, ((3, 0.6), (6, 0.35)))
    picture = picture * (1 + 0.09 * cloud)[..., None]
    stain = np.cos(habit.slant) * y + np.sin(habit.slant) * x
    picture = picture * (1 + 0.05 * np.sin(stain * 22 + 1.2 * cloud))[..., None]
    rim = 1 / (1 + np.exp((frame - 3.2 - 0.8 * cloud) * 1.6))
    return np.clip(over(picture, 0.9 * rim, habit.ground), 0, 1)


def watercolor(canvas: Canvas, habit: Habit, rng: np.random.Generator) -> Array:
    """Thin washes that run, dry darker at their rims and leave paper showing."""
    side, unit = canvas.side, canvas.unit
    x, y = grid(side)
    run = 1.5 * habit.size / 64
    wet = np.stack(
        [x + run * field(rng, side, ((7, 0.6), (14, 0.3))), y + run * field(rng, side, ((7, 0.6), (14, 0.3)))], axis=-1
    )
    row, column = at(wet.reshape(-1, 2), side)
    moved = canvas.lit[row, column].reshape(side, side, 3)
    labels = canvas.labels[row, column].reshape(side, side)
    part = canvas.part[row, column].reshape(side, side)
    washed = blurred_colours(moved, 0.45 * habit.size * unit)
    border = ((labels != np.roll(labels, 1, 0)) | (labels != np.roll(labels, 1, 1))) & (part != DETAIL)
    rim = blurred(border * 1.0, 0.55 * unit)
    pool = field(rng, side, ((4, 0.5), (9, 0.35), (20, 0.2)))
    load = np.clip(0.74 + 0.16 * pool + 0.75 * rim + 0.2 * (part == DETAIL), 0.15, 1.25)
    paper = np.array(habit.ground)
    picture = paper * (1 - load[..., None] * (1 - washed))
    x_edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) * 64 + 1.2 * pool
    picture = over(picture, 1 / (1 + np.exp((x_edge - 2.6) * 2.5)), paper)
    return np.clip(over(picture, 0.75 * outlines(canvas, habit.line, SUBJECT), (0.22, 0.2, 0.22)), 0, 1)


def cut_out(canvas: Canvas, habit: Habit, rng: np.random.Generator) -> Array:
    """Coloured paper, cut and laid in layers that throw small shadows; some sheets are printed."""
    side, unit = canvas.side, canvas.unit
    x, y = grid(side)
    sheets = int(canvas.labels.max()) + 1
    vivid = canvas.flat * (1 + 0.10 * rng.standard_normal(sheets)[canvas.labels])[..., None]
    u, v = x * 64 / (4.4 * habit.size), y * 64 / (4.4 * habit.size)
    turn = habit.slant
    a, b = u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)
    prints = np.stack([np.zeros_like(a), np.sin(2 * np.pi * a), np.sin(np.pi * a) * np.sin(np.pi * b) * 1.6 - 0.4])
    pattern = rng.choice(3, sheets, p=(0.5, 0.25, 0.25))[canvas.labels]
    pattern = np.where((canvas.part == DETAIL) | (canvas.labels == 0), 0, pattern)
    printed = np.take_along_axis(prints, pattern[None], axis=0)[0]
    vivid = vivid * (1 + 0.16 * np.tanh(4 * printed) * (pattern > 0))[..., None]
    dx, dy = round(-canvas.sun_side * 1.1 * unit), round(1.3 * unit)
    above = np.roll(canvas.labels, (dy, dx), (0, 1))
    raised = (above > canvas.labels) & (np.roll(canvas.part, (dy, dx), (0, 1)) != DETAIL)
    raised[:dy] = False
    raised[:, :dx] = raised[:, :dx] & (dx <= 0)
    shade = blurred(raised * 1.0, 0.35 * unit)
    picture = vivid * (1 - 0.5 * shade)[..., None]
    return np.clip(over(picture, outlines(canvas, habit.line, SUBJECT), habit.ground), 0, 1)


def nearest(rng: np.random.Generator, side: int, spacing: float, disorder: float) -> tuple[np.ndarray, Array, Array]:
    """A shaken lattice's cells: whose cell a pixel is in, the centres, and how far the next border is, in units."""
    n = round(64 / spacing)
    cells = n + 2
    column, row = np.meshgrid(np.arange(-1, n + 1), np.arange(-1, n + 1))
    shift = 0.5 + disorder * rng.uniform(-0.5, 0.5, (cells, cells, 2))
    centres = (np.stack([column, row], axis=-1) + shift) / n
    x, y = grid(side)
    i, j = np.floor(x * n).astype(np.int64) + 1, np.floor(y * n).astype(np.int64) + 1
    owners = np.stack([(j + b) * cells + i + a for b in (-1, 0, 1) for a in (-1, 0, 1)])
    flat = centres.reshape(-1, 2)
    far = np.sqrt((x - flat[owners, 0]) ** 2 + (y - flat[owners, 1]) ** 2)
    order = np.argsort(far, axis=0, kind="stable")[:2]
    owner = np.take_along_axis(owners, order, axis=0)[0]
    distance = np.take_along_axis(far, order, axis=0) * 64
    return owner, flat, distance[1] - distance[0]


def mosaic(canvas: Canvas, habit: Habit, rng: np.random.Generator) -> Array:
    """Stones of even colour, broken where shapes end, with grout between."""
    side = canvas.side
    owner, centres, gap = nearest(rng, side, 4.6 * habit.size, habit.slant)
    cell_tone = (1 + 0.13 * rng.standard_normal(len(centres)))[owner]
    smooth = blurred_colours(canvas.lit, 0.8 * canvas.unit)
    row, column = at(centres[owner.ravel()], side)
    same = (canvas.labels[row, column] == canvas.labels.ravel())[:, None]
    stones = np.where(same, smooth[row, column], canvas.lit.reshape(-1, 3)).reshape(side, side, 3)
    stones = np.clip(stones * 1.08 * cell_tone[..., None], 0, 1)
    joint = np.clip(1.25 - gap / 0.8, 0.0, 1.0) * (canvas.part != DETAIL)
    return over(over(stones, joint, habit.ground), 0.8 * outlines(canvas, habit.line, SUBJECT), habit.ground)


def expressionism(canvas: Canvas, habit: Habit, rng: np.random.Generator) -> Array:
    """Long loaded strokes that follow a swirl, with dark contours under and over them."""
    side = canvas.side
    swirl = habit.slant * field(rng, side, ((3, 1.0), (5, 0.4)))
    turn = canvas.grain + swirl
    fierce = np.clip(0.5 + (canvas.lit - 0.5) * 1.2, 0, 1)
    image, draw = board(canvas, habit.ground)
    passes = ((3.3, 2.9, 3.0, BACKDROP), (2.5, 2.0, 1.6, SUBJECT), (1.7, 1.5, 0.7, DETAIL))
    for spacing, width, step, part in passes:
        points = spots(rng, spacing * habit.size)
        points = points[canvas.part[at(points, side)] >= part]
        colours = shaken(rng, fierce[at(points, side)], 0.2, 0.05)
        track, here = [points], points
        for _ in range(4):
            angle = turn[at(here, side)]
            here = here + np.stack([np.cos(angle), np.sin(angle)], axis=1) * (step * habit.size / 64)
            track.append(here)
        paths = snapped(np.stack(track, axis=1), side).reshape(len(points), 10)
        thick = max(1, round(width * habit.size * canvas.unit))
        for path, colour in zip(paths, colours, strict=True):
            draw.line(path.tolist(), fill=colour, width=thick)
    return over(as_array(image), 0.85 * outlines(canvas, habit.line, SUBJECT), (0.05, 0.05, 0.12))


def cubism(canvas: Canvas, habit: Habit, rng: np.random.Generator) -> Array:
    """Tilted facets, each seeing the scene from a step aside and shaded across itself."""
    side = canvas.side
    owner, centres, gap = nearest(rng, side, 12.5 * habit.size, 0.95)
    n = len(centres)
    x, y = grid(side)
    aside = rng.uniform(-2.3, 2.3, (n, 2)) / 64
    view = np.stack([x + aside[owner, 0], y + aside[owner, 1]], axis=-1).reshape(-1, 2)
    row, column = at(view, side)
    seen = canvas.lit[row, column].reshape(side, side, 3)
    tilt = rng.uniform(0, 6.28, n)
    across = (x - centres[owner, 0]) * np.cos(tilt)[owner] + (y - centres[owner, 1]) * np.sin(tilt)[owner]
    shade = np.clip(1.02 + 3.2 * across / habit.size, 0.55, 1.4)
    earth = np.array(habit.ground)
    picture = np.clip((seen * 0.72 + earth * 0.28) * shade[..., None], 0, 1)
    cut = np.clip(1.3 - gap / 0.9, 0, 1) * (0.25 + 0.6 * rng.random(n))[owner]
    labels, part = (plane[row, column].reshape(side, side) for plane in (canvas.labels, canvas.part))
    moved = replace(canvas, labels=labels, part=part)
    picture = over(picture, 0.8 * cut, (0.13, 0.11, 0.1))
    return over(picture, 0.8 * outlines(moved, habit.line, SUBJECT), (0.1, 0.08, 0.08))


# ----------------------------------------------------------------------------------------- studios

Painter = Callable[[Canvas, Habit, np.random.Generator], Array]
NO_TINT = (1.0, 1.0, 1.0)

STUDIOS: dict[str, tuple[Painter, tuple[Habit, ...]]] = {
    "Impressionism": (impressionism, (
        Habit("odile-marchand", 1.0, 0.0, 0.0, (0.62, 0.55, 0.66), (0.98, 0.98, 1.08), 1.1),  # level commas, violet air
        Habit("henri-vauclair", 1.3, 0.75, 0.0, (0.78, 0.62, 0.42), (1.08, 1.0, 0.88), 1.2),  # broad diagonals, warm
    )),
    "Pointillism": (pointillism, (
        Habit("lucie-aubrac", 1.0, 0.0, 0.0, (0.96, 0.93, 0.84), (1.03, 1.02, 0.98), 1.35),  # small dots on cream
        Habit("anselm-roth", 1.4, 0.0, 0.0, (0.20, 0.24, 0.42), (0.98, 1.0, 1.06), 1.5),  # large dots on blue
    )),
    "Woodcut": (woodcut, (
        Habit("kasper-lindqvist", 1.0, 0.0, 0.8, (0.97, 0.93, 0.84), NO_TINT, 0.8),  # lines along the form
        Habit("ines-arrabal", 1.25, 0.9, 1.4, (0.98, 0.88, 0.68), NO_TINT, 1.3),  # coarse diagonals, heavy contour
    )),
    "Flat_Poster": (flat_poster, (
        Habit("bruno-castell", 1.0, 0.0, 1.4, (0.08, 0.08, 0.12), NO_TINT, 1.4),  # black contour
        Habit("mila-ostrova", 1.0, 0.8, 1.0, (0.98, 0.95, 0.86), (1.0, 0.95, 0.86), 1.0),  # cream contour, muted
    )),
    "Color_Field_Painting": (color_field, (
        Habit("agnes-hollander", 1.0, 0.0, 0.0, (0.94, 0.88, 0.76), (1.06, 0.98, 0.92), 1.5),  # level veils, pale
        Habit("saul-tremaine", 1.25, 1.57, 0.0, (0.16, 0.10, 0.16), (0.96, 0.92, 1.04), 1.7),  # upright stains, dark
    )),
    "Watercolor": (watercolor, (
        Habit("yuki-tanabe", 1.3, 0.0, 0.0, (0.99, 0.98, 0.95), (0.98, 1.0, 1.03), 1.1),  # wet in wet
        Habit("edith-farrow", 0.6, 0.0, 0.8, (0.97, 0.94, 0.85), (1.03, 1.0, 0.95), 1.2),  # pen and wash
    )),
    "Cut_Out": (cut_out, (
        Habit("simone-delatour", 1.0, 0.0, 0.0, (1.0, 1.0, 1.0), (1.04, 1.0, 1.0), 1.7),  # upright prints, bare edges
        Habit("pavel-horak", 1.35, 0.8, 1.1, (0.99, 0.97, 0.92), (0.98, 1.0, 1.0), 1.3),  # slanting prints, white edges
    )),
    "Mosaic": (mosaic, (
        Habit("theodora-kallis", 1.0, 0.35, 0.8, (0.24, 0.20, 0.18), (1.06, 1.0, 0.86), 1.2),  # square, dark grout
        Habit("marco-bellani", 1.2, 0.95, 0.0, (0.90, 0.87, 0.80), (0.94, 1.0, 1.06), 1.3),  # broken, pale grout
    )),
    "Expressionism": (expressionism, (
        Habit("greta-amsel", 1.0, 0.9, 1.2, (0.10, 0.10, 0.22), (1.0, 0.98, 1.04), 1.5),  # swirls
        Habit("viktor-dragan", 1.35, 0.25, 1.4, (0.32, 0.10, 0.08), (1.08, 0.95, 0.88), 1.7),  # straight and thick
    )),
    "Cubism": (cubism, (
        Habit("rafael-montero", 1.0, 0.0, 0.8, (0.60, 0.52, 0.38), (1.04, 1.0, 0.88), 0.65),  # ochre
        Habit("claude-esnault", 0.75, 0.0, 0.8, (0.42, 0.52, 0.56), (0.95, 1.0, 1.03), 0.9),  # small blue splinters
    )),
}  # fmt: skip

STYLES: dict[str, tuple[str, ...]] = {style: tuple(h.artist for h in habits) for style, (_, habits) in STUDIOS.items()}


def render(canvas: Canvas, style: str, artist: str, rng: np.random.Generator) -> Array:
    """The scene as this artist of this style paints it, in canvas pixels."""
    paint, habits = STUDIOS[style]
    habit = habits[STYLES[style].index(artist)]
    return paint(biased(canvas, habit), habit, rng)
