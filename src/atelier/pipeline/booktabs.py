"""Tables as journals set them, where a style sheet cannot: one row of heads, ``scope``, and which columns are numbers.

It works on the text that pandas writes and on Markdown's tables, which never hold a table within a table.
"""

import re
from html import escape, unescape

TABLE = re.compile(r"(<table\b[^>]*>)(.*?</table>)", re.DOTALL)
ROW = re.compile(r"<tr\b[^>]*>(.*?)</tr>", re.DOTALL)
CELL = re.compile(r"<(t[hd])\b([^>]*)>(.*?)</t[hd]>", re.DOTALL)
PANDAS_STYLE = re.compile(r"<style scoped>.*?</style>\s*", re.DOTALL)  # sent with every frame


def ruled(html: str, label: str, caption: str = "") -> str:
    """Each table of ``html`` so set, in a frame that scrolls; ``label`` names it for a screen reader."""
    frame = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
    head = f"<caption>{caption}</caption>" if caption else ""
    shown = PANDAS_STYLE.sub("", html).replace('<table border="1"', "<table")
    return TABLE.sub(lambda table: f"{frame}{table[1]}{head}{_set(table[2])}</div>", shown)


def _set(content: str) -> str:
    """A table's rows; the columns of numbers are counted from the right, where row labels do not interfere."""
    head, end, body = content.partition("</thead>")
    rows = [CELL.findall(row) for row in ROW.findall(body)]
    width = min((sum(tag == "td" for tag, _, _ in row) for row in rows), default=0)
    numbers = {column for column in range(1, width + 1) if all(_is_number(row[-column][2]) for row in rows)}
    return re.sub(r">\s+<", "><", _marked(_one_row(head), "col", numbers) + end + _marked(body, "row", numbers))


def _one_row(head: str) -> str:
    """One row of heads where pandas writes two: the columns' names above, the name of the row labels below."""
    rows = [CELL.findall(row) for row in ROW.findall(head)]
    if len(rows) != 2 or len(rows[0]) != len(rows[1]) or any(a and b for (*_, a), (*_, b) in zip(*rows, strict=True)):
        return head
    return "<thead><tr>" + "".join(f"<th>{a or b}</th>" for (*_, a), (*_, b) in zip(*rows, strict=True)) + "</tr>"


def _marked(part: str, scope: str, numbers: set[int]) -> str:
    def row(match: re.Match[str]) -> str:
        count, wide = len(CELL.findall(match[1])), "colspan" in match[1]
        columns = iter(range(count, 0, -1))

        def cell(match: re.Match[str]) -> str:
            right = next(columns) in numbers and not wide
            marks = (f' scope="{scope}"' if match[1] == "th" else "") + (' class="number"' if right else "")
            return f"<{match[1]}{match[2]}{marks}>{match[3]}</{match[1]}>"

        return f"<tr>{CELL.sub(cell, match[1])}</tr>"

    return ROW.sub(row, part)


def _is_number(text: str) -> bool:
    """A number, an interval such as "0.1 to 0.2", or a dash or blank where there is none."""
    shown = unescape(re.sub("<.*?>", "", text))
    return not any(letter.isalpha() for letter in re.sub(r"\bto\b|nan|NaN|inf|\de[-+]?\d", "", shown))
