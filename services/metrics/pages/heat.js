// When things happen: weekdays and hours as a table whose cells are coloured by their number.
//
// On a narrow screen the hours go downwards. The week begins as it does in the organisation's calendar.

import { ask } from "./api.js";
import { at, element } from "./dom.js";
import * as format from "./format.js";

const OF = new Set(["person", "team"]); // whose records it can be drawn of
const USUAL_HOURS = [8, 18];
const narrow = matchMedia("(max-width: 47.99em)");

export class Heat {
  #view = null;
  #found = null;

  constructor() {
    at("heat-metric").addEventListener("change", () => this.#load());
    narrow.addEventListener("change", () => this.#draw());
  }

  async show(view, values) {
    this.#view = view;
    const some = view.metrics.filter((metric) => metric.base && metric.level === "driver"
      && metric.unit === "count" && values.get(metric.id)?.count);
    at("heat").hidden = some.length === 0 || !OF.has(view.kind);
    if (at("heat").hidden) return;
    const pick = at("heat-metric");
    const chosen = some.find(({ id }) => id === pick.value) ?? mostly(some, values);
    pick.replaceChildren(...some.map(({ id, title }) => element("option", { value: id, selected: id === chosen.id }, title)));
    await this.#load();
  }

  async #load() {
    const { subject, period } = this.#view;
    const metric = at("heat-metric").value;
    const found = await ask("/v1/heatmap", { subject, metric, period });
    if (metric !== at("heat-metric").value) return;
    this.#found = found;
    this.#draw();
  }

  #draw() {
    if (!this.#found?.hours.length) {
      at("heat-body").replaceChildren(element("p", { class: "hint" }, format.DASH));
      return;
    }
    const { hours, zone } = this.#found;
    const counts = new Map(hours.map(({ weekday, hour, count }) => [weekday * 24 + hour, count]));
    const most = Math.max(...counts.values());
    const seen = hours.map(({ hour }) => hour);
    const first = Math.min(USUAL_HOURS[0], ...seen);
    const last = Math.max(USUAL_HOURS[1], ...seen);
    const days = this.#week().map((day) => ({ day, short: format.weekday(day), long: format.weekday(day, "long") }));
    const times = Array.from({ length: last - first + 1 }, (_, place) => {
      const text = format.hour(first + place);
      return { hour: first + place, short: text, long: text };
    });
    const [downwards, across] = narrow.matches ? [times, days] : [days, times];
    const head = (scope) => ({ short, long }) => element("th", { scope, abbr: long }, short);
    const rows = downwards.map((row) => element("tr", {}, head("row")(row), ...across.map((column) => {
      const { day, hour } = { ...row, ...column };
      return cell(counts.get(day * 24 + hour) ?? 0, most);
    })));
    const caption = element("caption", {}, `Numbers by weekday and hour, ${zone}. The most in an hour: ${format.number(String(most), "count")}.`);
    const table = element("table", { class: "heat" }, caption,
      element("thead", {}, element("tr", {}, element("td", {}), ...across.map(head("col")))), element("tbody", {}, ...rows));
    at("heat-body").replaceChildren(table);
  }

  #week() {
    const start = new Date(`${this.#view.about.periods.week.start}T00:00:00Z`).getUTCDay() || 7;
    return Array.from({ length: 7 }, (_, place) => ((start - 1 + place) % 7) + 1);
  }
}

function mostly(metrics, values) {
  return metrics.reduce((one, other) => (values.get(other.id).count > values.get(one.id).count ? other : one));
}

function cell(count, most) {
  const made = element("td", {}, element("span", { class: count ? null : "unseen" }, format.number(String(count), "count")));
  if (count) made.style.setProperty("--heat", `${Math.round(20 + (80 * count) / most)}%`);
  return made;
}
