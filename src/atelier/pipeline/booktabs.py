"""Tables as journals set them: thin rules, one row of heads, numbers to the right, in a frame that scrolls."""

import re

from bs4 import BeautifulSoup, Tag


def ruled(html: str, label: str, caption: str | None) -> str:
    """HTML with each of its tables set so; ``label`` is its name for a screen reader, ``caption`` HTML."""
    if "<table" not in html:
        return html
    soup = BeautifulSoup(html, "html.parser")
    for style in soup.find_all("style", scoped=True):  # pandas sends it with every frame
        style.decompose()
    for table in soup.find_all("table"):
        _strip(table)
        _join_heads(table)
        _align(table)
        if caption:
            table.insert(0, BeautifulSoup(f"<caption>{caption}</caption>", "html.parser"))
        frame = {"class": "scroll", "role": "region", "tabindex": "0", "aria-label": label}
        table.wrap(soup.new_tag("div", attrs=frame))
    return str(soup)


def _strip(table: Tag) -> None:
    del table["border"]
    for row in table.find_all("tr"):
        del row["style"]
    for cell in table.find_all("th"):
        cell["scope"] = "row" if cell.find_parent("tbody") else "col"


def _join_heads(table: Tag) -> None:
    """One row of heads where pandas writes two: the columns' names above, the name of the row labels below."""
    rows = [row.find_all("th") for row in table.select("thead tr")]
    if len(rows) != 2 or len(rows[0]) != len(rows[1]):
        return
    pairs = [(above, below) for above, below in zip(*rows, strict=True) if below.get_text(strip=True)]
    if all(not above.get_text(strip=True) for above, _ in pairs):
        for above, below in pairs:
            above.string = below.get_text()
        table.select("thead tr")[1].decompose()


def _align(table: Tag) -> None:
    """Columns of numbers to the right, with their heads; counted from the right, where row labels do not interfere."""
    rows = [row.find_all(["td", "th"]) for row in table.find_all("tr")]
    body = [row for row in rows if any(cell.name == "td" for cell in row)]
    width = min((sum(cell.name == "td" for cell in row) for row in body), default=0)
    for place in range(1, width + 1):
        if not all(_is_number(row[-place].get_text()) for row in body):
            continue
        for row in rows:
            if place <= len(row) and not any(cell.get("colspan") for cell in row):
                row[-place]["class"] = " ".join([*(row[-place].get("class") or []), "number"])


def _is_number(text: str) -> bool:
    """A number, an interval such as "0.1 to 0.2", or a dash or blank where there is none."""
    return not any(letter.isalpha() for letter in re.sub(r"\bto\b|nan|NaN|inf|\de[-+]?\d", "", text))
