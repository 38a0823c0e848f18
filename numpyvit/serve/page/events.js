"use strict";
// What happens when somebody clicks, types, drops, draws or saves.

// ---- choosing ------------------------------------------------------------------------------------------------------

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

// ---- images --------------------------------------------------------------------------------------------------------

function take(file) {
  if (!file) return;
  place = chosen = null;
  known.then(() => ask(file), () => {}); // it says by itself why not
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

// ---- begin ---------------------------------------------------------------------------------------------------------

async function follow() {
  try {
    if ((await describe()) && image) await ask(image);
  } catch (error) {
    say(error.message);
  }
  setTimeout(follow, 2000);
}

const known = describe();
if (!held) listen();
known
  .then(() => {
    if (held) return ask(null);
    if (info.watched) setTimeout(follow, 2000);
  })
  .catch((error) => say(error.message));
