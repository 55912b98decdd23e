// What is asked of the server, by method; and the last errors that callers were told of.

import { ask } from "./api.js";
import { bytes, clock, h, percentile, seconds, short, whole } from "./format.js";
import { List } from "./list.js";

export class Requests {
  constructor() {
    this.title = "Requests";
    const late = (part) => (row, told) => (row.is_stream ? h("span", { class: "muted" }, "stream") : seconds(percentile(row.latency, told.bounds_s, part)));
    this.list = new List({
      label: "Requests by method",
      empty: "Nothing was asked yet, or it takes the role admin to see it.",
      sort: "started",
      descending: true,
      columns: [
        { key: "method", title: "Method", cell: (row) => h("span", {}, row.method, h("br"), h("small", { class: "muted" }, row.service)) },
        { key: "started", title: "Begun", align: "right", cell: (row) => short(row.started) },
        { key: "active", title: "Open", align: "right", cell: (row) => whole(row.active) },
        { key: "failed", title: "Failed", align: "right", cell: (row) => h("span", { title: Object.entries(row.reasons).map(([reason, count]) => `${reason}: ${count}`).join("\n") }, short(row.failed)) },
        { key: "p50", title: "p50", align: "right", sort: false, cell: late(0.5) },
        { key: "p99", title: "p99", align: "right", sort: false, cell: late(0.99) },
        { key: "bytes_in", title: "Received", align: "right", hide: "wide", cell: (row) => bytes(row.bytes_in) },
        { key: "bytes_out", title: "Sent", align: "right", hide: "wide", cell: (row) => bytes(row.bytes_out) },
      ],
      load: (query, signal) => ask("requests", query, signal),
    });
    this.element = h("div", {}, h("h1", {}, "Requests"), h("p", { class: "muted" }, "Since the server was started; percentiles are of all that time."), this.list.element);
  }

  update(signal) {
    return this.list.update(signal);
  }
}

export class Errors {
  constructor() {
    this.title = "Errors";
    this.list = new List({
      label: "Recent errors",
      empty: "No error since the server was started.",
      sort: "unix_s",
      descending: true,
      columns: [
        { key: "unix_s", title: "Time", cell: (row) => h("time", { class: "number", datetime: new Date(row.unix_s * 1000).toISOString() }, clock(row.unix_s)) },
        { key: "method", title: "Method", cell: (row) => row.method.split("/").at(-1) || row.method },
        { key: "reason", title: "Reason", cell: (row) => h("span", {}, row.reason, row.code === row.reason ? "" : h("small", { class: "muted" }, ` ${row.code}`)) },
        { key: "principal", title: "Principal", cell: (row) => row.principal },
        { key: "session", title: "Session", sort: false, hide: "wide", cell: (row) => (row.session ? h("a", { href: `#/sessions/${row.session}` }, h("code", {}, row.session)) : "") },
        { key: "message", title: "Message", sort: false, cell: (row) => h("span", { class: "message" }, row.message) },
        { key: "engine", title: "Engine", hide: "wide", cell: (row) => row.engine },
      ],
      load: (query, signal) => ask("errors", query, signal),
    });
    this.element = h("div", {}, h("h1", {}, "Errors"), h("p", { class: "muted" }, "The last hundred refusals of RPCs and HTTP requests. What fails within a batch of calls is counted under Overview."), this.list.element);
  }

  update(signal) {
    return this.list.update(signal);
  }
}
