// A long list that stays on the server: one piece of it is shown, searched and in an order as the server makes it.

import { h, put, whole } from "./format.js";

const ROWS = 100;

// Columns are {key, title, cell(row), align, sort, hide}. `load(query)` answers with {total, rows}.
export class List {
  constructor({ label, columns, load, empty, sort = "", descending = false, noteOf = () => "", search = true }) {
    this.columns = columns;
    this.load = load;
    this.emptyText = empty;
    this.noteOf = noteOf;
    this.query = { sort, descending, search: "", offset: 0 };
    this.total = 0;
    this.search = h("input", {
      type: "search",
      placeholder: "Search",
      "aria-label": `Search ${label}`,
      spellcheck: "false",
      hidden: !search,
      input: () => this.change({ search: this.search.value, offset: 0 }, 200),
    });
    this.note = h("span", { class: "muted", role: "status" });
    this.body = h("tbody");
    this.heads = columns.map((column) => this.head(column));
    this.previous = h("button", { type: "button", "data-key": "p", click: () => this.move(-ROWS) }, "‹ Previous");
    this.next = h("button", { type: "button", "data-key": "n", click: () => this.move(ROWS) }, "Next ›");
    this.range = h("span", { class: "number" });
    this.empty = h("p", { class: "empty", hidden: true });
    const table = h("table", {}, h("caption", { class: "hidden" }, label), h("thead", {}, h("tr", {}, this.heads)), this.body);
    this.scroll = h("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, table);
    this.pager = h("div", { class: "row pager" }, this.previous, this.range, this.next);
    this.element = h("div", { class: "list card" }, h("div", { class: "row" }, this.search, this.note), this.scroll, this.empty, this.pager);
  }

  head(column) {
    const content = column.sort === false ? column.title : h("button", { type: "button", class: "sort", click: () => this.order(column.key) }, column.title);
    return h("th", { scope: "col", class: `${column.align ?? ""} ${column.hide ?? ""}` }, content);
  }

  order(key) {
    const descending = this.query.sort === key ? !this.query.descending : false;
    this.change({ sort: key, descending, offset: 0 });
  }

  move(step) {
    const offset = this.query.offset + step;
    if (offset >= 0 && offset < this.total) this.change({ offset });
  }

  change(changes, delay = 0) {
    Object.assign(this.query, changes);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.update().catch((error) => put(this.note, error.message)), delay);
  }

  async update(signal = undefined) {
    const asked = (this.asked = {});
    const told = await this.load({ ...this.query, descending: this.query.descending ? "1" : "", limit: ROWS }, signal);
    // What was asked for later counts.
    if (this.asked !== asked) return;
    this.total = told.total;
    if (told.total && this.query.offset >= told.total) {
      this.change({ offset: Math.floor((told.total - 1) / ROWS) * ROWS });
      return;
    }
    this.show(told);
  }

  show(told) {
    const focused = this.body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    this.body.replaceChildren(
      ...told.rows.map((row) =>
        h("tr", {}, this.columns.map((column) => h("td", { class: `${column.align ?? ""} ${column.hide ?? ""}` }, column.cell(row, told)))),
      ),
    );
    if (focused) this.body.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    this.columns.forEach((column, index) => {
      const way = this.query.sort === column.key ? (this.query.descending ? "descending" : "ascending") : "none";
      if (column.sort !== false) this.heads[index].setAttribute("aria-sort", way);
    });
    const last = this.query.offset + told.rows.length;
    put(this.range, told.total ? `${whole(this.query.offset + 1)}–${whole(last)} of ${whole(told.total)}` : "");
    this.previous.disabled = this.query.offset === 0;
    this.next.disabled = last >= told.total;
    this.pager.hidden = told.total <= ROWS;
    this.scroll.hidden = told.total === 0;
    this.empty.hidden = told.total !== 0;
    put(this.empty, this.query.search ? "Nothing matches the search." : this.emptyText);
    put(this.note, this.noteOf(told));
  }
}
