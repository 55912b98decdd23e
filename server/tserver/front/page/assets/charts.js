// What is drawn: live lines by uPlot, bars and networks as SVG, pictures of tensors on a canvas.

import { h, number, short } from "./format.js";

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const SERIES = ["--series-1", "--series-2", "--series-3", "--series-4"];

// A chart over time. `series` are labels; data are columns, the first one seconds.
export class Live {
  constructor(title, series, { format = short, incrs = undefined } = {}) {
    this.series = series;
    this.format = format;
    this.incrs = incrs;
    this.height = 190;
    this.legend = h("div", { class: "legend" });
    this.place = h("div", { class: "plot", role: "img", "aria-label": title });
    this.title = title;
    this.element = h("section", { class: "card chart" }, h("div", { class: "row" }, h("h2", {}, title), this.legend), this.place);
    this.data = null;
    this.plot = null;
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(this.place);
    this.redraw = () => this.make();
    document.addEventListener("theme", this.redraw);
  }

  make() {
    this.plot?.destroy();
    this.plot = null;
    const width = this.place.clientWidth;
    if (!this.data || !width || !window.uPlot) return;
    const isEmpty = !this.data[0].length;
    this.place.replaceChildren(...(isEmpty ? [h("p", { class: "empty" }, "Two answers of the server make a line.")] : []));
    if (isEmpty) return;
    const grid = { stroke: style("--line"), width: 1 };
    const axis = { stroke: style("--muted"), grid, ticks: { ...grid, size: 4 }, font: "11px system-ui, sans-serif" };
    const options = {
      width,
      height: this.height,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { size: 6 } },
      scales: { y: { range: (_, low, high) => this.range(low, high) } },
      axes: [
        { ...axis, space: 70, size: 26, incrs: [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600], values: [[60, "{HH}:{mm}", null, null, null, null, null, null, 1], [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1]] },
        { ...axis, size: 62, incrs: this.incrs, values: (_, ticks) => ticks.map((tick) => (tick ? this.format(tick) : "0")) },
      ],
      series: [
        {},
        ...this.series.map((label, index) => ({
          label,
          stroke: style(SERIES[index]),
          width: 2,
          dash: index === 3 ? [4, 3] : undefined,
          points: { show: (plot) => plot.data[0].length < 3, size: 5 },
        })),
      ],
      hooks: { setCursor: [(plot) => this.tell(plot.cursor.idx)] },
    };
    this.plot = new window.uPlot(options, this.data, this.place);
  }

  range(low, high) {
    if (low === null || high === null) return [0, 1];
    return [0, high > 0 ? high * 1.08 : 1];
  }

  resize() {
    const width = this.place.clientWidth;
    if (!this.plot) this.make();
    else if (width && width !== this.plot.width) this.plot.setSize({ width, height: this.height });
  }

  show(data) {
    this.data = data;
    if (this.plot) this.plot.setData(data);
    else this.make();
    this.tell(this.plot?.cursor.idx);
  }

  tell(index) {
    const at = index ?? this.data[0].length - 1;
    const told = this.series.map((label, number) => [label, this.data[number + 1][at]]);
    this.legend.replaceChildren(
      ...told.map(([label, value], number) =>
        h("span", {}, h("i", { class: `swatch series-${number + 1}` }), `${label} `, h("b", { class: "number" }, value === null || value === undefined ? "–" : this.format(value))),
      ),
    );
    const words = told.filter(([, value]) => value !== null && value !== undefined).map(([label, value]) => `${label} ${this.format(value)}`);
    this.place.setAttribute("aria-label", words.length ? `${this.title}: ${words.join(", ")}` : `${this.title}: nothing yet`);
  }

  close() {
    this.watch.disconnect();
    document.removeEventListener("theme", this.redraw);
    this.plot?.destroy();
  }
}

// Bars: [{label, value, text}]. Each tells its number to who points at it.
export function bars(title, items, { low = "", high = "" } = {}) {
  const most = Math.max(1, ...items.map((item) => item.value));
  const width = 480;
  const height = 130;
  const step = width / Math.max(1, items.length);
  const gap = step > 6 ? Math.min(4, step * 0.15) : 0;
  const drawn = items.map((item, index) => {
    const size = item.value ? Math.max(1.5, (item.value / most) * (height - 4)) : 0;
    return h(
      "rect",
      { x: index * step + gap / 2, y: height - size, width: Math.max(0.5, step - gap), height: size, class: "bar-of" },
      h("title", {}, item.text),
    );
  });
  const svg = h("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "bars", role: "img", "aria-label": title }, drawn, h("line", { x1: 0, x2: width, y1: height, y2: height, class: "axis" }));
  const labels = items.some((item) => item.label)
    ? h("div", { class: "under spread" }, items.map((item) => h("span", {}, item.label ?? "")))
    : h("div", { class: "under" }, h("span", {}, low), h("span", {}, high));
  return h("div", { class: "bars-box" }, svg, labels);
}

// A network of layers: columns of neurons, each joined with the next.
const SHOWN = 7;
const MOST_COLUMNS = 10;

export function network(model) {
  const sizes = [model.layers[0].in_features, ...model.layers.map((layer) => layer.out_features)].slice(0, MOST_COLUMNS);
  const names = ["input", ...model.layers.map((layer) => layer.activation)];
  const columns = sizes.map((size) => Math.min(size, SHOWN));
  const step = 110;
  const width = step * sizes.length;
  const height = 250;
  const x = (column) => step / 2 + column * step;
  const y = (column, row) => 112 + (row - (columns[column] - 1) / 2) * 26;
  const lines = [];
  for (let column = 1; column < sizes.length; column += 1) {
    for (let from = 0; from < columns[column - 1]; from += 1) {
      for (let to = 0; to < columns[column]; to += 1) {
        lines.push(h("line", { x1: x(column - 1), y1: y(column - 1, from), x2: x(column), y2: y(column, to), class: "weight" }));
      }
    }
  }
  const neurons = sizes.flatMap((size, column) => {
    const hidden = size > SHOWN ? Math.floor(SHOWN / 2) : -1;
    return Array.from({ length: columns[column] }, (_, row) =>
      row === hidden
        ? h("text", { x: x(column), y: y(column, row) + 5, class: "dots" }, "⋮")
        : h("circle", { cx: x(column), cy: y(column, row), r: 8, class: column === 0 ? "neuron first" : "neuron" }),
    );
  });
  // Behind the dots no line is drawn through.
  const gaps = sizes.flatMap((size, column) => (size > SHOWN ? [h("circle", { cx: x(column), cy: y(column, Math.floor(SHOWN / 2)), r: 11, class: "gap" })] : []));
  const labels = sizes.flatMap((size, column) => [
    h("text", { x: x(column), y: 222, class: "size" }, size.toLocaleString("en")),
    h("text", { x: x(column), y: 240, class: "kind" }, names[column] === "identity" ? "linear" : names[column]),
  ]);
  const said = sizes.map((size, column) => `${size} ${names[column]}`).join(", ");
  const svg = h("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "network", role: "img", "aria-label": `A network: ${said}` }, lines, gaps, neurons, labels);
  const more = model.layers.length + 1 - sizes.length;
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The network" }, svg, more > 0 ? h("p", { class: "muted" }, `and ${more} more layers`) : null);
}

// A model that is a program: what goes in, how many calls, what comes out.
export function program(model) {
  const row = (specs) => h("ul", { class: "specs" }, specs.map((spec) => h("li", {}, h("code", {}, spec.name), h("span", { class: "muted" }, ` ${spec.text}`))));
  return h("div", { class: "program" }, row(model.inputs), h("div", { class: "arrow", "aria-hidden": "true" }, "→"), h("div", { class: "box" }, h("b", {}, short(model.calls)), " calls"), h("div", { class: "arrow", "aria-hidden": "true" }, "→"), row(model.outputs));
}

// Colours of numbers: from one end to the other, or from both sides of zero.
const ONE_WAY = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const BOTH_WAYS = [[33, 82, 178], [146, 180, 233], [245, 245, 245], [243, 166, 130], [178, 38, 30]];

function colour(value, low, high) {
  if (Number.isNaN(value)) return [255, 0, 255];
  let stops = ONE_WAY;
  let part = high > low ? (value - low) / (high - low) : 0.5;
  if (low < 0 && high > 0) {
    const most = Math.max(-low, high);
    stops = BOTH_WAYS;
    part = (value / most + 1) / 2;
  }
  const place = Math.min(1, Math.max(0, part)) * (stops.length - 1);
  const index = Math.min(stops.length - 2, Math.floor(place));
  return stops[index].map((from, channel) => from + (stops[index + 1][channel] - from) * (place - index));
}

function decoded(text) {
  const raw = atob(text);
  const data = new Uint8Array(raw.length);
  for (let index = 0; index < raw.length; index += 1) data[index] = raw.charCodeAt(index);
  return new Float32Array(data.buffer);
}

// The numbers of a picture, and their ends.
export function numbersOf(picture) {
  const numbers = decoded(picture.float32);
  let low = Infinity;
  let high = -Infinity;
  for (const value of numbers) {
    if (Number.isFinite(value)) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return { numbers, low: low === Infinity ? 0 : low, high: high === -Infinity ? 0 : high };
}

// A matrix as a picture; the number that is pointed at, or moved to by keys, is told beside it.
export function picture(told, full) {
  const [rows, columns] = told.shape;
  const { numbers, low, high } = numbersOf(told);
  const canvas = h("canvas", { width: columns, height: rows, class: "picture", tabindex: "0", role: "img", "aria-label": `A picture of ${full[0]} rows and ${full[1]} columns, from ${number(low)} to ${number(high)}` });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  numbers.forEach((value, index) => image.data.set([...colour(value, low, high), 255], index * 4));
  context.putImageData(image, 0, 0);
  const side = Math.min(420, Math.max(160, Math.max(rows, columns) * 24));
  const scale = side / Math.max(rows, columns);
  canvas.style.width = `${Math.max(12, columns * scale)}px`;
  canvas.style.height = `${Math.max(12, rows * scale)}px`;
  const readout = h("p", { class: "muted number", role: "status" }, "Point at it, or use the arrow keys");
  let at = [0, 0];
  const tell = () => {
    const value = numbers[at[0] * columns + at[1]];
    const real = at.map((index, dim) => index * Math.ceil(full[dim] / [128, 128][dim]));
    readout.textContent = `[${real.join(", ")}] = ${Number.isFinite(value) ? number(value) : String(value)}`;
  };
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    at = [
      Math.min(rows - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * rows))),
      Math.min(columns - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * columns))),
    ];
    tell();
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    at = [Math.min(rows - 1, Math.max(0, at[0] + step[0])), Math.min(columns - 1, Math.max(0, at[1] + step[1]))];
    tell();
  });
  const ends = h("div", { class: "under ramp-ends" }, h("span", {}, number(low)), h("span", {}, number(high)));
  const ramp = h("canvas", { width: 64, height: 1, class: "ramp", "aria-hidden": "true" });
  const strip = ramp.getContext("2d").createImageData(64, 1);
  for (let index = 0; index < 64; index += 1) strip.data.set([...colour(low + ((high - low) * index) / 63, low, high), 255], index * 4);
  ramp.getContext("2d").putImageData(strip, 0, 0);
  return h("div", {}, canvas, readout, ramp, ends);
}

// The numbers of a tensor of one dimension, as a line.
export function line(told, length) {
  const { numbers, low, high } = numbersOf(told);
  const place = h("div", { class: "plot", role: "img", "aria-label": `${length} numbers as a line, from ${number(low)} to ${number(high)}` });
  const step = Math.ceil(length / 512);
  const draw = () => {
    place.replaceChildren();
    if (!place.clientWidth || !window.uPlot) return;
    const axis = { stroke: style("--muted"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line"), width: 1 }, font: "11px system-ui, sans-serif" };
    new window.uPlot(
      {
        width: place.clientWidth,
        height: 220,
        legend: { show: false },
        scales: { x: { time: false } },
        axes: [axis, { ...axis, size: 62, values: (_, ticks) => ticks.map(number) }],
        series: [{}, { stroke: style(SERIES[0]), width: 1.5, points: { show: numbers.length < 40 } }],
      },
      [Array.from(numbers, (_, index) => index * step), Array.from(numbers, (value) => (Number.isFinite(value) ? value : null))],
      place,
    );
  };
  requestAnimationFrame(draw);
  return place;
}
