"""What a style sheet cannot do for a table: one row of heads, ``scope``, and which columns are numbers."""

import re
from collections.abc import Sequence

from bs4 import BeautifulSoup, Tag


def ruled(html: str, label: str, caption: str = "", folded: str = "") -> str:
    """Set each table of ``html``, in a frame that scrolls; ``label`` names it for a screen reader.

    ``folded``: a line in whose place the table unfolds; "": it is open.
    """
    soup = BeautifulSoup(html, "html.parser")
    for style in soup.select("style[scoped], style[type='text/css']"):  # pandas sends one with every frame and Styler
        style.decompose()
    for table in soup.find_all("table"):
        _set(table)
        if caption:
            table["class"] = "sortable"
            table.insert(0, BeautifulSoup(f"<caption><span>{caption}</span></caption>", "html.parser"))
        role = {"class": "scroll", "role": "region", "tabindex": "0", "aria-label": label}
        frame = table.wrap(soup.new_tag("div", attrs=role))
        if folded:
            frame.wrap(soup.new_tag("details", attrs={"class": "table"}))
            frame.insert_before(BeautifulSoup(f"<summary>{folded}</summary>", "html.parser"))
    return str(soup)


def _set(table: Tag) -> None:
    del table["border"]
    for blank in [text for text in table.find_all(string=True) if not text.strip()]:
        blank.extract()
    for line in table.find_all("tr"):
        line.attrs.clear()  # pandas aligns heads by attributes
    heads = _one_row(_rows(table.thead))
    body = _rows(table.tbody)
    # counted from the right, where row labels do not interfere
    width = min((sum(cell.name == "td" for cell in row) for row in body), default=0)
    numbers = {column for column in range(1, width + 1) if all(_is_number(row[-column]) for row in body)}
    for scope, rows in (("col", heads), ("row", body)):
        for row in rows:
            wide = any(cell.has_attr("colspan") for cell in row)
            for column, cell in zip(range(len(row), 0, -1), row, strict=True):
                if cell.name == "th":
                    cell["scope"] = scope
                if column in numbers and not wide:
                    cell["class"] = "number"


def _rows(part: Tag | None) -> list[list[Tag]]:
    rows = part.find_all("tr") if part else []
    return [[cell for cell in row.find_all(["th", "td"]) if isinstance(cell, Tag)] for row in rows]


def _one_row(heads: Sequence[list[Tag]]) -> Sequence[list[Tag]]:
    """One row of heads where pandas writes two: the columns' names above, the name of the row labels below."""
    if len(heads) != 2 or len(heads[0]) != len(heads[1]):
        return heads
    above, below = heads
    if any(one.text and other.text for one, other in zip(above, below, strict=True)):
        return heads
    for one, other in zip(above, below, strict=True):
        one.extend(list(other.contents))
    below[0].parent.decompose()  # type: ignore[union-attr]
    return [above]


def _is_number(cell: Tag) -> bool:
    """A number, an interval such as "0.1 to 0.2", or a dash or blank where there is none."""
    return not any(letter.isalpha() for letter in re.sub(r"\bto\b|nan|NaN|inf|\de[-+]?\d", "", cell.text))
