
"use strict";
// Better with this, whole without: tables sort by a click on a head, claims are filtered by verdict.
const number = (text) => {
  const match = text.replace(/[\u2212\u2013]/g, "-").replace(/,/g, "").match(/-?\d+(\.\d+)?([eE][-+]?\d+)?/);
  return match ? Number(match[0]) : NaN;
};
const sortBy = (head) => {
  const table = head.closest("table"), column = head.cellIndex, body = table.tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[column] ? row.cells[column].textContent.trim() : "";
  const rows = [...body.rows].sort((one, two) => {
    const [a, b] = [value(one), value(two)], [x, y] = [number(a), number(b)];
    const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
    return down ? -order : order;
  });
  body.append(...rows);
};
for (const head of document.querySelectorAll(".sortable thead th")) {
  head.tabIndex = 0;
  head.title = "sort by this column";
  head.addEventListener("click", () => sortBy(head));
  head.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sortBy(head); }
  });
}
const filters = document.querySelector(".filters");
if (filters) {
  const rows = [...document.querySelectorAll(".claims tbody tr")];
  const of = (row) => [...row.querySelectorAll(".verdict")].map((chip) => chip.textContent.trim().split(",")[0]);
  const counts = new Map();
  for (const row of rows) for (const said of new Set(of(row))) counts.set(said, (counts.get(said) || 0) + 1);
  const show = (wanted, pressed) => {
    for (const row of rows) row.hidden = wanted !== null && !of(row).includes(wanted);
    for (const button of filters.children) button.setAttribute("aria-pressed", String(button === pressed));
  };
  const add = (label, wanted) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", () => show(wanted, button));
    filters.append(button);
    return button;
  };
  const all = add(`all ${rows.length} claims of the papers`, null);
  for (const [said, count] of [...counts].sort((one, two) => two[1] - one[1])) add(`${said} ${count}`, said);
  show(null, all);
}
// a link into a folded part opens it
const unfold = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", unfold);
unfold();
