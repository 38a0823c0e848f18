"use strict";
// The image with a map over it, the outline of the chosen patch, and boxes.

// of boxes, by class, as of numpyvit.viz
const COLORS = "#ff5a50 #46c85a #5a96ff #ffc828 #dc6eff #32d7d7 #ff9132 #ff78b4 #aadc3c #bea582".split(" ");
// of maps, from nothing to the most: matplotlib's inferno
const HEAT = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39]];
HEAT.push([252, 255, 164]);
const LONGER_SIDE = 1120; // of the canvas
const SMALL = 100; // pixels of an image's side, below which they are shown as squares

function heat(share) {
  const place = share * (HEAT.length - 1);
  const low = Math.min(HEAT.length - 2, Math.floor(place));
  return HEAT[low].map((value, i) => value + (HEAT[low + 1][i] - value) * (place - low));
}

// The colors from 0 to the most, on a canvas.
function drawScale(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = `rgb(${heat(x / (canvas.width - 1)).join(" ")})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.image = null;
  }

  async show(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    this.image = image;
    const scale = LONGER_SIDE / Math.max(image.naturalWidth, image.naturalHeight);
    const [width, height] = [Math.round(image.naturalWidth * scale), Math.round(image.naturalHeight * scale)];
    if (this.canvas.width !== width || this.canvas.height !== height) {
      [this.canvas.width, this.canvas.height] = [width, height]; // which clears it
    }
    this.canvas.hidden = false;
  }

  // map: of attention.js, or null; boxes: [{left, top, right, bottom in 0..1, label, color, chosen}]
  draw(map, opacity, boxes) {
    const { width, height } = this.canvas;
    this.context.imageSmoothingEnabled = this.image.naturalWidth >= SMALL;
    this.context.drawImage(this.image, 0, 0, width, height);
    if (map) this.drawMap(map, opacity);
    if (map && map.of === "patch") this.outline(map);
    for (const box of boxes) if (!box.chosen) this.drawBox(box);
    for (const box of boxes) if (box.chosen) this.drawBox(box);
  }

  drawMap(map, opacity) {
    const most = Math.max(...map.values, 1e-12);
    // a query's tokens are centered on the corners of their cells, so that one row and column more cover the image
    const more = map.of === "query" ? 1 : 0;
    const small = document.createElement("canvas");
    [small.width, small.height] = [map.columns + more, map.rows + more];
    const pixels = new ImageData(small.width, small.height);
    for (let i = 0; i < small.width * small.height; i++) {
      const row = Math.min(map.rows - 1, Math.floor(i / small.width));
      const column = Math.min(map.columns - 1, i % small.width);
      const shade = Math.sqrt(map.values[row * map.columns + column] / most);
      pixels.data.set([...heat(shade), 255 * opacity * (0.35 + 0.65 * shade)], 4 * i);
    }
    small.getContext("2d").putImageData(pixels, 0, 0);
    const [cellWidth, cellHeight] = [this.canvas.width / map.columns, this.canvas.height / map.rows];
    const [x, y] = [(-more * cellWidth) / 2, (-more * cellHeight) / 2];
    this.context.imageSmoothingEnabled = more === 1;
    this.context.drawImage(small, x, y, small.width * cellWidth, small.height * cellHeight);
  }

  outline(map) {
    const [w, h] = [this.canvas.width / map.columns, this.canvas.height / map.rows];
    for (const [color, line] of [["#000", 9], ["#fff", 4]]) {
      this.context.strokeStyle = color;
      this.context.lineWidth = line;
      this.context.strokeRect(map.column * w, map.row * h, w, h);
    }
  }

  drawBox(box) {
    const { width, height } = this.canvas;
    const [left, top, right, bottom] = [box.left * width, box.top * height, box.right * width, box.bottom * height];
    this.context.strokeStyle = box.color;
    this.context.lineWidth = box.chosen ? 9 : 4;
    this.context.strokeRect(left, top, right - left, bottom - top);
    this.context.font = "26px system-ui, sans-serif";
    const wide = this.context.measureText(box.label).width + 14;
    const x = Math.min(Math.max(0, left), width - wide);
    const y = top > 36 ? top - 36 : Math.min(bottom, height - 36);
    this.context.fillStyle = box.color;
    this.context.fillRect(x, y, wide, 36);
    this.context.fillStyle = "#000";
    this.context.fillText(box.label, x + 7, y + 27);
  }

  // An event's place on the image, in 0..1.
  place(event) {
    const frame = this.canvas.getBoundingClientRect();
    const scale = Math.min(frame.width / this.canvas.width, frame.height / this.canvas.height);
    const [width, height] = [this.canvas.width * scale, this.canvas.height * scale];
    const inside = (value) => Math.min(Math.max(value, 0), 0.999999);
    return {
      x: inside((event.clientX - frame.left - (frame.width - width) / 2) / width),
      y: inside((event.clientY - frame.top - (frame.height - height) / 2) / height),
    };
  }
}
