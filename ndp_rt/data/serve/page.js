// The page: asks once a second for what is new, and shows it. Texts are set as texts, never as markup.

import { drawBrightness, drawHistogram, drawScores, showScore, showTime } from "./plot.js";
import { Viewer, element, stack, word } from "./viewer.js";

const POLL_MS = 1000, MODELS_MS = 10000, SLOWEST_MS = 10000, SPOKEN_MS = 10000;
const ROW_COUNT = 2000, PICTURE_COUNT = 48, CARD_COUNT = 24, TABLE_COUNT = 100;
const TOKEN = "ndp-rt token";
const find = (id) => document.getElementById(id);

const state = {
  model: null, id: "", rows: [], pictures: new Map(), addresses: new Map(), cards: new Map(), models: [],
  isPaused: false, failures: 0, timer: 0, polls: 0, modelsMs: 0, spokenMs: 0, unspoken: 0, findRow: () => null,
};

class NeedsToken extends Error {}

async function request(path, parameters) {
  const token = sessionStorage.getItem(TOKEN);
  const query = new URLSearchParams(parameters).toString();
  const answer = await fetch(query ? `${path}?${query}` : path, { headers: token ? { authorization: `Bearer ${token}` } : {}, cache: "no-store" });
  if (answer.status === 401) throw new NeedsToken();
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `status ${answer.status}`);
  return answer;
}

const ask = async (path, parameters = {}) => (await request(path, { ...state.model, ...parameters })).json();

const describeKey = (picture, kind) => `${picture.id} ${picture.number} ${kind}`;

function load(picture, kind) { // the address of a picture, asked for once; of a service that has begun anew none
  const key = describeKey(picture, kind);
  if (!state.addresses.has(key)) {
    const asking = request("page/picture", { ...state.model, id: picture.id, number: picture.number, kind }).then(async (answer) => URL.createObjectURL(await answer.blob()));
    asking.catch(() => state.addresses.delete(key));
    state.addresses.set(key, asking);
  }
  return state.addresses.get(key);
}

function forget(picture) {
  state.pictures.delete(picture.number);
  for (const key of ["image", "heat"].map((kind) => describeKey(picture, kind))) {
    state.addresses.get(key)?.then(URL.revokeObjectURL, () => {});
    state.addresses.delete(key);
  }
}

function clear() {
  for (const picture of [...state.pictures.values()]) forget(picture);
  for (const card of state.cards.values()) card.remove();
  state.cards.clear();
  state.rows = [];
  state.id = "";
  state.unspoken = 0;
}

const viewer = new Viewer(find("viewer"), load, ask, (number, step) => {
  const numbers = listShown();
  const index = numbers.indexOf(number);
  return index < 0 ? undefined : state.pictures.get(numbers[index - step]);
});
find("viewer").addEventListener("close", () => {
  if (document.activeElement === document.body) find("images-title").focus(); // the card is gone
});

function tell(kind, words) {
  find("state").className = `state ${kind}`;
  find("state-words").textContent = words;
}

const show = (id, text, kind = null) => {
  find(id).textContent = text;
  if (kind !== null) find(id).className = kind;
};

const showShare = (part, whole) => (whole ? `${(part / whole * 100).toFixed(part ? 1 : 0)} %` : "–");

function showDrift(name, found) {
  if (found.drift === null) {
    const words = found.last_median === null ? "nothing measured yet" : found.source === "first" ? "after this service's first 32 images" : "the calibration images are all alike";
    show(`${name}-drift`, "–", "");
    show(`${name}-drift-words`, words);
    return;
  }
  const size = Math.abs(found.drift), [kind, words] = size < 1 ? ["good", "steady"] : size < 3 ? ["warn", "has moved"] : ["bad", "far off"];
  show(`${name}-drift`, (size < 0.05 ? "" : found.drift < 0 ? "−" : "+") + (size < 100 ? size.toFixed(1) : size.toFixed(0)), kind);
  const others = found.source === "calibration" ? `${found.base_count} calibration images` : `this service's first ${found.base_count}`;
  show(`${name}-drift-words`, `${words}; in spreads of ${others}`);
}

function showFigures(found) {
  show("count", found.image_count.toLocaleString("en"));
  show("share", showShare(found.last_defect_count, found.last_count));
  show("share-words", `of the last ${found.last_count}; ${showShare(found.defect_count, found.image_count)} of all`);
  show("rate", found.rate < 10 ? found.rate.toFixed(1) : found.rate.toFixed(0));
  const { p50, p99 } = found.latency_ms;
  show("latency", p50 === null ? "–" : `${p50.toFixed(1)} ms`);
  show("latency-words", p50 === null ? "" : `median; 99 % stay below ${p99.toFixed(1)} ms`);
  showDrift("score", found.score);
  showDrift("brightness", found.brightness);
}

function drawPlots(found) {
  state.found = found ?? state.found;
  if (!state.found) return;
  const { score, brightness, threshold } = state.found;
  state.findRow = drawScores(find("scores"), state.rows);
  drawHistogram(find("histogram"), score.base, score.last, threshold);
  const name = brightness.source === "calibration" ? "calibration" : "at first";
  drawBrightness(find("brightness"), brightness.base_median, brightness.last_median, name);
  show("last-key", `last ${score.last.length} scores`);
  show("base-key", score.source === "calibration" ? `${score.base_count} calibration images` : "this service's first images");
  const isFirst = score.source === "first";
  show("drift-words", isFirst ? "The bundle has no calibration images: this service's first 32 stand for them." : "Heights are drawn by their square root, so that few images show.");
  if (find("score-table").open) fillTable();
}

function fillTable() {
  const rows = state.rows.slice(-TABLE_COUNT).reverse().map(([number, ms, score, threshold, isDefect, latency]) => {
    const cells = [number, showTime(ms), showScore(score), showScore(threshold)].map((value) => element("td", {}, String(value)));
    return element("tr", {}, ...cells, element("td", { class: isDefect ? "defect" : "good" }, isDefect ? "defect" : "good"), element("td", {}, latency.toFixed(1)));
  });
  find("score-table").querySelector("tbody").replaceChildren(...rows);
}

function listShown() { // numbers of the pictures, the newest first
  const which = document.querySelector("input[name=which]:checked").value;
  return [...state.pictures.values()].filter((one) => which === "all" || one.is_defect).map((one) => one.number).sort((a, b) => b - a).slice(0, CARD_COUNT);
}

function makeCard(picture) {
  const words = `Image ${picture.number}, ${word(picture)}, score ${showScore(picture.score)}, ${showTime(picture.time_ms)}`;
  const frame = element("div", { class: "frame" });
  const button = element("button", { type: "button", class: `card fresh ${word(picture)}`, "aria-label": words, "aria-haspopup": "dialog" }, frame,
    element("div", { class: "words" }, element("span", { class: `badge ${word(picture)}` }, picture.is_defect ? "DEFECT" : "GOOD"),
      element("span", {}, showScore(picture.score)), element("time", {}, showTime(picture.time_ms))));
  button.addEventListener("click", () => viewer.show(picture));
  load(picture, "image").then((address) => frame.replaceChildren(stack(picture, address, null, true)), () => {});
  return element("li", {}, button);
}

function showCards() {
  const numbers = listShown(), grid = find("grid");
  for (const [number, card] of state.cards) {
    if (!numbers.includes(number)) { card.remove(); state.cards.delete(number); }
  }
  let next = grid.firstChild; // cards that stay are not moved, so that they keep the focus
  for (const number of numbers) {
    let card = state.cards.get(number);
    if (!card) {
      card = makeCard(state.pictures.get(number));
      state.cards.set(number, card);
      grid.insertBefore(card, next);
    } else next = card.nextSibling;
  }
  find("no-images").hidden = numbers.length > 0;
  if (!numbers.length) find("no-images").textContent = state.pictures.size ? "No rejected image is among the last ones." : "No image yet. They appear here as clients send them.";
  viewer.refresh();
}

function speak(newRows) {
  const defects = newRows.filter((row) => row[4]);
  state.unspoken += defects.length;
  if (!state.unspoken || Date.now() - state.spokenMs < SPOKEN_MS) return;
  find("announcement").textContent = `${state.unspoken} ${state.unspoken === 1 ? "image" : "images"} rejected` + (defects.length ? `; the last scored ${showScore(defects.at(-1)[2])}.` : ".");
  state.spokenMs = Date.now();
  state.unspoken = 0;
}

function take(found) {
  const isNew = found.id !== state.id;
  if (isNew) {
    const hadRows = state.rows.length > 0;
    clear();
    state.id = found.id;
    if (hadRows) return true; // the service has begun anew: from its first image
  }
  const rows = found.rows.filter((row) => row[0] > (state.rows.at(-1)?.[0] ?? 0));
  state.rows = [...state.rows, ...rows].slice(-ROW_COUNT);
  for (const picture of found.pictures) state.pictures.set(picture.number, { ...picture, id: found.id });
  const pictures = [...state.pictures.values()].sort((a, b) => a.number - b.number);
  for (const isDefect of [true, false]) { // as many of each kind as the service keeps
    for (const picture of pictures.filter((one) => one.is_defect === isDefect).slice(0, -PICTURE_COUNT)) forget(picture);
  }
  showFigures(found);
  drawPlots(found);
  showCards();
  if (!isNew) speak(rows);
  return false;
}

async function listModels() {
  const { models, version } = await (await request("page/models", {})).json();
  state.modelsMs = Date.now();
  state.models = models;
  find("version").textContent = version;
  const wanted = new URLSearchParams(location.search);
  const key = (one) => JSON.stringify([one.name, one.version]);
  const own = (one) => state.model && one.name === state.model.model && one.version === state.model.version;
  if (!models.some(own)) {
    const first = models.find((one) => one.name === wanted.get("model") && one.version === (wanted.get("version") ?? one.version)) ?? models[0];
    choose(first.name, first.version);
  }
  const describe = (one) => one.name + (models.filter((other) => other.name === one.name).length > 1 || one.version !== "1" ? `, version ${one.version}` : "") + (one.state === "READY" ? "" : ` (${one.state.toLowerCase()})`);
  find("model-choice").hidden = models.length < 2;
  find("model-name").textContent = models.length < 2 ? describe(models[0]) : "";
  if (document.activeElement !== find("model")) { // an open list stays as it is
    find("model").replaceChildren(...models.map((one) => {
      const option = element("option", { value: key(one) }, describe(one));
      option.selected = Boolean(own(one));
      return option;
    }));
  }
  return models.find(own);
}

function choose(name, version) {
  state.model = { model: name, version };
  clear();
  state.found = null;
  showCards();
  document.title = `${name}: inspections`;
}

async function poll() {
  clearTimeout(state.timer);
  const turn = ++state.polls;
  let pause = POLL_MS;
  find("forget").hidden = sessionStorage.getItem(TOKEN) === null;
  try {
    if (!state.model || Date.now() - state.modelsMs > MODELS_MS) await listModels();
    const pictures = [...state.pictures.keys()];
    const found = await ask("page/data", { after: state.rows.at(-1)?.[0] ?? 0, pictures_after: pictures.length ? Math.max(...pictures) : 0 });
    if (turn !== state.polls) return; // another one was begun meanwhile
    find("token-form").hidden = true;
    find("pause").hidden = false;
    find("content").hidden = false;
    state.failures = 0;
    if (take(found)) pause = 0;
    const own = state.models.find((one) => one.name === state.model.model && one.version === state.model.version);
    tell(own.state === "READY" ? "live" : "broken", own.state === "READY" ? "live" : `model ${own.state.toLowerCase()}`);
  } catch (error) {
    if (turn !== state.polls) return;
    if (error instanceof NeedsToken) { askForToken(sessionStorage.getItem(TOKEN) !== null); return; }
    state.failures += 1;
    pause = Math.min(SLOWEST_MS, POLL_MS * 2 ** state.failures);
    tell("broken", error instanceof TypeError ? "no connection; trying again" : error.message);
    state.modelsMs = 0;
  }
  if (!state.isPaused && !document.hidden) state.timer = setTimeout(poll, pause);
}

function askForToken(isWrong) {
  find("token-words").textContent = isWrong ? "That is not the service's token." : "";
  sessionStorage.removeItem(TOKEN);
  find("content").hidden = true;
  find("forget").hidden = find("pause").hidden = true;
  find("token-form").hidden = false;
  if (find("viewer").open) find("viewer").close();
  find("token").focus();
  tell("", "token needed");
}

find("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = find("token").value.trim();
  find("token").value = "";
  if (!/^[ -~]+$/.test(token)) { askForToken(true); return; } // no other goes into a header, or is a token
  sessionStorage.setItem(TOKEN, token);
  poll();
});
find("forget").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  clear();
  state.model = null;
  showCards();
  poll();
});
find("pause").addEventListener("click", () => {
  state.isPaused = !state.isPaused;
  find("pause").setAttribute("aria-pressed", String(state.isPaused));
  if (state.isPaused) { clearTimeout(state.timer); state.polls += 1; tell("", "paused"); } else poll();
});
find("model").addEventListener("change", (event) => {
  choose(...JSON.parse(event.target.value));
  poll();
});
for (const radio of document.querySelectorAll("input[name=which]")) radio.addEventListener("change", showCards);
find("score-table").addEventListener("toggle", () => { if (find("score-table").open) fillTable(); });
find("scores").addEventListener("pointermove", (event) => {
  const row = state.findRow(event.offsetX);
  if (row) show("point", `image ${row[0]}, ${showTime(row[1])}: ${showScore(row[2])}, ${row[4] ? "defect" : "good"}`);
});
find("scores").addEventListener("pointerleave", () => { state.findRow(null); show("point", ""); });
find("scores").addEventListener("click", (event) => {
  const row = state.findRow(event.offsetX), picture = row && state.pictures.get(row[0]);
  if (picture) viewer.show(picture);
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && !state.isPaused) poll(); });
addEventListener("resize", () => drawPlots(null));
poll();
