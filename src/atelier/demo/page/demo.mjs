// The page: loads the model on a click, paints whenever a control changes. `load` and `paint` are also what tests call.

import { firstLatent, lastLatent, pixels } from "./painting.mjs";
import { tokenizer } from "./tokenizer.mjs";

const MEGABYTE = 1e6;
const KEPT = 64; // pictures that are not painted again
const EXPLAINED = {
  "": "White noise alone, as nearly every sampler starts.",
  0: "Each element of the latent by itself gets the mean and spread that photographs have there.",
  1: "The mean of each latent channel, drawn as it varies over photographs: overall light and colour.",
  3: "The means and the gentlest slopes, top to bottom and left to right: light, colour and where they lie.",
};

// ---------------------------------------------------------------------------------------------- the model

async function fetched(path, about, arrived) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: the server answers ${response.status}`);
  const chunks = [];
  let size = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    size += value.length;
    arrived(value.length);
  }
  if (about && size !== about.bytes) throw new Error(`${path}: has ${size} bytes, ${about.bytes} were expected`);
  const whole = new Uint8Array(size);
  chunks.reduce((at, chunk) => (whole.set(chunk, at), at + chunk.length), 0);
  return whole;
}

const json = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

async function expanded(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** Fetch everything that the manifest lists and start the runtime; `progress(share)` is called as bytes arrive. */
export async function load(manifest, progress) {
  const { settings, files } = manifest;
  const runtime = files.runtime["ort-wasm-simd-threaded.wasm.gz"];
  const wanted = [...Object.values(files.networks), ...Object.values(files.tables), runtime];
  const total = wanted.reduce((sum, file) => sum + file.bytes, 0);
  let arrived = 0;
  const get = (file) => fetched(file.path, file, (bytes) => progress((arrived += bytes) / total));
  const networks = ["text_encoder", "denoiser", "decoder"].map((name) => get(files.networks[name]));
  Promise.all(networks).catch(() => {}); // a fault is said where the network is waited for
  const [ort, wasm, tokens, leaks] = await Promise.all([
    import("./runtime/ort.wasm.bundle.min.mjs"),
    get(runtime).then(expanded),
    get(files.tables.tokenizer).then(json),
    get(files.tables.leaks).then(json),
  ]);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = wasm;
  ort.env.logLevel = "error";
  const sessions = []; // the first compiles the runtime while the others arrive
  for (const bytes of networks) {
    sessions.push(await ort.InferenceSession.create(await bytes, { executionProviders: ["wasm"] }));
  }
  const [encoder, denoiser, decoder] = sessions;
  return { ort, settings, leaks, encoder, denoiser, decoder, encode: tokenizer(tokens), embedded: new Map() };
}

async function embedding(model, words) {
  if (!model.embedded.has(words)) {
    const numbers = BigInt64Array.from(model.encode(words), BigInt);
    const input = new model.ort.Tensor("int64", numbers, [1, numbers.length]);
    model.embedded.set(words, (await model.encoder.run({ words: input })).embeddings.data);
  }
  return model.embedded.get(words);
}

/** A decoded picture (3 x size x size), about [-1, 1]. `choice`: words, seed, guidance, leak ("" or N), colours. */
export async function paint(model, choice) {
  const { settings, ort } = model;
  const { channels, side } = settings.shape;
  const [plain, worded] = [await embedding(model, ""), await embedding(model, choice.words)];
  const embeddings = new Float32Array(2 * plain.length);
  embeddings.set(plain, 0);
  embeddings.set(worded, plain.length);
  const context = new ort.Tensor("float32", embeddings, [2, settings.tokens, settings.width]);
  const denoise = async (latents, time) => {
    const inputs = {
      latents: new ort.Tensor("float32", latents, [2, channels, side, side]),
      time: new ort.Tensor("float32", Float32Array.of(time), [1]),
      embeddings: context,
    };
    return (await model.denoiser.run(inputs)).noise.data;
  };
  const leak = choice.leak === "" ? null : model.leaks[choice.leak];
  const first = firstLatent(settings, leak, choice.colours, choice.seed);
  const last = await lastLatent(settings, first, choice.guidance, denoise);
  return (await model.decoder.run({ latents: new ort.Tensor("float32", last, [1, channels, side, side]) })).picture.data;
}

// ---------------------------------------------------------------------------------------------- the controls

const one = (selector) => document.querySelector(selector);
const settled = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

function say(text, fault = false) {
  one("#status").textContent = text;
  one("#status").classList.toggle("fault", fault);
}

function chosen() {
  return {
    words: one("#words").value.trim(),
    seed: Math.min(999999, Math.max(0, Math.trunc(Number(one("#seed").value)) || 0)),
    guidance: Number(one("#guidance").value),
    leak: one('input[name="leak"]:checked').value,
    colours: Array.from(document.querySelectorAll("#sliders input"), (slider) => Number(slider.value)),
  };
}

const without = (choice) => ({ ...choice, leak: "", colours: choice.colours.map(() => 0) });
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function draw(figure, picture, size, title, more) {
  const canvas = figure.querySelector("canvas");
  canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(new ImageData(pixels(picture), size, size), 0, 0);
  canvas.classList.remove("old");
  canvas.setAttribute("aria-label", `${title}: ${more}`);
  const bold = document.createElement("b");
  bold.textContent = title;
  figure.querySelector("figcaption").replaceChildren(bold);
}

function titleOf(choice) {
  const leak = choice.leak === "" ? "Without leak" : `With leak, N = ${choice.leak}`;
  return choice.colours.some((value) => value !== 0) ? `${leak}, colours shifted` : leak;
}

/** Paint what the controls say; while it paints, further changes are gathered into one. */
function painter(model) {
  const painted = new Map();
  let running = false;
  let again = false;

  async function picture(choice) {
    const key = JSON.stringify(choice);
    if (!painted.has(key)) {
      const began = performance.now();
      const made = await paint(model, choice);
      if (painted.size >= KEPT) painted.delete(painted.keys().next().value);
      painted.set(key, { made, seconds: (performance.now() - began) / 1000 });
      return { made, seconds: painted.get(key).seconds };
    }
    return { made: painted.get(key).made, seconds: null };
  }

  async function round() {
    const began = performance.now();
    const choice = chosen();
    const beside = without(choice);
    const compared = one("#compare").checked;
    one("#plain").hidden = !compared;
    document.querySelectorAll("canvas").forEach((canvas) => canvas.classList.add("old"));
    await settled();
    const times = [];
    const listed = compared && !same(choice, beside) ? [["#own", choice], ["#plain", beside]] : [["#own", choice]];
    for (const [place, each] of listed) {
      const { made, seconds } = await picture(each);
      if (seconds !== null) times.push(seconds);
      draw(one(place), made, model.settings.size, titleOf(each), each.words || "no words");
      document.body.dataset.drawn ??= performance.now();
      if (listed.length > 1) await settled(); // the first is seen while the other is painted
    }
    if (compared && listed.length === 1) {
      draw(one("#plain"), (await picture(choice)).made, model.settings.size, "Without leak: the same", choice.words);
    }
    const mean = times.reduce((sum, time) => sum + time, 0) / times.length;
    const taken = times.length ? `${mean.toFixed(2)} s a picture, ${model.settings.steps.length} steps` : "painted before";
    say(`Seed ${choice.seed}, guidance ${choice.guidance}: ${taken}.`);
    Object.assign(document.body.dataset, {
      painted: JSON.stringify(choice),
      seconds: times.length ? mean : "",
      round: (performance.now() - began) / 1000,
    });
  }

  return async function changed() {
    again = true;
    if (running) return;
    running = true;
    try {
      while (again) {
        again = false;
        await round();
      }
    } catch (fault) {
      say(`No picture: ${fault.message}`, true);
    } finally {
      running = false;
    }
  };
}

function swatch(colour) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of [["width", "100%"], ["height", "100%"], ["fill", colour]]) rect.setAttribute(name, value);
  svg.setAttribute("aria-hidden", "true");
  svg.append(rect);
  return svg;
}

function addSliders(settings) {
  for (const [number, { low, high }] of settings.colours.entries()) {
    const row = document.createElement("div");
    const slider = document.createElement("input");
    const value = document.createElement("output");
    row.className = "colour";
    Object.assign(slider, { type: "range", min: -settings.most, max: settings.most, step: 0.25, value: 0 });
    slider.setAttribute("aria-label", `Colour ${number + 1}, from ${low} to ${high}, in standard deviations`);
    value.textContent = "0";
    slider.addEventListener("input", () => (value.textContent = slider.value));
    row.append(swatch(low), slider, swatch(high), value);
    one("#sliders").append(row);
  }
  const shares = settings.colours.map(({ share }) => Math.round(100 * share));
  one("#shares").textContent = `From the top: ${shares.join(", ")} % of how photographs' means differ.`;
}

function explain() {
  one("#explained").textContent = EXPLAINED[chosen().leak];
}

function showGuidance() {
  one("#guided").textContent = one("#guidance").value;
}

function fill(settings) {
  addSliders(settings);
  one("#guidance").value = settings.guidance;
  one("#words").value = settings.examples[0];
  for (const words of settings.examples) {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.textContent = words;
    chip.addEventListener("click", () => {
      one("#words").value = words;
      one("#words").dispatchEvent(new Event("input", { bubbles: true }));
    });
    one("#examples").append(chip);
  }
  explain();
  showGuidance();
}

function listen(changed) {
  let waiting;
  one("#controls").addEventListener("submit", (event) => event.preventDefault());
  one("#controls").addEventListener("input", (event) => {
    explain();
    showGuidance();
    clearTimeout(waiting); // words are painted when the typing pauses
    waiting = setTimeout(changed, event.target.type === "text" ? 400 : 30);
  });
  one("#another").addEventListener("click", () => {
    one("#seed").value = (chosen().seed + 1) % 1000000;
    changed();
  });
  one("#reset").addEventListener("click", () => {
    document.querySelectorAll("#sliders input").forEach((slider) => {
      slider.value = 0;
      slider.dispatchEvent(new Event("input"));
    });
    changed();
  });
}

async function begin(manifest) {
  const clicked = performance.now();
  one("#load").disabled = true;
  one("#progress").hidden = false;
  say("Loading …");
  try {
    const model = await load(manifest, (share) => {
      one("#progress").value = share;
      if (share === 1) say("Starting …");
    });
    fill(manifest.settings);
    const changed = painter(model);
    one("#start").hidden = true;
    one("#controls").hidden = false;
    await changed();
    const first = (document.body.dataset.drawn - clicked) / 1000;
    document.body.dataset.first = first;
    one("#measured").textContent = `Here, ${first.toFixed(1)} s went by from the click to the first picture.`;
    listen(changed);
  } catch (fault) {
    say(`The model is not loaded: ${fault.message}`, true);
    one("#load").disabled = false;
    one("#progress").hidden = true;
  }
}

async function open() {
  one("#unserved").hidden = true;
  try {
    const manifest = json(await fetched("manifest.json", null, () => {}));
    const { networks, tables, runtime } = manifest.files;
    const listed = [...Object.values(networks), ...Object.values(tables), ...Object.values(runtime)];
    const size = listed.reduce((sum, file) => sum + file.bytes, 0) / MEGABYTE;
    one("#load").textContent = `Load the model (${Math.round(size)} MB)`;
    one("#load").addEventListener("click", () => begin(manifest));
    one("#start").hidden = false;
  } catch (fault) {
    say(`This folder is not whole: ${fault.message}`, true);
  }
}

if (typeof document !== "undefined") open();
