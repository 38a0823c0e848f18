"use strict";
// From an answer of /attention to a map on the grid of tokens.

// An answer with its numbers decoded: `values` in 0..1, of the shape that `shape` says.
function decoded(answer) {
  const bytes = Uint8Array.from(atob(answer.values), (letter) => letter.charCodeAt(0));
  const numbers = new Uint16Array(bytes.buffer);
  return { ...answer, values: Float32Array.from(numbers, (number) => number / 65535) };
}

// What the token at (x, y), in 0..1 of the image, attends to, or with direction "from" is attended by, as shares.
// place null: the class token, or without one what each token receives on average. head null: the mean of all heads.
// -> {rows, columns, values, row, column, of: "patch", "class" or "all"}
function attentionMap(look, head, place, direction) {
  const [rows, columns] = look.grid;
  const [heads, windows, length] = look.shape;
  const chosen = head === null ? [...Array(heads).keys()] : [head];
  const map = { rows, columns, values: new Float32Array(rows * columns), of: "patch" };
  let token = -1;
  if (place) {
    map.row = Math.min(rows - 1, Math.floor(place.y * rows));
    map.column = Math.min(columns - 1, Math.floor(place.x * columns));
    token = map.row * columns + map.column;
  } else {
    map.of = windows === 1 && look.tokens[0][0] === -1 ? "class" : "all";
  }
  for (let window = 0; window < windows; window++) {
    const tokens = look.tokens[window];
    const own = map.of === "all" ? -1 : tokens.indexOf(token);
    if (own < 0 && map.of !== "all") continue;
    for (const k of chosen) {
      const start = (k * windows + window) * length * length;
      for (let i = 0; i < length; i++) {
        if (tokens[i] < 0) continue;
        let share = 0;
        if (map.of === "all") {
          for (let q = 0; q < length; q++) share += look.values[start + q * length + i] / length;
        } else {
          share = look.values[start + (direction === "from" ? i * length + own : own * length + i)];
        }
        map.values[tokens[i]] += share / chosen.length;
      }
    }
  }
  return map;
}

// What a query of a detector looked at. The convolutions before center a token on the corner of its cell.
function queryMap(look, head, query) {
  const [rows, columns] = look.grid;
  const [heads, queries] = look.shape;
  const chosen = head === null ? [...Array(heads).keys()] : [head];
  const map = { rows, columns, values: new Float32Array(rows * columns), of: "query" };
  for (const k of chosen) {
    const start = (k * queries + query) * rows * columns;
    for (let i = 0; i < rows * columns; i++) map.values[i] += look.values[start + i] / chosen.length;
  }
  return map;
}

// The query whose box is nearest to a result's.
function queryOf(look, result) {
  const sides = ["left", "top", "right", "bottom"];
  const distance = (query) => sides.reduce((sum, side) => sum + Math.abs(query[side] - result[side]), 0);
  const distances = look.queries.map(distance);
  return distances.indexOf(Math.min(...distances));
}
