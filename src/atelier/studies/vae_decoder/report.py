"""The page of the retuned decoder: its tables, figures and sentences, and the evidence of its verdicts."""

from itertools import product

import pandas as pd
from torch import Tensor

from atelier import claims
from atelier.evaluation import tables
from atelier.evaluation.intervals import Interval, t_interval
from atelier.evaluation.tables import REAL, REFERENCE_ROWS
from atelier.metrics import radial_power, residual_spectrum_label
from atelier.params import CORRECTED, STARTS
from atelier.report import figures, naming, starts, words
from atelier.report import sensitivity as sensitivities
from atelier.report.browser import Browsed, by_path, on_sheets
from atelier.report.items import Browser, Figure, Item, Metric, Table, Text
from atelier.sampling.store import UNTUNED
from atelier.studies.vae_decoder.decoding import ORIGINAL
from atelier.studies.vae_decoder.report_results import COLUMNS, Results, load
from atelier.verdicts import Evidence

__all__ = ["Results", "load"]

LOSS_TERMS = ("mse", "lpips", "ffl")
RECONSTRUCTIONS = ("psnr", "mse", "lpips", "judge", "kd_judge", "pr", "psd", "psd10", "high", "fd", "fwd")
BY_STYLE = ("psnr", "lpips", "judge", "pr", "high")
DISTANCES = ("fd", "fd_rec", "fwd", "pr", "pr_rec", "psd", "psd_rec", "psd10")
COMPARED = ("fd", "pr", "psd")  # what the poster has
REGIMES = ("unconditional", "conditional", "mixed")
RANK = 8
WITHOUT, WITH = "B", "C"  # the poster's blocks of that rank, without the decoder's loss and with it


def headline(results: Results) -> list[str]:
    """What the index page shows."""
    return [f"reconstructed/{measure}/{name}" for measure in ("pr", "psnr") for name in (ORIGINAL, results.main)]


def evidence(results: Results) -> Evidence:
    """What the verdicts need; B1 is decided on generated pictures, the others on held-out works through decoders."""
    groups = f"intervals over {len(results.params.protocol.groups)} groups of works, {words.seeds(results.params)}"
    return Evidence(
        values={**results.values, **results.values_by_style},
        resolutions=tables.resolutions(results.rows),
        counts={"": results.n, "B2": results.n_works, "N2": _counts_by_style(results)},
        over={"": tables.described_groups(results.params), "B2": groups, "N2": groups},
        floors=floors(results),
    )


def _counts_by_style(results: Results) -> list[int]:
    """Works that each of N2's comparisons is over: of its style, or all; 0 where none was measured."""
    counts = results.by_style.groupby("style")["n"].max().to_dict()
    listed = [part.measure.partition("/")[2] for part in claims.findings(results.config.STUDY)["N2"].every_part]
    return [int(counts.get(style, 0)) if style else results.n_works for style in listed]


def floors(results: Results) -> dict[str, float]:
    """The value of each measure that no decoder can get below: what other works are, against held-out ones."""
    return sensitivities.floors(results.values, sensitivities.OF_DECODERS)


# ---------------------------------------------------------------------------------------------- training


def decoders(results: Results) -> Table:
    """Scope and loss weights of each variant."""
    config = results.config
    frame = pd.DataFrame({name: config.decoders[name].model_dump() for name in config.variants}).T
    network = f"LPIPS of the loss through `{results.params.perceptual.network}`"
    return Table(
        "decoders", frame.rename_axis("decoder"), f"Scopes and loss weights; {_training_length(results)}; {network}."
    )


def frozen(results: Results) -> Text:
    """Digests of the frozen weights, which training checks to be the same before and after."""
    lines = [f"  {name:14} {card['unchanged'][:12]}" for name, card in results.cards.items()]
    return Text("\n".join(["digest of all that was frozen, before and after:", *lines]))


def losses(results: Results) -> Table:
    """Weighted loss terms in the first and the last fifth of training."""
    history = results.history
    progress = history["step"] / results.config.optimisation.steps
    stages = {"first fifth": history[progress <= 0.2], "last fifth": history[progress > 0.8]}
    means = {
        (term, name): rows.groupby("decoder", sort=False)[term].mean()
        for term in LOSS_TERMS
        if term in history
        for name, rows in stages.items()
    }
    length, seeds = _training_length(results), words.seeds(results.params)
    return Table(
        "losses", pd.DataFrame(means), f"Weighted terms, means of the first and last fifth of {length}; {seeds}."
    )


def _training_length(results: Results) -> str:
    """Like "1200 steps of 16 crops"."""
    config = results.config
    return f"{config.optimisation.steps} steps of {config.optimisation.batch} {'crops' if config.crop else 'pictures'}"


# ---------------------------------------------------------------------------------------------- reconstructed works


def works(results: Results) -> Figure:
    """Held-out works, one a style, and their reconstructions."""
    rows, styles = _one_a_style(results)
    caption = (
        "Held-out works above what the original and the retuned decoder make of their latents; one column per style."
    )
    return Figure("works", figures.contact_sheet(naming.rows(results.config.STUDY, rows), styles), caption)


def zoomed(results: Results) -> Figure:
    """The middle of the pictures of ``works``."""
    rows, _ = _one_a_style(results)
    side = next(iter(rows.values())).shape[-1]
    middle = slice(side // 4, side // 4 + side // 2)
    crops = {name: pictures[:, :, middle, middle] for name, pictures in rows.items()}
    return Figure(
        "zoomed",
        figures.contact_sheet(naming.rows(results.config.STUDY, crops)),
        "The middle of the same pictures, half as wide, enlarged.",
    )


def _one_a_style(results: Results) -> tuple[dict[str, Tensor], list[str]]:
    """Contact sheet rows of the first work of each style, and the styles."""
    original, main = results.pooled(ORIGINAL), results.pooled(results.main)
    styles = sorted(set(original.styles))[:COLUMNS]
    first = [int((original.styles == style).nonzero()[0][0]) for style in styles]
    rows = {"works": original.works, ORIGINAL: original.made, results.main: main.made}
    return {name: pictures[first].load() for name, pictures in rows.items()}, styles


def browser(results: Results) -> Browser:
    """Held-out works beside what every decoder makes of their latents, in turn one a style."""
    original = results.pooled(ORIGINAL)
    table = pd.DataFrame({"style": original.styles, "number": range(len(original.styles)), "repeat": 0})
    table["turn"] = table.groupby("style").cumcount()
    table["prompt"] = table["style"].str.replace("_", " ") + " " + (table["turn"] + 1).astype(str)
    table = table.assign(path=table["prompt"]).sort_values(["turn", "style"]).reset_index(drop=True)
    table["place"] = table.index
    names = {name: naming.model(results.config.STUDY, name) for name in results.decoders}
    browsed = Browsed(
        [],
        {names[name]: {(): (results.pooled(name).made[table["number"].to_numpy()], table)} for name in names},
        "the work itself",
        by_path(table, lambda rows: original.works[rows["number"].to_numpy()]),
    )
    return on_sheets("browser", browsed, "Every decoder has the same latents of a work.", noun="work")


def reconstructions(results: Results) -> Table:
    """Held-out works against their reconstructions by each decoder; training works as the last row."""
    rows = _of_reconstructions(results)
    training = tables.intervals(results.compared).query("cell == @REAL")
    training = training[training["measure"].isin(rows["measure"])]
    measures = _measures(results)
    frame = pd.concat([rows, training]).pivot(index="cell", columns="measure", values="value")
    frame = frame.loc[[*results.decoders, REAL], measures].rename_axis("decoder")
    label = residual_spectrum_label(results.params.data.size, results.params.data.size)
    count = f"{_works_counted(results)}; {REAL}: n = {training['n'].iloc[0]}"
    metrics = {
        f"reconstructed/{measure}/{cell}": Metric(interval, results.n_works, "dB" if measure == "psnr" else "1")
        for measure, cell, interval in zip(rows["measure"], rows["cell"], rows["interval"], strict=True)
    }
    return Table("reconstructions", frame, f"Reconstructions, {count}. PSNR in dB; PR: {label}.", metrics)


def changes(results: Results) -> Table:
    """What each retuned decoder changes of its reconstructions, against the original."""
    frame = {
        name: {
            measure: words.plus_minus(_change(results.values, measure, ORIGINAL, name))
            for measure in _measures(results)
        }
        for name in results.config.variants
    }
    caption = f"Retuned less original; ±: half of the 95 % interval; {_works_counted(results)}."
    return Table("changes", pd.DataFrame(frame).T.rename_axis("decoder"), caption)


def styles(results: Results) -> Table:
    """What the main decoder changes, style by style; only styles of which every group has works were measured."""
    frame = {}
    for style, rows in results.by_style.groupby("style"):
        values, main = tables.values(rows), results.main
        row: dict[str, object] = {"n": int(rows["n"].max())}
        for measure in BY_STYLE:
            if (measure, main) in values:
                scale = 1.0 if measure == "psnr" else 100 / values[measure, ORIGINAL].mean()
                row[measure] = words.plus_minus(_change(values, measure, ORIGINAL, main, scale))
        frame[style] = row
    caption = f"{results.main} less original, by style; ±: half of the 95 % interval over groups"
    return Table("styles", pd.DataFrame(frame).T.rename_axis("style"), f"{caption}; {_works_counted(results)}.")


def residuals(results: Results) -> Figure:
    """Mean residual spectra of works and of their reconstructions."""
    original, main = results.pooled(ORIGINAL), results.pooled(results.main)
    pictures = {"works": original.works, ORIGINAL: original.made, results.main: main.made}
    label = residual_spectrum_label(results.params.data.size, results.params.data.size)
    figure = figures.residual_spectra(pictures)
    return Figure("residuals", figure, f"Mean residual spectra of works, before and after; {label}.")


def ratios(results: Results) -> Figure:
    """Power of reconstructions over that of the works against frequency, one line per decoder."""
    curves = {}
    for name in results.decoders:
        spectra = [
            [radial_power(figures.mean_power_spectrum(x)) for x in (group.works, group.made)]
            for group in results.works[name]
        ]
        frequency = spectra[0][0][0][1:]  # without the mean
        curves[name] = [made[1][1:] / real[1][1:] for real, made in spectra]
    caption = f"Power of reconstructions over that of the works, 95 % intervals; {_works_counted(results)}."
    return Figure("ratios", figures.spectral_ratios(curves, frequency), caption)


def _of_reconstructions(results: Results) -> pd.DataFrame:
    """Intervals of every measure of reconstructed works."""
    rows = tables.intervals(results.reconstructions)
    return rows[rows["cell"].isin(results.decoders)]


def _measures(results: Results) -> list[str]:
    """The measures of reconstructions that were taken, in the order of the tables."""
    measured = set(results.reconstructions["measure"])
    return [measure for measure in RECONSTRUCTIONS if measure in measured]


def _works_counted(results: Results) -> str:
    groups = len(results.params.protocol.groups)
    return f"n = {results.n_works} held-out works in {groups} groups, {words.seeds(results.params)}"


# ---------------------------------------------------------------------------------------------- generated pictures


def samples(results: Results) -> Figure:
    """Generated pictures of two models, each latent through the original and the main decoder."""
    caption = (
        f"Unpicked pictures at guidance {min(results.config.guidance):g}, white noise: one column per prompt; each "
    )
    caption += "model's latents are decoded twice."
    return Figure(
        "generated", figures.contact_sheet(naming.rows(results.config.STUDY, results.first_pictures)), caption
    )


def generated(results: Results) -> Table:
    """Distances of generated pictures to held-out works, with the original and the main decoder, from both starts."""
    rows = {(name, "", "", ""): name for name in REFERENCE_ROWS}
    for guidance, start, model in product(results.config.guidance, STARTS, results.config.models):
        for label, decoder in {ORIGINAL: "", results.main: results.main}.items():
            rows[model, f"{guidance:g}", start, label] = results.cell(model, guidance, decoder, start)
    frame = {
        name: {measure: words.plus_minus(_interval(results, measure, cell), sign="") for measure in DISTANCES}
        for name, cell in rows.items()
    }
    caption = f"Distances to held-out works with the original and the retuned decoder ({results.main})"
    shown = pd.DataFrame(frame).T.rename_axis(["pictures", "guidance", "start", "decoder"])
    return Table("generated", shown, f"{caption}; {words.pictures(results.params)}.")


def sensitivity(results: Results) -> Table:
    """Distances of real works and of the untuned model, and which of them can tell decoders apart."""
    guidance = min(results.config.guidance)
    untuned = {start: results.cell(UNTUNED, guidance, "", start) for start in STARTS}
    count = f"original decoder, guidance {guidance:g}, {words.pictures(results.params)}"
    return sensitivities.table(results.values, [(UNTUNED, untuned)], sensitivities.OF_DECODERS, count)


def disagreements(results: Results) -> Text:
    """Where the main decoder in place of the original makes opposite changes at the two starts."""
    cases = product(results.config.models, results.config.guidance)
    pairs = [(results.cell(model, scale, results.main), results.cell(model, scale)) for model, scale in cases]
    return starts.disagreements(results.values, pairs, [*COMPARED, *starts.RECONSTRUCTED])


def exchanged(results: Results) -> Table:
    """What each retuned decoder changes of generated pictures' distances, the latents being the same."""
    config = results.config
    changes, metrics = {}, {}
    cases = product(config.models, config.guidance, STARTS, config.variants, DISTANCES)
    for model, guidance, start, name, measure in cases:
        before, after = (results.cell(model, guidance, decoder, start) for decoder in ("", name))
        interval = _change(results.values, measure, before, after)
        metric = starts.from_start(f"{measure}/{model}+{name}/guidance-{guidance:g}", start)
        metrics[metric] = Metric(interval, results.n)
        changes[model, guidance, start, name, measure] = words.plus_minus(interval)
    index = ["model", "guidance", "start", "decoder", "measure"]
    frame = pd.Series(changes).rename_axis(index).unstack("measure")[list(DISTANCES)]
    frame = frame.loc[list(dict.fromkeys(key[:-1] for key in changes))]
    caption = f"Decoder exchanged, same latents: change ± half of the 95 % interval; {words.pictures(results.params)}."
    return Table("exchanged", frame, caption, metrics)


def _interval(results: Results, measure: str, cell: str) -> Interval:
    return t_interval(results.values[measure, cell].tolist())


def _change(values: tables.Values, measure: str, before: str, after: str, scale: float = 1.0) -> Interval:
    """A measure of one cell less that of another, group by group."""
    return t_interval((scale * (values[measure, after] - values[measure, before])).tolist())


# ---------------------------------------------------------------------------------------------- the poster


def poster(results: Results) -> list[Item]:
    """The poster's table beside ours: as it stands, and with the decoder's loss less without."""
    cells = {
        (regime, guidance): [results.cell(f"rank{RANK}-{regime}", guidance, name) for name in ("", results.main)]
        for regime in REGIMES
        for guidance in results.config.guidance
        if (WITH, regime, guidance) in results.poster
    }
    cells = {key: ends for key, ends in cells.items() if ("fd", ends[1]) in results.values}
    if not cells:
        return [Text("The poster has none of the models whose pictures are decoded here.")]
    rows = {
        (*key, measure.upper()): _poster_row(results, key, ends, measure)
        for key, ends in cells.items()
        for measure in COMPARED
    }
    columns = ["paper, without", "paper, with", "here, without", "here, with"]
    blocks = pd.DataFrame(rows, index=columns).T.rename_axis(["regime", "guidance", "measure"])
    gains = pd.DataFrame({key: _poster_changes(results, key, ends) for key, ends in cells.items()})
    here = f"{results.main}, {words.pictures(results.params)}"
    return [
        Table("blocks", blocks, f"The poster's blocks and ours; FD: the paper's is FID; here: white noise, {here}."),
        Table(
            "on_sheets",
            gains.T.rename_axis(["regime", "guidance"]),
            f"With less without: FD and PR in per cent, PSD as it is; paper: FID; here, and corrected start: {here}.",
        ),
    ]


def _poster_row(results: Results, key: tuple[str, float], ends: list[str], measure: str) -> list[str]:
    """The poster's two values, ± standard deviations, and ours, ± half of the interval."""
    rows = [results.poster[block, *key] for block in (WITHOUT, WITH)]
    paper = [f"{row[measure]:.2f} ± {row[f'{measure}_sd']:.2f}" for row in rows]
    return [*paper, *(words.plus_minus(_interval(results, measure, cell), sign="") for cell in ends)]


def _poster_changes(results: Results, key: tuple[str, float], ends: list[str]) -> dict[str, float]:
    """With less without, the poster's and ours; FD and PR in per cent."""
    row = {}
    for measure in COMPARED:
        paper = [results.poster[block, *key][measure] for block in (WITHOUT, WITH)]
        sources = {"paper": paper, "here": _means(results, measure, ends)}
        corrected = [starts.from_start(cell, CORRECTED) for cell in ends]
        if all((measure, cell) in results.values for cell in corrected):
            sources["corrected"] = _means(results, measure, corrected)
        for name, (without, with_) in sources.items():
            row[f"{measure.upper()} {name}"] = with_ - without if measure == "psd" else 100 * (with_ / without - 1)
    return row


def _means(results: Results, measure: str, cells: list[str]) -> list[float]:
    return [float(results.values[measure, cell].mean()) for cell in cells]
