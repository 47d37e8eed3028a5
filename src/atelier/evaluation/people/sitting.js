"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const KEPT = `atelier-ab-${data.page}`; // in the browser's own storage
  const NAME = /^[\p{L}\p{N}][\p{L}\p{N}\p{M} ._'-]{0,39}$/u;
  const COLUMNS = ["rater", "sitting", "pair", "question", "answer", "milliseconds"];
  const LEAST = 150; // milliseconds: a key that was struck twice answers once
  const SMALL = 256; // pixels of a side, below which a picture is shown pixel by pixel
  const SECONDS = 5; // an answer takes about
  const QUESTIONS = {
    flaws: {
      title: "Visual flaws",
      ask: "Which picture has fewer visual flaws?",
      text: [
        "Look for major flaws, such as displaced or missing parts, and for minor flaws, such as distorted eyes or other details.",
        "Blur, blocks, stripes, speckle and halos are flaws, too. A style is not one: brush strokes and dots may be meant.",
        "Whether you like a picture does not matter here. Where you see no difference, say tie.",
      ],
      reject: false,
    },
    appeal: {
      title: "Visual appeal",
      ask: "Which picture is more aesthetically pleasing?",
      text: [
        "Now say which picture pleases you more, as a picture.",
        "Where one is photo-realistic and the other stylised (a cartoon, say), they are not comparable: the fourth button, or the key 4.",
        "Where you like both as much, say tie.",
      ],
      reject: true,
    },
  };
  const ANSWERS = ["left", "tie", "right", "reject"];
  const KEYS = {
    ArrowLeft: "left", 1: "left", ArrowDown: "tie", 2: "tie", ArrowRight: "right", 3: "right", 4: "reject", r: "reject",
  };
  const $ = (id) => document.getElementById(id);
  const images = [...document.querySelectorAll(".picture img")];
  const storage = opened();

  let state = null; // {rater, sitting, answers: [[answer, milliseconds], ...], saved}
  let since = null; // when the pair on the screen was complete; null: it is not yet

  function opened() {
    try {
      window.localStorage.setItem(`${KEPT}-try`, "1");
      window.localStorage.removeItem(`${KEPT}-try`);
      return window.localStorage;
    } catch {
      return null;
    }
  }

  function keep() {
    try {
      if (storage) storage.setItem(KEPT, JSON.stringify(state));
    } catch {} // full: answers stay in the page
  }

  // what an earlier visit left, or null: whatever else stands there is not trusted
  function restored() {
    try {
      const kept = JSON.parse(storage.getItem(KEPT));
      const shown = data.sittings[kept.sitting].shown;
      const fits = ([answer, milliseconds], i) =>
        i < shown.length && ANSWERS.includes(answer) && Number.isInteger(milliseconds) && milliseconds >= 0 &&
        (answer !== "reject" || QUESTIONS[shown[i][1]].reject);
      if (!NAME.test(kept.rater) || !kept.answers.length || !kept.answers.every(fits)) return null;
      return { rater: kept.rater, sitting: kept.sitting, answers: kept.answers, saved: kept.saved === true };
    } catch {
      return null;
    }
  }

  const all = () => data.sittings[state.sitting].shown;
  const at = () => state.answers.length;
  const questionOf = (i) => all()[i][1];
  const ofQuestion = (i) => all().filter((each) => each[1] === questionOf(i));
  const place = (i) => ofQuestion(i).indexOf(all()[i]) + 1;

  function show(id) {
    since = null;
    for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== id;
    document.body.dataset.shown = id;
    window.scrollTo(0, 0);
  }

  function say(text) {
    $("status").textContent = text;
  }

  // ---------------------------------------------------------------------------------------------- start

  function start() {
    const kept = state || restored();
    show("start");
    $("where").textContent = storage ? "in this browser" : "in this page, and closing it loses them,";
    $("minutes").textContent = Math.max(1, Math.round((data.sittings[0].shown.length * SECONDS) / 60));
    $("sitting").replaceChildren(
      ...data.sittings.map(({ shown }, i) => {
        const option = document.createElement("option");
        const pairs = shown.filter((each) => each[1] === shown[0][1]).length;
        [option.value, option.textContent] = [i, `${i + 1} of ${data.sittings.length} (${pairs} pairs)`];
        return option;
      }),
    );
    $("choice").hidden = data.sittings.length < 2;
    $("kept").hidden = !kept || !kept.answers.length;
    if (kept) {
      state = kept;
      const whole = at() === all().length;
      $("kept-says").textContent =
        `${state.rater}, sitting ${state.sitting + 1}: ${whole ? "all" : at()} of ${all().length} answered` +
        `${state.saved ? ", saved" : ", not saved yet"}.`;
      $("continue").textContent = whole ? "Back to its end" : "Continue";
      $("continue").classList.toggle("main", !whole);
      $("kept-save").textContent = `Save ${whole ? "them" : "the answers so far"}${state.saved ? " again" : ""}`;
      $("discards").hidden = state.saved;
      $("rater").value = state.rater;
      const next = state.sitting + (whole ? 1 : 0);
      $("sitting").value = Math.min(next, data.sittings.length - 1);
    }
    const ended = kept && at() === all().length;
    (ended ? $("begin") : $("kept").hidden ? $("rater") : $("continue")).focus();
  }

  function begin(event) {
    event.preventDefault();
    const rater = $("rater").value.normalize("NFC").trim();
    if (!NAME.test(rater)) {
      $("rater-error").textContent = "A name of letters and digits, at most 40, please.";
      $("rater").setAttribute("aria-invalid", "true");
      $("rater").focus();
      return;
    }
    $("rater-error").textContent = "";
    $("rater").removeAttribute("aria-invalid");
    state = { rater, sitting: Number($("sitting").value), answers: [], saved: false };
    keep();
    advance();
  }

  // ---------------------------------------------------------------------------------------------- a part, a pair

  function advance() {
    if (at() === all().length) finish();
    else if (place(at()) === 1) introduce();
    else ask();
  }

  function introduce() {
    const names = Object.keys(QUESTIONS);
    const name = questionOf(at());
    show("part");
    $("part-count").textContent = `Part ${names.indexOf(name) + 1} of ${names.length}: ${ofQuestion(at()).length} pairs`;
    $("part-title").textContent = QUESTIONS[name].title;
    const lines = [QUESTIONS[name].ask, ...QUESTIONS[name].text].map((text, i) => {
      const line = document.createElement("p");
      line.textContent = text;
      if (i === 0) line.className = "lead";
      return line;
    });
    $("part-text").replaceChildren(...lines);
    $("go").focus();
  }

  async function ask() {
    const i = at();
    const [pair, name, ...numbers] = all()[i];
    show("pair");
    $("count").textContent = `${QUESTIONS[name].title}: ${place(i)} of ${ofQuestion(i).length}`;
    $("question").textContent = QUESTIONS[name].ask;
    [$("progress").max, $("progress").value] = [all().length, i];
    document.querySelector('[data-answer="reject"]').hidden = !QUESTIONS[name].reject;
    $("undo").disabled = i === 0;
    $("pair").dataset.pair = pair;
    images.forEach((image, side) => (image.src = data.pictures[numbers[side]]));
    await Promise.all(images.map((image) => image.decode().catch(() => null)));
    if (state === null || at() !== i || $("pair").hidden) return; // taken back meanwhile
    fit();
    say(`${$("count").textContent}. ${QUESTIONS[name].ask}`);
    if (!$("pair").contains(document.activeElement)) $("question").focus({ preventScroll: true });
    since = performance.now();
    document.body.dataset.ready = pair;
  }

  // a small picture is enlarged by a whole number of the screen's pixels, both alike
  function fit() {
    const width = document.querySelector(".pictures").clientWidth;
    const gap = parseFloat(getComputedStyle(document.querySelector(".pictures")).columnGap) || 0;
    const room = [(width - gap) / 2, Math.max(160, window.innerHeight * 0.58)];
    const { naturalWidth, naturalHeight } = images[0];
    const ratio = window.devicePixelRatio || 1;
    const most = Math.min(room[0] / naturalWidth, room[1] / naturalHeight);
    const small = Math.max(naturalWidth, naturalHeight) < SMALL;
    const scale = small && most * ratio >= 1 ? Math.floor(most * ratio) / ratio : most;
    for (const image of images) {
      image.classList.toggle("coarse", small);
      [image.width, image.height] = [naturalWidth * scale, naturalHeight * scale];
    }
  }

  function answer(what) {
    const now = performance.now();
    if (since === null || now - since < LEAST) return;
    if (what === "reject" && !QUESTIONS[questionOf(at())].reject) return;
    state.answers.push([what, Math.round(now - since)]);
    state.saved = false;
    keep();
    advance();
  }

  function undo() {
    if (!state.answers.length) return;
    state.answers.pop();
    state.saved = false;
    keep();
    ask();
  }

  // ---------------------------------------------------------------------------------------------- a picture, enlarged

  function enlarge(side) {
    const name = side ? "Right" : "Left";
    for (const button of document.querySelectorAll("[data-zoom]"))
      button.setAttribute("aria-pressed", String(Number(button.dataset.zoom) === side));
    [$("zoomed").src, $("zoomed").alt] = [images[side].src, `${name} picture, enlarged`];
    $("zoomed").className = images[side].className;
    if (!$("zoom").open) $("zoom").showModal();
  }

  // ---------------------------------------------------------------------------------------------- the end

  function finish() {
    show("done");
    const rest = data.sittings.length > 1;
    $("done-says").textContent =
      `All ${all().length} questions of this sitting are answered. Save the answers as a file, and send it to whoever asked you.`;
    $("another").hidden = !rest;
    $("saved").textContent = "";
    say("Thank you. All questions of this sitting are answered.");
    $("save").focus();
  }

  function table() {
    const { id } = data.sittings[state.sitting];
    const rows = state.answers.map(([what, milliseconds], i) =>
      [state.rater, id, all()[i][0], questionOf(i), what, milliseconds].join(","),
    );
    return [COLUMNS.join(","), ...rows, ""].join("\n");
  }

  function save() {
    const link = document.createElement("a");
    const rater = state.rater.replace(/[^\p{L}\p{N}]+/gu, "-");
    link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
    link.download = `votes-${data.sittings[state.sitting].id}-${rater}.csv`;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    state.saved = true;
    keep();
    $("saved").textContent = `Saved as ${link.download}, where your browser keeps downloads.`;
    if ($("done").hidden) say($("saved").textContent);
  }

  // ---------------------------------------------------------------------------------------------- keys and buttons

  function struck(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $("pair").hidden) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const what = KEYS[key];
    if ($("zoom").open) {
      if (what === "left" || what === "right") enlarge(what === "left" ? 0 : 1);
      else if (key === "z") $("zoom").close();
      else return;
    } else if (key === "Backspace" || key === "u") {
      if (!event.repeat) undo();
    } else if (key === "z") {
      enlarge(0);
    } else if (what) {
      if (!event.repeat) answer(what);
    } else return;
    event.preventDefault(); // arrows would scroll
  }

  document.addEventListener("keydown", struck);
  $("form").addEventListener("submit", begin);
  $("continue").addEventListener("click", advance);
  $("go").addEventListener("click", ask);
  $("another").addEventListener("click", start);
  for (const id of ["undo", "back"]) $(id).addEventListener("click", undo);
  for (const id of ["save", "save-now", "kept-save"]) $(id).addEventListener("click", save);
  for (const button of document.querySelectorAll("[data-answer]"))
    button.addEventListener("click", () => answer(button.dataset.answer));
  for (const button of document.querySelectorAll(".picture"))
    button.addEventListener("click", () => enlarge(Number(button.dataset.side)));
  for (const button of document.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => enlarge(Number(button.dataset.zoom)));
  for (const id of ["zoom-close", "zoomed"]) $(id).addEventListener("click", () => $("zoom").close());
  window.addEventListener("resize", () => since !== null && fit());
  window.addEventListener("beforeunload", (event) => {
    if (!storage && state && state.answers.length && !state.saved) event.preventDefault();
  });
  start();
})();
