// The first view: what the server does now, and what it is made of.

import { ask } from "./api.js";
import { Live } from "./charts.js";
import { bytes, count, facts, h, percentile, put, seconds, short, whole } from "./format.js";

// Ten minutes, at one question every two seconds. Longer pauses are drawn as gaps.
const KEPT = 300;
const GAP_S = 10;
// Steps of an axis of bytes.
const POWERS = Array.from({ length: 50 }, (_, power) => 2 ** power);

// What was told, over all visits of this view.
const history = [];

function rate(now, before, name) {
  const passed = now.unix_s - before.unix_s;
  const from = before.totals[name];
  const to = now.totals[name];
  // Counts of a server that was started again begin anew.
  return from === undefined || to === undefined || passed <= 0 || to < from ? null : (to - from) / passed;
}

function grown(now, before, name) {
  if (!now[name] || !before[name]) return [];
  const counts = now[name].map((count, index) => count - before[name][index]);
  return counts.some((count) => count < 0) ? [] : counts;
}

function latencies(now, before, name) {
  const counts = grown(now, before, name);
  return [0.5, 0.95, 0.99].map((part) => percentile(counts, now.bounds_s, part));
}

function memoryOf(told) {
  const sum = (name) => told.engines.reduce((total, engine) => total + (engine[name] ?? 0), 0);
  const gpus = told.engines.flatMap((engine) => engine.devices.filter((device) => device.name !== "cpu"));
  const used = gpus.length ? gpus.reduce((total, device) => total + device.total_bytes - device.free_bytes, 0) : null;
  return [told.totals.held_bytes, sum("resident_bytes"), used];
}

function columns(of) {
  const found = [[], ...of(null, null).map(() => [])];
  history.forEach((now, index) => {
    const before = history[index - 1];
    if (!before) return;
    const isGap = now.unix_s - before.unix_s > GAP_S;
    const values = of(now, before);
    found[0].push(now.unix_s);
    values.forEach((value, column) => found[column + 1].push(isGap ? null : value));
  });
  return found;
}

export class Overview {
  constructor() {
    this.title = "Overview";
    this.tiles = {};
    const tile = (key, label) => {
      const value = h("div", { class: "value number" }, "–");
      const under = h("div", { class: "muted number" }, "\u00a0");
      this.tiles[key] = { value, under };
      return h("div", { class: "card tile" }, h("h2", {}, label), value, under);
    };
    this.charts = {
      work: new Live("Throughput", ["calls/s", "requests/s", "rows/s"]),
      memory: new Live("Memory", ["tensors", "processes", "GPUs"], { format: bytes, incrs: POWERS }),
      models: new Live("Latency of models", ["p50", "p95", "p99"], { format: seconds }),
      rpcs: new Live("Latency of RPCs", ["p50", "p95", "p99"], { format: seconds }),
    };
    this.engines = h("div", { class: "engines" });
    this.failures = h("section", { class: "card", hidden: true });
    this.element = h(
      "div",
      {},
      h("h1", {}, "Overview"),
      h("div", { class: "tiles" }, tile("sessions", "Sessions"), tile("tensors", "Tensors"), tile("calls", "Calls"), tile("models", "Models"), tile("latency", "Model latency p99"), tile("errors", "Failures")),
      h("div", { class: "charts" }, Object.values(this.charts).map((chart) => chart.element)),
      h("h2", { class: "part" }, "Engines"),
      this.engines,
      this.failures,
    );
  }

  async update(signal) {
    const told = await ask("overview", {}, signal);
    const before = history.at(-1);
    if (before && told.totals.batches < before.totals.batches && told.totals.calls < before.totals.calls) history.length = 0;
    history.push(told);
    if (history.length > KEPT) history.shift();
    this.show(told, before);
    return told;
  }

  show(told, before) {
    const { totals } = told;
    const tile = (key, value, under) => {
      put(this.tiles[key].value, value);
      put(this.tiles[key].under, under);
    };
    const speed = (name) => (before ? rate(told, before, name) : null);
    tile("sessions", whole(totals.sessions), `${whole(totals.attached)} with a client`);
    tile("tensors", short(totals.tensors), bytes(totals.held_bytes));
    const calls = totals.calls === undefined ? "batches" : "calls";
    tile("calls", `${short(speed(calls))} /s`, `${short(totals[calls])} ${calls} in all`);
    tile("models", whole(totals.models), `${whole(totals.waiting)} requests wait`);
    tile("latency", seconds(before ? latencies(told, before, "latency")[2] : null), `${short(speed("requests"))} requests/s`);
    const failed = (totals.call_failures ?? 0) + totals.request_failures;
    tile("errors", short(failed), totals.call_failures === undefined ? "model requests" : "calls and requests");
    this.charts.work.show(columns((now, last) => (now ? [rate(now, last, calls), rate(now, last, "requests"), rate(now, last, "rows")] : [0, 0, 0])));
    this.charts.memory.show(columns((now) => (now ? memoryOf(now) : [0, 0, 0])));
    this.charts.models.show(columns((now, last) => (now ? latencies(now, last, "latency") : [0, 0, 0])));
    this.charts.rpcs.element.hidden = !told.rpc_latency;
    if (told.rpc_latency) this.charts.rpcs.show(columns((now, last) => (now ? latencies(now, last, "rpc_latency") : [0, 0, 0])));
    this.engines.replaceChildren(...told.engines.map(engineCard));
    const reasons = Object.entries(told.failures ?? {}).sort((one, other) => other[1] - one[1]);
    this.failures.hidden = !reasons.length;
    this.failures.replaceChildren(
      h("h2", {}, "Calls that failed, by reason"),
      h("dl", { class: "facts" }, facts(reasons.map(([reason, count]) => [reason, whole(count)]))),
    );
  }

  close() {
    Object.values(this.charts).forEach((chart) => chart.close());
  }
}

function engineCard(engine) {
  const kind = { serving: "good", busy: "warn" }[engine.state] ?? "bad";
  const facts = engine.torch ? `torch ${engine.torch} · ${count(engine.sessions, "session")} · ${bytes(engine.resident_bytes)} resident` : (engine.reason ?? "");
  return h(
    "section",
    { class: "card engine" },
    h("div", { class: "row" }, h("h3", {}, engine.name), h("span", { class: `pill ${kind}` }, engine.state), h("span", { class: "muted end" }, engine.device ?? "")),
    h("p", { class: "muted" }, facts),
    engine.devices.map((device, index) => meter(device, engine.gpus[index - (engine.devices.length - engine.gpus.length)])),
  );
}

function meter(device, gpu) {
  const used = device.total_bytes - device.free_bytes;
  const part = device.total_bytes ? used / device.total_bytes : 0;
  const fill = h("div", { class: `fill ${part > 0.9 ? "full" : ""}` });
  fill.style.width = `${Math.min(100, part * 100).toFixed(1)}%`;
  const load = gpu && gpu.utilization !== null ? ` · ${Math.round(gpu.utilization * 100)} % busy` : "";
  return h(
    "div",
    { class: "meter" },
    h("div", { class: "row" }, h("b", {}, device.name), h("span", { class: "muted" }, device.description), h("span", { class: "end number" }, `${bytes(used)} of ${bytes(device.total_bytes)}${load}`)),
    h("div", { class: "track", role: "meter", "aria-label": `Memory of ${device.name}`, "aria-valuenow": Math.round(part * 100), "aria-valuemin": 0, "aria-valuemax": 100 }, fill),
    h("div", { class: "muted number" }, `${bytes(device.allocated_bytes)} in tensors of this server`),
  );
}
