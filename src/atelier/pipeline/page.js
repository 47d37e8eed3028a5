
"use strict";
// Better with this, whole without: tables sort by a click on a head, claims are filtered, pictures enlarged.
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
  // a claim counts once, by its last profile, which has run the most
  const of = (row) => [...row.querySelectorAll(".verdict")].slice(-1).map((chip) => chip.textContent.trim().split(",")[0]);
  const counts = new Map();
  for (const row of rows) for (const said of of(row)) counts.set(said, (counts.get(said) || 0) + 1);
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
  const all = add(`all ${rows.length} claims that were measured`, null);
  for (const [said, count] of [...counts].sort((one, two) => two[1] - one[1])) add(`${said} ${count}`, said);
  show(null, all);
}
// The picture browser: tiles of a contact sheet enlarged, a variant over the baseline with a slider between them.
const make = (name, about, ...inside) => {
  const element = Object.assign(document.createElement(name), about);
  element.append(...inside);
  return element;
};
const browse = (figure) => {
  const texts = (selector) => [...figure.querySelectorAll(selector)].map((each) => each.textContent.trim());
  const prompts = texts(".columns li"), rows = texts(".rows li"), axes = texts(".sheets thead th").slice(0, -1);
  const sheets = [...figure.querySelectorAll(".sheets tbody tr")].map((row) => ({
    values: [...row.cells].slice(0, -1).map((cell) => cell.textContent.trim()),
    address: row.querySelector("a").getAttribute("href"),
  }));
  const { noun } = figure.dataset, sheet = figure.querySelector("img"), side = Number(figure.dataset.side), step = Number(figure.dataset.step);
  const baseline = figure.querySelector(".rows .real") ? 1 : 0;
  const variants = rows.length > baseline + 1 ? rows.slice(baseline + 1) : rows.slice(baseline);
  const first = rows.length - variants.length;
  const width = side * Math.max(1, Math.floor(384 / side));
  const canvas = (about) => make("canvas", { width, height: width, ...about });
  const labelled = (text, control) => make("label", {}, text, control);
  const select = (options) => make("select", {}, ...options.map((each) => make("option", { textContent: each })));

  const prompt = select(prompts.map((text, at) => `${at + 1}. ${text}`)), variant = select(variants);
  const settings = axes.map((_, at) => select([...new Set(sheets.map((each) => each.values[at]))]));
  const wipe = make("input", { type: "range", min: 0, max: 100, value: 50 });
  const pair = canvas(), real = baseline ? canvas() : null;
  const said = make("p", { className: "said" });
  said.setAttribute("aria-live", "polite");
  for (const each of [pair, real]) if (each) each.setAttribute("role", "img");
  const ends = make("p", { className: "ends" }, make("span"), make("span"));
  const stage = make("div", { className: "stage", tabIndex: 0 }, make("div", {}, pair));
  stage.setAttribute("role", "group");
  stage.setAttribute("aria-label", `Enlarged pictures: arrow left and right for the ${noun}, up and down for the variant`);
  if (real) stage.append(make("div", {}, real));
  const under = make("div", { className: "under" }, ends, labelled("wipe between the two", wipe));
  stage.firstChild.append(under);
  if (real) stage.lastChild.append(make("p", { className: "ends" }, make("span", { textContent: rows[0] })));
  const shown = settings.map((each, at) => [axes[at], each]).filter(([, each]) => each.options.length > 1);
  const controls = make("div", { className: "controls" }, labelled(noun, prompt), labelled("variant", variant),
    ...shown.map(([axis, each]) => labelled(axis, each)));
  const hint = `Arrow keys on the pictures: \u2190 \u2192 another ${noun}, \u2191 \u2193 another variant. A click on a tile chooses it.`;
  const panel = make("div", { className: "panel" }, controls, stage, said, make("p", { textContent: hint }));
  panel.setAttribute("role", "group");
  panel.setAttribute("aria-label", "Picture browser");
  const mark = make("div", { className: "mark" }), place = make("div", { className: "place" });
  sheet.replaceWith(panel, place);
  place.append(sheet, mark);

  const tile = (row) => [
    sheet.naturalWidth - (prompts.length - prompt.selectedIndex) * step,
    sheet.naturalHeight - (rows.length - row) * step, side, side,
  ];
  const enlarged = (on, row, part) => {
    const context = on.getContext("2d");
    context.imageSmoothingEnabled = false; // pixels as they are
    context.save();
    context.beginPath();
    context.rect(0, 0, part * width, width);
    context.clip();
    context.drawImage(sheet, ...tile(row), 0, 0, width, width);
    context.restore();
    return context;
  };
  const draw = () => {
    if (!sheet.complete || !sheet.naturalWidth) return;
    const row = first + variant.selectedIndex, part = wipe.value / 100, name = variants[variant.selectedIndex];
    enlarged(pair, baseline, 1);
    const context = enlarged(pair, row, part);
    context.fillStyle = "#000";
    context.fillRect(part * width - 2, 0, 4, width);
    context.fillStyle = "#fff";
    context.fillRect(part * width - 1, 0, 2, width);
    if (real) enlarged(real, 0, 1);
    const setting = shown.map(([axis, each]) => `, ${axis} ${each.value}`).join("");
    const of = `${noun} ${prompt.selectedIndex + 1} of ${prompts.length}: ${prompts[prompt.selectedIndex]}`;
    ends.firstChild.textContent = `left: ${name}`;
    ends.lastChild.textContent = `right: ${rows[baseline]}`;
    said.textContent = `${of[0].toUpperCase()}${of.slice(1)}; ${name} beside ${rows[baseline]}${setting}.`;
    pair.setAttribute("aria-label", `Left ${name}, right ${rows[baseline]}; ${of}${setting}`);
    wipe.setAttribute("aria-valuetext", `${wipe.value} % ${name}, ${100 - wipe.value} % ${rows[baseline]}`);
    if (real) real.setAttribute("aria-label", `${rows[0]}, ${of}`);
    const [left, top] = tile(row);
    const share = (pixels, of) => `${(100 * pixels) / of}%`;
    Object.assign(mark.style, {
      left: share(left, sheet.naturalWidth), top: share(top, sheet.naturalHeight),
      width: share(side, sheet.naturalWidth), height: share(side, sheet.naturalHeight),
    });
  };
  const another = () => {
    const wanted = settings.map((each) => each.value);
    const found = sheets.find(({ values }) => values.every((value, at) => value === wanted[at]));
    if (found && sheet.getAttribute("src") !== found.address) sheet.src = found.address; // then drawn as it is loaded
    else draw();
  };
  const move = (list, by) => {
    list.selectedIndex = (list.selectedIndex + by + list.options.length) % list.options.length;
    draw();
  };
  const keys = { ArrowLeft: [prompt, -1], ArrowRight: [prompt, 1], ArrowUp: [variant, -1], ArrowDown: [variant, 1] };
  stage.addEventListener("keydown", (event) => {
    if (event.target !== stage || !keys[event.key]) return;
    event.preventDefault();
    move(...keys[event.key]);
  });
  const drag = (event) => {
    if (!event.buttons) return;
    const box = pair.getBoundingClientRect();
    wipe.value = (100 * (event.clientX - box.left)) / box.width;
    draw();
  };
  for (const kind of ["pointerdown", "pointermove"]) pair.addEventListener(kind, drag);
  place.addEventListener("click", (event) => { // a tile of the sheet
    const box = sheet.getBoundingClientRect(), scale = sheet.naturalWidth / box.width;
    const column = prompts.length - Math.ceil((sheet.naturalWidth - (event.clientX - box.left) * scale) / step);
    const row = rows.length - Math.ceil((sheet.naturalHeight - (event.clientY - box.top) * scale) / step);
    if (column >= 0 && column < prompts.length) prompt.selectedIndex = column;
    if (row >= first && row < rows.length) variant.selectedIndex = row - first;
    draw();
  });
  for (const each of [prompt, variant]) each.addEventListener("change", draw);
  for (const each of settings) each.addEventListener("change", another);
  wipe.addEventListener("input", draw);
  sheet.addEventListener("load", draw);
  draw();
};
for (const figure of document.querySelectorAll("figure.browser")) browse(figure);
// a link into a folded part opens it
const unfold = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", unfold);
unfold();
