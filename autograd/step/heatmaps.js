"use strict";
// Arrays as pictures: blue below zero, orange above, as strong as the number is large. See heatmaps.py.

const SMALL = { rows: 8, columns: 6 };  // up to here an array is a table with its numbers
const BLOCKS = 32;  // of a thumbnail, at most, along each axis

function digits(number, significant = 4) {  // as Python's %.4g; of infinities and NaN JSON has the names
  const value = Number(number);
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const [digits, exponent] = value.toExponential(significant - 1).split("e").map(Number);
  if (exponent >= -4 && exponent < significant) return String(Number(value.toPrecision(significant)));
  return `${digits}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

function values_of(array) {  // unpacked once
  if (!array.values) {
    const bytes = Uint8Array.from(atob(array.data), (letter) => letter.charCodeAt(0)).buffer;
    const packed = array.type === "i2" ? new Int16Array(bytes) : new Float32Array(bytes);
    array.values = Float64Array.from(packed, (value) => value * (array.scale ?? 1));
  }
  return array.values;
}

const is_single = ({ shape }) => shape.length === 0;
const shape_text = (shape) => (
  shape.length ? `(${shape.join(", ")}${shape.length === 1 ? "," : ""})` : "scalar");
const largest_of = (array) => Math.max(0, ...Array.from(values_of(array), Math.abs).filter(Number.isFinite));

function index_text({ shape, rows, columns, thumbnail }, row, column) {  // as in Python
  const shown = [[row, rows], [column, columns]].slice(-Math.min(shape.length, 2));
  const last = shown.map(([i, n], axis) => {
    const length = shape.at(axis - shown.length), block = Math.ceil(length / BLOCKS);
    return thumbnail && n < length ? `${i * block}:${Math.min((i + 1) * block, length)}` : i;
  });
  return `[${[...Array(shape.length - shown.length).fill(0), ...last].join(", ")}]`;
}

function colour(value, limit) {
  if (Number.isNaN(value)) return "rgb(190 0 190)";
  const strength = Math.min(Math.abs(value) / (limit || 1), 1);
  return value < 0 ? `rgb(43 131 214 / ${strength})` : `rgb(224 112 26 / ${strength})`;
}

function figure(name, number, limit) {  // number: a place in `arrays`, or null
  const array = arrays[number], caption = make("figcaption", {}, name);
  if (!array) {
    caption.append(make("small", {}, "not recorded"));
    return make("figure", {}, caption);
  }
  if (is_single(array)) {
    return make("figure", {}, caption, make("span", { className: "number" }, digits(array.min)));
  }
  const facts = `${shape_text(array.shape)} · rms ${digits(array.rms, 2)}`;
  caption.append(make("small", {}, `${facts}\n${array.of}`.trim()));
  const picture = array.rows * array.columns ? readable(name, array, limit ?? largest_of(array)) : "empty";
  return make("figure", {}, caption, picture);
}

function readable(name, array, limit) {  // the pointer and the arrow keys read its numbers
  const { rows, columns, shape, min, max } = array;
  const map = (rows <= SMALL.rows && columns <= SMALL.columns ? table : canvas)(array, limit);
  let place = [0, 0];
  const read = (row, column) => {
    place = [Math.min(Math.max(row, 0), rows - 1), Math.min(Math.max(column, 0), columns - 1)];
    const value = values_of(array)[place[0] * columns + place[1]];
    const more = array.thumbnail ? ", mean of a block" : "";
    $("reading").textContent = `${name} ${index_text(array, ...place)} = ${digits(value)}${more}`;
  };
  map.onpointermove = ({ target, clientX, clientY }) => {
    const cell = target.closest("td"), { left, top, width, height } = map.getBoundingClientRect();
    if (cell) read(cell.parentElement.rowIndex, cell.cellIndex);
    else if (map.tagName === "CANVAS") {
      read(Math.floor((clientY - top) / height * rows), Math.floor((clientX - left) / width * columns));
    }
  };
  map.onfocus = () => read(...place);
  map.onkeydown = (event) => {
    const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();  // here the keys do not step
    read(place[0] + by[0], place[1] + by[1]);
  };
  const facts = `${shape_text(shape)}, from ${digits(min)} to ${digits(max)}`;
  const ariaLabel = `${name}, ${facts}. The arrow keys read its numbers.`;
  return Object.assign(map, { className: "map", tabIndex: 0, role: "application", ariaLabel });
}

function table(array, limit) {
  const cell = (value) => {
    const element = make("td", {}, digits(value));
    element.style.backgroundColor = colour(0.6 * value, limit);  // paler, for the text to be readable
    return element;
  };
  const row = (i) => [...values_of(array).slice(i * array.columns, (i + 1) * array.columns)].map(cell);
  return make("table", {}, ...range(array.rows).map((i) => make("tr", {}, ...row(i))));
}

function canvas(array, limit) {  // a pixel for each number, made larger by its style
  const { rows, columns } = array, map = make("canvas", { width: columns, height: rows });
  const size = Math.min(Math.max(Math.floor(170 / Math.max(rows, columns)), 3), 14);
  const pen = map.getContext("2d");
  values_of(array).forEach((value, i) => {
    pen.fillStyle = colour(value, limit);
    pen.fillRect(i % columns, Math.floor(i / columns), 1, 1);
  });
  map.style.width = `${columns * size}px`;
  map.style.height = `${rows * (rows < 4 ? 16 : size)}px`;
  return map;
}
