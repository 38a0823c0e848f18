"use strict";
// The page: what is chosen, and what happens when something is.

const at = (id) => document.getElementById(id);
const held = at("held") && JSON.parse(at("held").textContent);
const source = held ? new Saved(held) : new Server();
const view = new View(at("view"));
const FEW = 12; // classes, up to which each keeps its place
const TOP = 10; // classes that are shown of more

let info = null; // of the model
let image = null; // the file that was chosen or drawn
let result = null; // what the model found in it
let answers = {}; // of /attention: by layer, counted from 1, or "rollout"
let looks = {}; // the same, decoded
let place = null; // the chosen patch, x and y in 0..1
let chosen = null; // the number of the chosen box
let asked = 0; // counts questions, so that only the last one's answer is shown

// ---- the model --------------------------------------------------------------------------------------------------------

async function describe() {
  const before = info;
  info = await source.info();
  at("model").textContent = info.model;
  const size = `${info.input_shape[2]} × ${info.input_shape[1]} pixels, ${info.input_shape[0] === 1 ? "gray" : "color"}`;
  const epoch = info.epoch === null ? "" : `epoch ${info.epoch}${info.watched ? ", still followed" : ""} · `;
  at("about").textContent = `${epoch}${info.classes.length} classes · ${size}`;
  if (!before) arrange();
  return before !== null && before.version !== info.version;
}

function arrange() {
  document.title = held ? `${info.model}, saved` : info.model;
  const [channels, height, width] = info.input_shape;
  at("drawing").hidden = !(channels === 1 && height === width && height <= 64) || info.kind !== "classification";
  if (!info.attention) return;
  drawScale(at("scale").querySelector("canvas"));
  at("layer").max = at("layer").value = info.attention.layers;
  at("rollout-field").hidden = !info.attention.rollout;
  at("direction").hidden = isDetector();
  at("hint").textContent = isDetector()
    ? "Click a box, in the image or in the list, to see what the query that found it looked at."
    : "Click a patch of the image, or choose one with the arrow keys.";
}

const isDetector = () => info.kind === "detection";

// ---- questions --------------------------------------------------------------------------------------------------------

async function ask(file) {
  const [number, name] = [++asked, key()];
  try {
    const wanted = [source.predict(file, mostResults()), needsLook() ? source.attention(file, name) : null];
    const [found, looked] = await Promise.all(wanted);
    if (number !== asked) return;
    await view.show(found.image.url);
    if (number !== asked) return;
    [image, result, answers, looks] = [file, found, looked ? { [name]: looked } : {}, {}];
    if (chosen !== null && !(chosen < found.boxes.length)) chosen = null;
    say("");
    at("empty").hidden = true;
    at("found").hidden = false;
    at("attention").hidden = !info.attention;
    showResult();
    await showLook();
  } catch (error) {
    if (number === asked) say(error.message);
  }
}

const mostResults = () => (isDetector() ? 100 : info.classes.length <= FEW ? FEW : TOP);
const needsLook = () => info.attention && (!isDetector() || chosen !== null);
const key = () => (at("rollout").checked ? "rollout" : at("layer").value);

// What the model looks at, by a key of `answers`; asked for once for each image.
async function look(name) {
  const file = image;
  if (!(name in answers)) {
    const answer = await source.attention(file, name);
    if (file !== image) return null;
    answers[name] = answer;
  }
  looks[name] ??= decoded(answers[name]);
  return looks[name];
}

function say(text) {
  at("error").textContent = text;
  at("error").hidden = text === "";
}

// ---- what is shown ----------------------------------------------------------------------------------------------------

function showResult() {
  const list = at("results");
  if (isDetector()) {
    list.replaceChildren(...result.boxes.map(boxItem));
    if (!result.boxes.length) list.append(element("li", "", "Nothing with a score of 50% or more."));
    return;
  }
  const few = info.classes.length <= FEW;
  const rows = few ? [...result.classes].sort((a, b) => a.index - b.index) : result.classes;
  list.className = few ? "few" : "";
  list.replaceChildren(...rows.map((row) => classItem(row, row === result.classes[0])));
}

function classItem(row, first) {
  const item = element("li", first ? "first" : "");
  const bar = element("span", "bar");
  const filled = element("span", "");
  filled.style.width = `${100 * row.probability}%`;
  bar.append(filled);
  item.append(element("span", "name", row.class), element("span", "share", percent(row.probability)), bar);
  return item;
}

function boxItem(box, number) {
  const [item, button, color] = [element("li", ""), element("button", ""), element("span", "key")];
  color.style.background = COLORS[box.index % COLORS.length];
  button.type = "button";
  button.setAttribute("aria-pressed", number === chosen);
  button.append(color, element("span", "name", box.class), element("span", "share", percent(box.score)));
  button.addEventListener("click", () => chooseBox(number));
  item.append(button);
  return item;
}

function element(kind, className, text = "") {
  const made = document.createElement(kind);
  made.className = className;
  made.textContent = text;
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;

// Draw the image with the map that is asked for.
async function showLook() {
  if (!result) return;
  const [name, number, opacity] = [key(), asked, at("opacity").value / 100];
  at("opacity-shown").textContent = `${at("opacity").value}%`;
  at("layer-shown").textContent = `${at("layer").value} of ${at("layer").max}`;
  at("layer").disabled = at("head").disabled = name === "rollout";
  at("whole").disabled = place === null && chosen === null;
  const found = needsLook() ? await look(name) : null;
  if (number !== asked || name !== key()) return;
  const map = found && (isDetector() ? boxMap(found) : attentionMap(found, headOf(found), place, direction()));
  at("direction").disabled = map !== null && map.of === "all";
  view.draw(map, opacity, boxes());
  at("scale").hidden = map === null;
  at("most").textContent = map && percent(Math.max(...map.values));
  at("said").textContent = described(map);
}

const direction = () => document.querySelector("input[name=direction]:checked").value;

// The chosen head, null for the mean; the choices follow from the layer.
function headOf(found) {
  const [select, heads] = [at("head"), found.shape[0]];
  if (select.options.length !== heads + 1 && !at("rollout").checked) {
    const before = Number(select.value || 0);
    select.replaceChildren(new Option("mean of all", 0), ...[...Array(heads).keys()].map((k) => new Option(`head ${k + 1}`, k + 1)));
    select.value = before <= heads ? before : 0;
  }
  const head = Number(select.value || 0);
  return head === 0 || at("rollout").checked ? null : head - 1;
}

const boxMap = (found) => queryMap(found, headOf(found), queryOf(found, result.boxes[chosen]));

function boxes() {
  if (!isDetector()) return [];
  const { width, height } = result.image;
  return result.boxes.map((box, number) => ({
    left: box.left / width,
    right: box.right / width,
    top: box.top / height,
    bottom: box.bottom / height,
    label: `${box.class} ${Math.round(100 * box.score)}%`,
    color: COLORS[box.index % COLORS.length],
    chosen: number === chosen,
  }));
}

function described(map) {
  if (!map) return "";
  const brightest = map.values.indexOf(Math.max(...map.values));
  const [row, column] = [Math.floor(brightest / map.columns) + 1, (brightest % map.columns) + 1];
  const most = `the patch in row ${row}, column ${column} (${percent(map.values[brightest])})`;
  if (map.of === "query") return `The query of this box looked most at row ${row}, column ${column} (${percent(map.values[brightest])}).`;
  if (map.of === "all") return `Most attention is received by ${most}.`;
  const who = map.of === "class" ? "The class token" : `The patch in row ${map.row + 1}, column ${map.column + 1}`;
  const verbs = at("rollout").checked ? ["is reached most by", "reaches most"] : ["attends most to", "is attended most by"];
  return `${who} ${verbs[direction() === "to" ? 0 : 1]} ${most}.`;
}

// ---- choosing ---------------------------------------------------------------------------------------------------------

function chooseBox(number) {
  chosen = chosen === number ? null : number;
  for (const [i, button] of at("results").querySelectorAll("button").entries()) {
    button.setAttribute("aria-pressed", i === chosen);
  }
  showSafely();
}

function choosePlace(spot) {
  place = spot;
  showSafely();
}

const showSafely = () => showLook().catch((error) => say(error.message));

at("view").addEventListener("click", (event) => {
  const spot = view.place(event);
  if (!isDetector()) {
    if (info.attention) choosePlace(spot);
    return;
  }
  const area = (box) => (box.right - box.left) * (box.bottom - box.top);
  const inside = (box) => box.left <= spot.x && spot.x <= box.right && box.top <= spot.y && spot.y <= box.bottom;
  const hit = boxes().map((box, number) => ({ ...box, number })).filter(inside).sort((a, b) => area(a) - area(b))[0];
  if (hit) chooseBox(hit.number);
});

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
at("view").addEventListener("keydown", (event) => {
  if (event.key === "Escape") return deselect();
  const [step, found] = [STEPS[event.key], looks[key()]];
  if (!step || !found) return;
  event.preventDefault();
  if (isDetector()) {
    const count = result.boxes.length;
    if (count) chooseBox(((chosen ?? -1) + count + step[0] + step[1]) % count);
    return;
  }
  const [rows, columns] = found.grid;
  const moved = (value, count, by) => (Math.min(Math.max(Math.floor(value * count) + by, 0), count - 1) + 0.5) / count;
  const from = place ?? { x: 0.5, y: 0.5 };
  choosePlace({ x: moved(from.x, columns, step[0]), y: moved(from.y, rows, step[1]) });
});

function deselect() {
  place = null;
  if (chosen !== null) chooseBox(chosen);
  showSafely();
}

at("whole").addEventListener("click", deselect);
for (const id of ["layer", "head", "rollout", "direction", "opacity"]) at(id).addEventListener("input", showSafely);

// ---- images -----------------------------------------------------------------------------------------------------------

function take(file) {
  if (!file) return;
  place = chosen = null;
  ask(file);
}

function listen() {
  at("file").addEventListener("change", () => take(at("file").files[0]));
  document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    take(event.dataTransfer.files[0]);
  });
  const pad = new Pad(at("pad"), soon(async (strokes) => {
    if (!strokes.length) return;
    const size = info.input_shape[1];
    await ask(await asImage(normalizedDigit(strokes, size), size));
  }));
  at("undo").addEventListener("click", () => pad.undo());
  at("clear").addEventListener("click", () => pad.clear());
  at("save").addEventListener("click", () => save().catch((error) => say(error.message)));
}

// The function, called once with the last argument after each call before has ended.
function soon(work) {
  let [running, next] = [false, null];
  return async (argument) => {
    next = { argument };
    if (running) return;
    running = true;
    while (next) {
      const { argument: last } = next;
      next = null;
      await work(last);
    }
    running = false;
  };
}

async function save() {
  const names = info.attention ? [...Array(info.attention.layers).keys()].map((i) => String(i + 1)) : [];
  if (info.attention && info.attention.rollout) names.push("rollout");
  at("save").disabled = true;
  try {
    for (const [i, name] of names.entries()) {
      at("saving").textContent = `attention ${i + 1} of ${names.length}`;
      await look(name);
    }
    const page = await selfContained({ info, result, attention: answers });
    download(page, `${info.model}.html`);
    at("saving").textContent = "saved";
  } finally {
    at("save").disabled = false;
  }
}

// ---- begin ------------------------------------------------------------------------------------------------------------

async function follow() {
  try {
    if ((await describe()) && image) await ask(image);
  } catch (error) {
    say(error.message);
  }
  setTimeout(follow, 2000);
}

async function begin() {
  try {
    await describe();
    if (held) return await ask(null);
    listen();
    if (info.watched) setTimeout(follow, 2000);
  } catch (error) {
    say(error.message);
  }
}

begin();
