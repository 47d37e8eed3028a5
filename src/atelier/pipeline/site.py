"""The folder that a reader opens: an index, and each study's page, notebook, figures, tables and metrics."""

import json
import math
import shutil
from base64 import b64decode, b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nbformat import NotebookNode
from PIL import Image

from atelier.pipeline import markdown, page, scrub
from atelier.pipeline.cells import fold


def build(studies: Path, site: Path, order: Sequence[str], profile: str, params: Path) -> None:
    """Write ``site`` anew from the folders in ``studies``, one for each name of ``order``.

    Raises ValueError when a study is missing, was made with another profile, or stands there and is not asked for.
    """
    present = sorted(path.name for path in studies.iterdir() if path.is_dir()) if studies.is_dir() else []
    if odd := sorted(set(order) ^ set(present)):
        raise ValueError(f"{studies}: expected the studies {', '.join(order)}; missing or too many: {', '.join(odd)}")
    entries = [_entry(studies / name, profile) for name in order]
    shutil.rmtree(site, ignore_errors=True)
    for name in order:
        shutil.copytree(studies / name, site / name)
    shutil.copyfile(params, site / "params.yaml")
    parameters = f"<pre><code>{escape(params.read_text(encoding='utf-8'), quote=False)}</code></pre>"
    index = page.document(
        title="Atelier: studies",
        head=f"<p>Atelier</p>{page.run_mark(profile)}",
        content="\n".join(["<h1>Studies</h1>", *entries, fold("parameters", parameters)]),
        foot=f'Profile <code>{escape(profile)}</code>, all of it in <a href="params.yaml">params.yaml</a>.',
        kind="index",
    )
    (site / "index.html").write_text(index, encoding="utf-8")


def _entry(folder: Path, profile: str) -> str:
    name = folder.name
    notebook = scrub.read(folder / f"{name}.ipynb")
    places = ((f"{name}.html", "page"), (f"{name}.ipynb", "notebook"), ("metrics.json", "metrics"))
    links = " ".join(f'<a href="{name}/{place}">{label}</a>' for place, label in places if (folder / place).exists())
    return f"""<article>
<h2><a href="{name}/{name}.html">{escape(page.title(notebook), quote=False)}</a></h2>
<p>{_claim(notebook)}</p>
{_headline(folder / "metrics.json", profile)}
<p class="links">{links}</p>
{_files(folder)}
<div class="thumbnail">{_thumbnail(notebook)}</div>
</article>"""


def _files(folder: Path) -> str:
    """Links to the figures and tables, one by one: a folder's address opens nothing on a web server."""
    paths = [path for part in ("figures", "tables") for path in sorted((folder / part).glob("*"))]
    addresses = [quote(path.relative_to(folder.parent).as_posix()) for path in paths]
    items = [f'<li><a href="{address}">{address.split("/", 1)[1]}</a></li>' for address in addresses]
    return fold("figures and tables", f"<ul>{''.join(items)}</ul>") if paths else ""


def _claim(notebook: NotebookNode) -> str:
    """The first paragraph."""
    lines: list[str] = []
    for line in page.prose(notebook).splitlines():
        if line.strip() and not line.startswith("#"):
            lines.append(line)
        elif lines:
            break
    return markdown.inline("\n".join(lines))


def _thumbnail(notebook: NotebookNode) -> str:
    """The first figure, small and in the page itself."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if data := output.get("data", {}).get("image/png"):
                picture = Image.open(BytesIO(b64decode(data))).convert("RGB")
                picture.thumbnail((720, 720), Image.Resampling.LANCZOS)
                file = BytesIO()
                picture.save(file, "PNG", optimize=True)
                return f'<img src="data:image/png;base64,{b64encode(file.getvalue()).decode()}" alt="">'
    return ""


def _headline(path: Path, profile: str) -> str:
    """The metrics that a study names as its headline. Raises ValueError when it has none of a name."""
    if not path.exists():
        return ""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["profile"] != profile:
        raise ValueError(f"{path}: made with profile '{content['profile']}', the parameters say '{profile}'")
    rows = []
    for name in content.get("headline", []):
        if name not in content["metrics"]:
            raise ValueError(f"{path}: headline '{name}' is no metric")
        rows.append(_row(name, content["metrics"][name]))
    if not rows:
        return ""
    head = '<th scope="col">measure</th><th class="number" scope="col">value</th>'
    head += '<th class="number" scope="col">interval</th><th class="number" scope="col">n</th>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{"".join(rows)}</tbody></table></div>'


def _row(name: str, metric: dict[str, Any]) -> str:
    value, low, high = (_number(metric[part], metric["value"]) for part in ("value", "low", "high"))
    interval = f"{low} to {high}" if low and high else ""
    unit = "" if metric["unit"] == "1" else escape(metric["unit"])
    cells = (f"{value} {unit}".strip(), interval, f"{metric['n']:,}")
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{escape(name.replace("_", " "))}</th>{numbers}</tr>\n'


def _number(number: float | None, scale: float | None) -> str:
    """Three significant digits of ``scale``, so that a value and its interval show the same decimals."""
    if number is None or scale is None:
        return ""
    if not math.isfinite(scale) or 0 < abs(scale) < 1e-4:
        return f"{number:.2e}".replace("-", "−")
    decimals = max(0, 2 - math.floor(math.log10(abs(scale)))) if scale else 3
    return f"{number:,.{decimals}f}".replace("-", "−")
