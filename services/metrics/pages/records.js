// What a number is made of, in a dialog: a page of records at a time, and all of them as a file.

import { address, get } from "./api.js";
import { at, element } from "./dom.js";
import * as format from "./format.js";
import { subjectPage } from "./links.js";

const PAGE = 100;

export class Records {
  #view = null;
  #dialog = at("records");
  #question = null;
  #metric = null;
  #next = null;
  #asked = 0; // an answer to an older question isn't shown any more

  constructor() {
    at("records-close").addEventListener("click", () => this.#dialog.close());
    at("records-more").addEventListener("click", () => this.#more());
    this.#dialog.addEventListener("click", (event) => {
      // A click beside the dialog is one on its backdrop, and that belongs to it.
      if (event.target === this.#dialog) this.#dialog.close();
    });
  }

  show(view) {
    this.#view = view;
  }

  async open(metric) {
    const { subject, period, start, end, about, kind } = this.#view;
    this.#metric = metric;
    this.#question = { subject, metric: metric.id, period };
    this.#next = null;
    at("records-title").textContent = metric.title;
    at("records-sum").textContent = `${about.name}, ${format.span(start, end)}`;
    const heads = ["Record", ...(kind !== "person" ? ["Person"] : []), "Day", "Value"];
    at("records-heads").replaceChildren(...heads.map((head) => element("th", { scope: "col", class: head === "Value" ? "amount" : null }, head)));
    at("records-rows").replaceChildren();
    at("records-csv").href = address("/v1/records/export", { ...this.#question, format: "csv" });
    this.#dialog.showModal();
    at("records-title").focus();
    const mine = this.#load();
    const exact = get("/v1/values", this.#question);
    try {
      const { value, unit, count } = await exact;
      if (this.#metric !== metric) return;
      const sum = `${format.number(value, unit)} from ${format.number(String(count), "count")} ${count === 1 ? "record" : "records"}`;
      at("records-sum").textContent += `: ${sum}`;
    } catch {
      // The list says it by itself.
    }
    await mine;
  }

  async #more() {
    const from = at("records-rows").children.length;
    await this.#load();
    at("records-rows").children[from]?.querySelector("th").focus();
  }

  async #load() {
    const mine = ++this.#asked;
    at("records-more").hidden = true;
    at("records-note").textContent = "Loading…";
    try {
      const page = await get("/v1/records", { ...this.#question, limit: PAGE, cursor: this.#next });
      if (mine !== this.#asked) return;
      at("records-rows").append(...page.records.map((record) => this.#row(record, page.unit)));
      this.#next = page.next;
      at("records-more").hidden = page.next === null;
      at("records-note").textContent = at("records-rows").children.length ? "" : "There are no records.";
    } catch (error) {
      if (mine === this.#asked) at("records-note").textContent = error.detail || "The records can't be had right now.";
    }
  }

  #row(record, unit) {
    const value = element("td", { class: "amount" }, format.number(record.value, unit));
    const name = element("th", { scope: "row", tabindex: "-1" }, record.name || record.id);
    if (record.name) name.append(element("small", {}, record.id));
    const day = element("td", {}, format.date(record.day, { month: "short" }));
    return element("tr", {}, name, this.#view.kind !== "person" ? element("td", {}, person(record)) : null, day, value);
  }
}

function person({ person: id, person_name: name }) {
  return id ? element("a", { href: subjectPage(`person:${id}`) }, name || id) : format.DASH;
}
