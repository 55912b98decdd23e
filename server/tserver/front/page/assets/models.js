// Models, and one of them: drawn, with its queue and its batches.

import { ask } from "./api.js";
import { bars, network, program } from "./charts.js";
import { ago, bytes, facts, h, percentile, seconds, short, whole } from "./format.js";
import { List } from "./list.js";

const state = (text) => h("span", { class: `pill ${text === "READY" ? "good" : "warn"}` }, text.toLowerCase());
const place = (name, version) => `#/models/${encodeURIComponent(name)}/${version}`;

export class Models {
  constructor() {
    this.title = "Models";
    this.list = new List({
      label: "Models",
      empty: "No model is served. One is made by tclient.models.create().",
      sort: "name",
      columns: [
        { key: "name", title: "Model", cell: (row) => h("a", { href: place(row.name, row.version) }, row.name) },
        { key: "version", title: "Version", align: "right", cell: (row) => whole(row.version) },
        { key: "state", title: "State", cell: (row) => state(row.state) },
        { key: "parameters", title: "Parameters", align: "right", cell: (row) => short(row.parameters) },
        { key: "waiting", title: "Queue", align: "right", cell: (row) => whole(row.waiting) },
        { key: "requests", title: "Requests", align: "right", cell: (row) => short(row.requests) },
        { key: "failures", title: "Failed", align: "right", hide: "wide", cell: (row) => short(row.failures) },
        { key: "owner", title: "Owner", hide: "wide", cell: (row) => row.owner },
        { key: "device", title: "Device", hide: "wide", cell: (row) => row.device },
        { key: "engine", title: "Engine", hide: "wide", cell: (row) => row.engine },
      ],
      load: (query, signal) => ask("models", query, signal),
    });
    this.element = h("div", {}, h("h1", {}, "Models"), this.list.element);
  }

  update(signal) {
    return this.list.update(signal);
  }
}

export class Model {
  constructor(name, version) {
    this.title = `${name}, version ${version}`;
    this.name = name;
    this.version = version;
    this.drawing = h("section", { class: "card" });
    this.drawn = "";
    this.facts = h("dl", { class: "facts" });
    this.numbers = h("div", { class: "charts" });
    this.versions = h("p", {});
    this.element = h(
      "div",
      {},
      h("nav", { class: "crumbs", "aria-label": "Where this is" }, h("a", { href: "#/models", "data-up": true }, "Models")),
      h("h1", {}, name, " ", h("span", { class: "muted" }, `version ${version}`)),
      this.versions,
      this.drawing,
      h("section", { class: "card" }, this.facts),
      this.numbers,
    );
  }

  async update(signal) {
    const told = await ask(`models/${encodeURIComponent(this.name)}/versions/${encodeURIComponent(this.version)}`, {}, signal);
    this.versions.replaceChildren(
      state(told.state),
      told.reason ? ` ${told.reason}` : "",
      told.versions.length > 1 ? h("span", {}, " Versions: ", told.versions.map((each) => [String(each.version) === this.version ? h("b", {}, each.version) : h("a", { href: place(this.name, each.version) }, each.version), " "])) : "",
    );
    this.draw(told);
    const late = (part) => seconds(percentile(told.latency, told.bounds_s, part));
    const pairs = [
      ["Parameters", whole(told.parameters)],
      ["Their memory", bytes(told.parameter_bytes)],
      ["Not finite", told.non_finite_parameters ? whole(told.non_finite_parameters) : ""],
      ["Work of a row", `${short(told.flops_per_row)} FLOP`],
      ["Device", told.engine === "engine" ? told.device : `${told.device} of ${told.engine}`],
      ["Owner", told.owner || (told.is_public ? "everybody" : "")],
      ["Kept on disk", told.is_persistent ? "yes" : "no"],
      ["Queue now", whole(told.waiting)],
      ["Requests", whole(told.requests)],
      ["Passes", whole(told.passes)],
      ["Rows", whole(told.rows)],
      ["Latency p50", told.requests ? late(0.5) : ""],
      ["Latency p95", told.requests ? late(0.95) : ""],
      ["Latency p99", told.requests ? late(0.99) : ""],
      ["A pass takes", told.mean_compute_us === null ? "" : seconds(told.mean_compute_us / 1e6)],
      ["Batches", told.is_batched ? `up to ${whole(told.max_batch_size)} rows` : "not batched"],
      ["Wait for more rows", told.max_queue_delay_us ? seconds(told.max_queue_delay_us / 1e6) : ""],
      ["Last request", told.last_inference_unix_s ? ago(told.last_inference_unix_s, told.unix_s) : "never"],
      ...Object.entries(told.failures).map(([reason, count]) => [`Failed: ${reason}`, whole(count)]),
    ];
    this.facts.replaceChildren(...facts(pairs));
    const sizes = told.batch_sizes.map(([rows, count]) => ({ value: count, label: String(rows), text: `${rows} rows: ${whole(count)} passes` }));
    const buckets = told.latency.map((count, index) => ({ value: count, text: `up to ${seconds(told.bounds_s[index] ?? Infinity)}: ${whole(count)}` }));
    this.numbers.replaceChildren(
      h("section", { class: "card" }, h("h2", {}, "Rows of a batch"), sizes.length ? bars("Passes by their rows", sizes.length > 16 ? sizes.map((item) => ({ ...item, label: undefined })) : sizes, { low: sizes[0].label, high: sizes.at(-1).label }) : h("p", { class: "empty" }, "No batch was run yet.")),
      h("section", { class: "card" }, h("h2", {}, "Latency of requests"), told.requests ? bars("Requests by their latency", buckets, { low: seconds(told.bounds_s[0]), high: `over ${seconds(told.bounds_s.at(-1))}` }) : h("p", { class: "empty" }, "No request was answered yet.")),
    );
  }

  // A model does not change; another one may be loaded under its name.
  draw(told) {
    const text = JSON.stringify([told.layers, told.calls, told.inputs, told.outputs]);
    if (text === this.drawn) return;
    this.drawn = text;
    const details = h("details", {}, h("summary", {}, "As torch prints it"), h("pre", { tabindex: "0" }, told.text));
    this.drawing.replaceChildren(h("h2", {}, "Network"), told.layers.length ? network(told) : program(told), told.text ? details : "");
  }
}
