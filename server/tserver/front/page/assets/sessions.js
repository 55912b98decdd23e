// Sessions, the tensors of one, and one tensor.

import { ask } from "./api.js";
import { bars, line, picture } from "./charts.js";
import { ago, bytes, count, facts, h, number, put, shape, short, whole } from "./format.js";
import { List } from "./list.js";

const address = (...parts) => parts.map(encodeURIComponent).join("/");
const crumbs = (...links) => h("nav", { class: "crumbs", "aria-label": "Where this is" }, links.map(([text, to]) => h("a", { href: to, "data-up": true }, text)));

function presence(session) {
  return session.is_attached
    ? h("span", { class: "pill good" }, "connected")
    : h("span", { class: "pill warn" }, `ends in ${Math.ceil(session.lease_left_s)} s`);
}

export class Sessions {
  constructor() {
    this.title = "Sessions";
    this.list = new List({
      label: "Sessions",
      empty: "No session is open. One is opened by tclient.connect().",
      sort: "opened_unix_s",
      descending: true,
      columns: [
        { key: "id", title: "Session", cell: (row) => h("a", { href: `#/sessions/${address(row.id)}` }, h("code", {}, row.id)) },
        { key: "principal", title: "Principal", cell: (row) => row.principal },
        { key: "peer", title: "From", hide: "wide", cell: (row) => h("span", { title: row.client }, row.peer) },
        { key: "is_attached", title: "Client", cell: presence },
        { key: "tensors", title: "Tensors", align: "right", cell: (row) => whole(row.tensors) },
        { key: "held_bytes", title: "Memory", align: "right", cell: (row) => bytes(row.held_bytes) },
        { key: "batches", title: "Batches", align: "right", hide: "wide", cell: (row) => short(row.batches) },
        { key: "waiting", title: "Under way", align: "right", hide: "wide", cell: (row) => whole(row.waiting) },
        { key: "opened_unix_s", title: "Opened", align: "right", hide: "wide", cell: (row, told) => ago(row.opened_unix_s, told.unix_s) },
        { key: "engine", title: "Engine", hide: "wide", cell: (row) => row.engine },
      ],
      load: (query, signal) => ask("sessions", query, signal),
    });
    this.element = h("div", {}, h("h1", {}, "Sessions"), this.list.element);
  }

  update(signal) {
    return this.list.update(signal);
  }
}

export class Session {
  constructor(id) {
    this.title = `Session ${id}`;
    this.id = id;
    this.facts = h("p", { class: "muted" }, "\u00a0");
    this.list = new List({
      label: "Tensors",
      empty: "This session holds no tensor.",
      columns: [
        { key: "name", title: "Id", cell: (row) => h("a", { href: `#/sessions/${address(id, row.name)}` }, h("code", {}, row.name)) },
        { key: "given", title: "Name", cell: (row) => row.given },
        { key: "shape", title: "Shape", cell: (row) => h("span", { class: "number" }, shape(row.shape)) },
        { key: "dtype", title: "Dtype", cell: (row) => row.dtype },
        { key: "size_bytes", title: "Size", align: "right", cell: (row) => bytes(row.size_bytes) },
        { key: "device", title: "Device", hide: "wide", cell: (row) => row.device },
        { key: "requires_grad", title: "Gradient", sort: false, hide: "wide", cell: (row) => (row.requires_grad ? "required" : "") },
      ],
      load: (query, signal) => ask(`sessions/${address(id)}/tensors`, query, signal),
      noteOf: (told) => (told.is_busy ? "The engine is busy; this is what was there before." : told.is_whole ? "" : "Only the first 200,000 tensors are listed."),
    });
    this.element = h("div", {}, crumbs(["Sessions", "#/sessions"]), h("h1", {}, "Session ", h("code", {}, id)), this.facts, this.list.element);
  }

  async update(signal) {
    const told = await ask(`sessions/${address(this.id)}`, {}, signal);
    this.facts.replaceChildren(
      presence(told),
      ` ${told.principal} · ${count(told.tensors, "tensor")} in ${bytes(told.held_bytes)} · ${short(told.batches)} batches, ${whole(told.waiting)} under way · opened ${ago(told.opened_unix_s, told.unix_s)}${told.engine === "engine" ? "" : ` · on ${told.engine}`}`,
    );
    await this.list.update(signal);
  }
}

export class Tensor {
  constructor(session, name) {
    this.title = `Tensor ${name}`;
    this.session = session;
    this.name = name;
    this.at = 0;
    this.seen = "";
    this.again = h("button", { type: "button", click: () => this.update(undefined, true) }, "Look again");
    this.facts = h("dl", { class: "facts" });
    this.note = h("p", { class: "muted", role: "status" });
    this.drawn = h("div", { class: "charts" });
    this.element = h(
      "div",
      {},
      crumbs(["Sessions", "#/sessions"], [session, `#/sessions/${address(session)}`]),
      h("div", { class: "row" }, h("h1", {}, "Tensor ", h("code", {}, name)), this.again),
      h("section", { class: "card" }, this.facts),
      this.note,
      this.drawn,
    );
  }

  // Elements are looked at when somebody asks for that, and not again and again.
  async update(signal, again = false) {
    if (this.seen && !again) return;
    const told = await ask(`sessions/${address(this.session)}/tensors/${address(this.name)}`, { at: this.at || "" }, signal);
    if (told.is_busy) {
      put(this.note, "The engine is busy with this session; the tensor is looked at when it has time.");
      return;
    }
    this.seen = "yes";
    this.show(told);
  }

  show(told) {
    const pairs = [
      ["Name", told.name],
      ["Shape", shape(told.shape)],
      ["Dtype", told.dtype],
      ["Elements", whole(told.elements)],
      ["Size", bytes(told.size_bytes)],
      ["Device", told.device],
      ["Stride", told.stride?.join(", ")],
      ["Layout", told.layout === "strided" ? "" : told.layout],
      ["Gradient", told.requires_grad ? "required" : "not required"],
    ];
    const { statistics } = told;
    if (statistics) {
      for (const key of ["min", "max", "mean", "std", "median"]) pairs.push([key, number(statistics[key])]);
    }
    if (told.sampled) {
      pairs.push(["zero", whole(told.zeros)], ["NaN", whole(told.nan)], ["infinite", whole(told.infinite)]);
    }
    this.facts.replaceChildren(...facts(pairs));
    const sampled = told.sampled && told.sampled < told.elements ? `Statistics and histogram are of a sample of ${whole(told.sampled)} elements. ` : "";
    put(this.note, told.sampled ? `${sampled}${told.is_complex ? "Of complex numbers the magnitudes are shown." : ""}` : "There are no elements to show.");
    const parts = [];
    if (told.histogram) {
      const { counts, edges } = told.histogram;
      const items = counts.map((count, index) => ({ value: count, text: `${number(edges[index])} to ${number(edges[index + 1])}: ${whole(count)}` }));
      parts.push(h("section", { class: "card" }, h("h2", {}, "Histogram"), bars("Histogram of the elements", items, { low: number(edges[0]), high: number(edges.at(-1)) })));
    }
    if (told.picture && told.elements > 1) {
      parts.push(h("section", { class: "card" }, h("div", { class: "row" }, h("h2", {}, told.picture.shape.length === 2 ? "Picture" : "Elements"), this.choice(told)), told.picture.shape.length === 2 ? picture(told.picture, told.shape.slice(-2)) : line(told.picture, told.shape[0])));
    }
    this.drawn.replaceChildren(...parts);
  }

  choice(told) {
    if (told.matrices < 2) return null;
    const index = [];
    let rest = this.at;
    for (const size of told.shape.slice(0, -2).reverse()) {
      index.unshift(rest % size);
      rest = Math.floor(rest / size);
    }
    const to = (step) => () => {
      this.at = (this.at + step + told.matrices) % told.matrices;
      this.update(undefined, true);
    };
    return h("div", { class: "row end" }, h("button", { type: "button", "data-key": "p", "aria-label": "Previous matrix", click: to(-1) }, "‹"), h("span", { class: "number" }, `[${index.join(", ")}, :, :]`), h("button", { type: "button", "data-key": "n", "aria-label": "Next matrix", click: to(1) }, "›"));
  }
}
