"use strict";
// Drawing a digit, and what a data set of digits would have made of it.

// How a set of images of size×size pixels frames its digits. MNIST: scaled into 20×20 of 28×28 pixels, the center of
// mass in the middle. The 8×8 digits of the UCI repository: as high as the image, at most 6.5 wide.
function framing(size) {
  return size <= 12
    ? { width: 0.8125 * size, height: size, pen: 0.22 * size, fill: true }
    : { width: (20 / 28) * size, height: (20 / 28) * size, pen: (3 / 28) * size, fill: false };
}

// Strokes, lists of [x, y], as gray values of size×size pixels, 255 for ink. The pen is as wide however large one draws.
function normalizedDigit(strokes, size) {
  const { width, height, pen, fill } = framing(size);
  const points = strokes.flat();
  const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [wide, high] = [Math.max(...xs) - left, Math.max(...ys) - top];
  let sy = (height - pen) / Math.max(high, 1);
  let sx = (width - pen) / Math.max(wide, 1);
  if (!fill) sy = Math.min(sx, sy);
  sx = Math.min(sx, sy);
  const at = ([x, y]) => [(x - left - wide / 2) * sx + size / 2, (y - top - high / 2) * sy + size / 2];
  const placed = strokes.map((stroke) => stroke.map(at));
  const [x, y] = centerOfMass(ink(placed, size, pen, 0, 0), size);
  return ink(placed, size, pen, size / 2 - x, fill ? 0 : size / 2 - y);
}

// Each pixel is the mean of FINE×FINE finer ones.
const FINE = 12;
function ink(strokes, size, pen, dx, dy) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size * FINE;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.scale(FINE, FINE);
  context.translate(dx, dy);
  drawStrokes(context, strokes, pen);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.width);
  const pixels = new Float32Array(size * size);
  for (let i = 0; i < data.length / 4; i++) {
    const [row, column] = [Math.floor(i / canvas.width / FINE), Math.floor((i % canvas.width) / FINE)];
    pixels[row * size + column] += data[4 * i + 3] / (FINE * FINE);
  }
  return pixels;
}

function centerOfMass(pixels, size) {
  let [sum, x, y] = [1e-9, 0, 0];
  pixels.forEach((value, i) => {
    sum += value;
    x += value * ((i % size) + 0.5);
    y += value * (Math.floor(i / size) + 0.5);
  });
  return [x / sum, y / sum];
}

function drawStrokes(context, strokes, pen) {
  context.strokeStyle = "#fff";
  context.lineWidth = pen;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(...stroke[0]);
    for (const point of stroke) context.lineTo(...point);
    context.stroke();
  }
}

// Gray values as a PNG.
function asImage(pixels, size) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const image = new ImageData(size, size);
  pixels.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// A canvas to draw on; changed(strokes) is called while one draws.
class Pad {
  constructor(canvas, changed) {
    [this.canvas, this.changed, this.strokes, this.drawing] = [canvas, changed, [], false];
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.drawing = true;
      this.strokes.push([]);
      this.add(event);
    });
    canvas.addEventListener("pointermove", (event) => this.drawing && this.add(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (this.drawing = false));
  }

  add(event) {
    const frame = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / frame.width;
    this.strokes.at(-1).push([(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale]);
    this.redraw();
  }

  undo() {
    this.strokes.pop();
    this.redraw();
  }

  clear() {
    this.strokes = [];
    this.redraw();
  }

  redraw() {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    drawStrokes(context, this.strokes, 22);
    this.changed(this.strokes);
  }
}
