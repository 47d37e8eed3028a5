"""The page of the base model: its tables, figures and sentences."""

import textwrap
from collections.abc import Iterator, Sequence

import pandas as pd

from atelier.data import prepare
from atelier.evaluation import judges
from atelier.metrics import residual_spectrum_label
from atelier.metrics.summary import SLOPE_LOW
from atelier.params import CORRECTED, WHITE
from atelier.report import figures, words
from atelier.report.items import Figure, Item, Metric, Table, Text
from atelier.report.sensitivity import CAPTION, sensitivity
from atelier.report.starts import NAMES, from_start
from atelier.studies.base_model.report_results import (
    ALL_WORKS,
    BASE,
    CORRECTED_BASE,
    FLOOR,
    FLOOR_RETURNED,
    RETURNED,
    Results,
    Sheet,
    groups_of,
    load,
)

__all__ = ["Results", "load"]

COLUMNS = 12  # pictures in a row of a contact sheet
ROWS = 3  # of them
LOSS_TERMS = {
    "reconstruction": "L1 at three scales, summed",
    "kl": "KL divergence, weighted",
    "perceptual": "distance in the trunk's features",
    "deceit": "deceit of the discriminator",
    "discriminator": "hinge loss of the discriminator",
    "denoising": "mean squared error of the noise",
}
DISTANCES = ("fd", "fd_rec", "fd_haar", "fd_haar_rec", "kd_haar", "pr", "pr_rec", "psd", "psd_rec", "psd10")
HIDDEN = ("kd_haar_rec", "psd10_rec", "share of means_rec")  # from the table of distances, which is wide
SETS = {  # in two levels, as ``sensitivity`` has its columns
    FLOOR: ("real", "training"),
    RETURNED: ("returned", "held out"),
    FLOOR_RETURNED: ("returned", "training"),
    BASE: (BASE, WHITE),
    CORRECTED_BASE: (BASE, CORRECTED),
}
RECORDED_BARS = ("base", "positive control")  # bars of these names are of the base, not of what judges it


def headline(results: Results) -> list[str]:
    """What the index page shows, as far as it was measured."""
    names = ["bars/met"] if _bars_with_bound(results) else []
    names += ["base/sees_subject/photographs"] if (prepare.PHOTOGRAPHS, "subject") in results.shares else []
    measures = ("kd_haar", "psd", "brightness_spread")
    return names + [f"base/{measure}/{kind}" for measure in measures for kind in results.painted]


def missing(results: Results) -> list[Text]:
    """What the data folder lacks, and what is therefore left out."""
    notes = {
        "The data folder has no evaluator: what needs one, shares and distances on its features, is left out.": (
            results.has_evaluator
        ),
        "The data folder does not tell what its pictures show: no share of subjects and emotions is measured.": (
            results.has_truth
        ),
    }
    notes |= {
        f"Too few {kind} to fit what training leaves in first latents: painted from white noise only.": (
            painted.corrected is not None
        )
        for kind, painted in results.painted.items()
    }
    return [Text(note) for note, present in notes.items() if not present]


# ---------------------------------------------------------------------------------------------- bars and pictures


def bars(results: Results) -> Table | Text:
    """The bars of the shipped world, and which of them are met."""
    if not results.bars:
        source, folder = results.params.base.source, results.params.data.folder
        return Text(f"base.source is {source}, data.folder {folder}: no bars came with these two.")
    bounded, metrics = _bars_with_bound(results), {}
    met = sum(bool(bar.met) for bar in bounded)
    if bounded:
        metrics["bars/met"] = Metric(met / len(bounded), len(bounded), "share")
    for bar in results.bars:
        if bar.name.startswith(RECORDED_BARS):
            metrics[f"bars/{bar.name}"] = Metric(bar.interval, bar.n, bar.unit)
    caption = f"The bars of the shipped world: {met} of {len(bounded)} are met; the remaining lines have no bound."
    return Table("bars", judges.table(results.bars), caption, metrics)


def _bars_with_bound(results: Results) -> list[judges.Bar]:
    return [bar for bar in results.bars if bar.met is not None]


def world(results: Results) -> Figure:
    """The first pictures of each style, and the first photographs."""
    rows = {
        name: group.pictures[:COLUMNS]
        for kind, corpus in results.corpora.items()
        for name, group in groups_of(kind, corpus).items()
        if name != ALL_WORKS
    }
    caption = f"The first pictures of each style at {results.params.data.size} px, unpicked."
    return Figure("world", figures.contact_sheet(rows), caption)


def preparation(results: Results) -> Text:
    """What was read of the data folder, what was left out, and what was repaired."""
    lines = []
    for kind, facts in results.preparation.items():
        counts = {name: count for name, count in facts["counts"].items() if count and name != "works"}
        lines.append(f"{kind}: {facts['works']} read, {len(facts['quarantined'])} left out; handled: {counts}")
    return Text("\n".join(lines))


def contents(results: Results) -> Table:
    """Artists, pictures of both splits and annotations, by style."""
    pictures = pd.concat([corpus.table for corpus in results.corpora.values()])
    frame = pictures.groupby("art_style").agg(
        artists=("artist", "nunique"),
        training=("split", lambda split: int((split == "train").sum())),
        held_out=("split", lambda split: int((split == "test").sum())),
        annotations=("emotions", lambda emotions: int(emotions.map(len).sum())),
    )
    return Table("world", frame, f"Pictures by style; splits are by work ({results.params.data.split}).")


# ---------------------------------------------------------------------------------------------- training


def training(results: Results) -> list[Item]:
    """Losses of each step of the base's training, or a sentence where the base has no history."""
    history = results.history
    if not len(history):
        return [Text(f"base.source is {results.params.base.source}: the base came without a history of its training.")]
    panels: list[Item] = []
    for step in ("autoencoder", "decoder", "denoiser"):
        rows = history[history["part"] == step].dropna(axis="columns", how="all")
        if terms := {name: title for name, title in LOSS_TERMS.items() if name in rows}:
            caption = f"Training losses of the {step}, mean of each interval, smoothed."
            panels.append(Figure(f"history_{step}", figures.training_panels(rows, terms), caption))
    return panels


# ---------------------------------------------------------------------------------------------- autoencoder


def too_few(results: Results) -> list[Text]:
    """Groups that lack a split, so that nothing is measured of them."""
    names = [name for kind, corpus in results.corpora.items() for name in groups_of(kind, corpus)]
    return [Text(f"{name}: too few pictures for two splits") for name in names if name not in results.returned]


def reconstruction_sheet(results: Results) -> Figure:
    """Held-out pictures of each group above what the autoencoder returns."""
    rows = {}
    for name, group in results.returned.items():
        if name != ALL_WORKS:
            rows[name], rows[f"{name}, returned"] = group.originals[:COLUMNS], group.returned[:COLUMNS]
    caption = "Held-out pictures and what the autoencoder returns, unpicked."
    return Figure("reconstructions", figures.contact_sheet(rows), caption)


def reconstructions(results: Results) -> Table:
    """How well the autoencoder returns each group, beside a linear code, and how it changes the spectral slope."""
    rows, metrics = {}, {}
    for name, group in results.returned.items():
        n = len(group.originals)
        rows[name] = {
            "n": n,
            "PSNR (dB)": group.psnr,
            "linear code (dB)": group.linear,
            "slope of originals": group.slope,
            "slope change": group.slope_change,
        }
        metrics[f"autoencoder/psnr/{name}"] = Metric(group.psnr, n, "dB")
        metrics[f"autoencoder/slope_change/{name}"] = Metric(group.slope_change, n)
    caption = f"Held-out pictures through {results.channels} latent channels; "
    caption += f"slopes are fitted from {SLOPE_LOW} cycles a picture."
    return Table("reconstructions", pd.DataFrame(rows).T.astype({"n": int}), caption, metrics)


# ---------------------------------------------------------------------------------------------- generated pictures


def samples(results: Results) -> Iterator[Item]:
    """Held-out pictures, what the base painted from their prompts, and the first of these prompts."""
    for kind, painted in results.painted.items():
        rows = {}
        for number, start in enumerate(range(0, min(len(painted.pictures), ROWS * COLUMNS), COLUMNS), 1):
            shown = slice(start, start + COLUMNS)
            rows[f"held out {number}"] = painted.real.pictures[shown]
            rows[f"painted {number}"] = painted.pictures[shown]
            if painted.corrected is not None:
                rows[f"corrected {number}"] = painted.corrected[shown]
        caption = f"Held-out {kind}, and what the base painted from their prompts at guidance "
        caption += f"{results.config.measured_at:g}, from white noise and from the corrected start; unpicked."
        yield Figure(f"samples_{kind}", figures.contact_sheet(rows), caption)
        yield _prompts(kind, painted.prompts[:4])


def steering_sheets(results: Results) -> Iterator[Item]:
    """Pictures that differ by one word, one row per guidance scale, and the first of their prompts."""
    for kind, sheet in results.sheets.items():
        if not len(sheet.table):
            yield Text(f"{kind}: there is no held-out title to paint from")
            continue
        rows = {f"guidance {guidance:g}": pictures for guidance, pictures in sheet.pictures.items()}
        caption = f"One prompt for each of the {kind}, the same first latent for all; unpicked."
        yield Figure(f"sheet_{kind}", figures.contact_sheet(rows, _columns(sheet)), caption)
        yield _prompts(kind, sheet.table["prompt"].head(2).tolist())


def _prompts(kind: str, prompts: Sequence[str]) -> Text:
    """Named, because the page shows the sentences of one cell together."""
    return Text("\n".join([f"the first prompts of {kind}:", *(f"  {prompt}" for prompt in prompts)]))


def _columns(sheet: Sheet) -> list[str]:
    """The word that varies, or the beginning of the prompt where it has no name."""
    pairs = zip(sheet.table["wanted"], sheet.table["prompt"], strict=True)
    return [(word or textwrap.shorten(text, 36, placeholder="...")).replace("_", " ") for word, text in pairs]


def steering(results: Results) -> Table | Text:
    """Shares of pictures in which the evaluator sees the word that varies."""
    rows, metrics = {}, {}
    for kind, sheet in results.sheets.items():
        for guidance, share in sheet.shares.items():
            rows[kind, f"{guidance:g}"] = {"n": share.n, "share": share.mean, "low": share.low, "high": share.high}
            metrics[f"steering/{kind}/guidance-{guidance:g}"] = Metric(share, share.n, "share")
    if not rows:
        return Text("No evaluator that knows these words: no share is measured.")
    frame = pd.DataFrame(rows).T.rename_axis(["sheet", "guidance"]).astype({"n": int})
    caption = (
        "Share of pictures in which the evaluator sees what the prompt says; low and high: Wilson's 95 % interval."
    )
    return Table("steering", frame, caption, metrics)


# ---------------------------------------------------------------------------------------------- distances


def distances(results: Results) -> Table:
    """Distances to held-out pictures, of training and returned pictures and of what the base painted."""
    rows = {f"{kind}, {name}": row for (kind, name), row in results.distances.items()}
    ends = {BASE: "", CORRECTED_BASE: f"/{CORRECTED}"}
    metrics = {
        f"base/{measure.replace(' ', '_')}/{kind}{ends[name]}": Metric(value, int(row["n"]), _unit(measure))
        for (kind, name), row in results.distances.items()
        for measure, value in row.items()
        if name in ends and measure not in ("n", "of")
    }
    label = residual_spectrum_label(results.params.data.size, results.params.data.size)
    caption = "n pictures against all held-out ones (of), _rec: against these as the autoencoder returns them; "
    caption += f"{words.features(results.params)}; PR: {label}; psd from {SLOPE_LOW} cycles, psd10 from 10."
    frame = pd.DataFrame(rows).T.astype({"n": int, "of": int})
    return Table("distances", frame[[name for name in frame if name not in HIDDEN]], caption, metrics)


def saturation(results: Results) -> Table:
    """The floor of each distance, and whether it leaves the base's distance any room, by kind and start."""
    kinds = {}
    for kind in results.painted:
        sets = {name: results.distances[kind, name] for name in SETS if (kind, name) in results.distances}
        names = [name for name in DISTANCES if name in sets[BASE]]
        frame = pd.DataFrame({SETS[label]: [row[name] for name in names] for label, row in sets.items()}, index=names)
        floor = [sets[FLOOR_RETURNED if name.endswith("_rec") else RETURNED][name] for name in names]
        kinds[kind] = sensitivity(frame, floor, BASE)
    caption = f"At guidance {results.config.measured_at:g}; {CAPTION}; n as above."
    return Table("sensitivity", pd.concat(kinds, names=["kind", "measure"]), caption)


def _unit(measure: str) -> str:
    return "ratio" if "spread" in measure or "share" in measure else "1"


def spectra(results: Results) -> Figure:
    """Mean power of held-out and painted pictures against frequency."""
    pictures = {}
    for kind, painted in results.painted.items():
        pictures[f"{kind}, real"] = results.corpora[kind].where("split", "test").pictures
        pictures[f"{kind}, base"] = painted.pictures
        if painted.corrected is not None:
            pictures[f"{kind}, base, corrected"] = painted.corrected
    caption = "Mean power spectra, ring means; the slope is fitted right of the dotted line."
    return Figure("spectra", figures.radial_spectra(pictures, SLOPE_LOW), caption)


def attributes(results: Results) -> Table | Text:
    """Shares of pictures in which the evaluator sees what is true of the held-out ones."""
    rows, metrics = {}, {}
    for (kind, attribute), shares in results.shares.items():
        name = attribute.replace("art_", "")
        rows[kind, name] = {("n", ""): shares.base.n, ("held-out", ""): shares.held_out.mean}
        for start, share in {WHITE: shares.base, CORRECTED: shares.corrected}.items():
            if share is not None:
                ends = {"share": share.mean, "low": share.low, "high": share.high}
                rows[kind, name] |= {(f"base, {NAMES[start]}", label): value for label, value in ends.items()}
                metrics[from_start(f"base/sees_{name}/{kind}", start)] = Metric(share, share.n, "share")
    if not rows:
        return Text("No evaluator, or no truth that it knows: nothing to count.")
    frame = pd.DataFrame(rows).T.rename_axis(["prompts of", "attribute"]).astype({("n", ""): int})
    caption = "Share of pictures in which the evaluator sees what is true of the held-out ones; low, high: of the base."
    return Table("attributes", frame, caption, metrics)


def summary(results: Results) -> Text:
    """How far the base is from real pictures, and from art more than from photographs, in sentences."""
    lines = []
    for kind in results.painted:
        base, floor = (results.distances[kind, name]["kd_haar"] for name in (BASE, FLOOR))
        corrected = results.distances.get((kind, CORRECTED_BASE), {}).get("kd_haar")
        start = "" if corrected is None else f", {corrected:.2f} from the corrected start"
        lines.append(f"{kind}: KD {base:.2f}{start}; between two sets of real pictures {floor:.2f}.")
    if prepare.PHOTOGRAPHS in results.painted and prepare.WORKS in results.painted:
        works, photographs = (results.distances[kind, BASE]["kd_haar"] for kind in (prepare.WORKS, prepare.PHOTOGRAPHS))
        ratio = f"{works / photographs:.1f} times its KD to photographs"
        lines.append(f"Its KD to art is {ratio}. Above 1: the shift that tuning has to make.")
    lines.append(f"Spread of brightness over that of real pictures: {', '.join(_spreads(results))}.")
    return Text("\n".join(lines))


def _spreads(results: Results) -> list[str]:
    """Like ``works 0.55, corrected 0.82``."""
    spreads = []
    for kind in results.painted:
        ends = {kind: BASE, "corrected": CORRECTED_BASE}
        rows = {name: results.distances.get((kind, which)) for name, which in ends.items()}
        spreads += [f"{name} {row['brightness spread']:.2f}" for name, row in rows.items() if row is not None]
    return spreads
