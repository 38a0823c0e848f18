"use strict";
// The page: what is chosen, what is asked, and what is shown.

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

// ---- the model -----------------------------------------------------------------------------------------------------

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

// ---- questions -----------------------------------------------------------------------------------------------------

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
  const own = answers; // replaced where another image, or newer weights, come meanwhile
  own[name] ??= await source.attention(image, name);
  if (own !== answers) return null;
  looks[name] ??= decoded(answers[name]);
  return looks[name];
}

function say(text) {
  at("error").textContent = text;
  at("error").hidden = text === "";
}

// ---- what is shown -------------------------------------------------------------------------------------------------

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
    const each = [...Array(heads).keys()].map((k) => new Option(`head ${k + 1}`, k + 1));
    select.replaceChildren(new Option("mean of all", 0), ...each);
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
  const most = `row ${row}, column ${column} (${percent(map.values[brightest])})`;
  if (map.of === "query") return `The query of this box looked most at ${most}.`;
  if (map.of === "all") return `Most attention is received by the patch in ${most}.`;
  const who = map.of === "class" ? "The class token" : `The patch in row ${map.row + 1}, column ${map.column + 1}`;
  const [rolled, plain] = [["is reached most by", "reaches most"], ["attends most to", "is attended most by"]];
  const verbs = at("rollout").checked ? rolled : plain;
  return `${who} ${verbs[direction() === "to" ? 0 : 1]} the patch in ${most}.`;
}
