// How a number grows towards its goal: a chart, the same in a sentence, and the same as a table.

import { ask } from "./api.js";
import { chart } from "./chart.js";
import { at, element, put } from "./dom.js";
import * as format from "./format.js";

// What is looked at first, where no goal says what matters.
const USUAL = ["revenue_won", "deals_won"];
const FORECAST = new Set(["revenue_won", "deals_won"]);
const FORECAST_GRAINS = new Set(["month", "quarter", "half", "year"]);
const SURE = "0.8"; // that a number will lie between P10 and P90
const GROWING = new Set(["count", "quantity", "money"]); // a sum of these says something every day

export class Pace {
  #view = null;
  #values = new Map();
  #data = null;
  #chosen;
  #figure = null;

  /** `chosen(metric)` is called whenever another metric is looked at, or its numbers are new. */
  constructor(chosen) {
    this.#chosen = chosen;
    at("pace-metric").addEventListener("change", () => this.#load());
    // A drawing is made for its width: texts in it stay as large as others.
    new ResizeObserver(() => this.#draw()).observe(at("pace-body"));
  }

  async show(view, values) {
    this.#view = view;
    this.#values = values;
    const some = view.metrics.filter((metric) => metric.base && GROWING.has(metric.unit)
      && (values.get(metric.id)?.target ?? values.get(metric.id)?.value ?? null) !== null);
    const usual = view.metrics.filter(({ id }) => id === USUAL[0]);
    const offered = some.length ? some : usual;
    at("pace").hidden = offered.length === 0;
    if (offered.length === 0) return;
    const weight = ({ id, level }) => (values.get(id)?.target ? 8 : 0) + (level === "goal" ? 1 : 0) + 2 * (1 + USUAL.toReversed().indexOf(id));
    const ordered = offered.toSorted((a, b) => weight(b) - weight(a));
    const pick = at("pace-metric");
    const chosen = ordered.find(({ id }) => id === pick.value) ?? ordered[0];
    pick.replaceChildren(...ordered.map(({ id, title }) => element("option", { value: id, selected: id === chosen.id }, title)));
    await this.#load();
  }

  async #load() {
    const { subject, period, start, end, today, grain } = this.#view;
    const metric = this.#view.metrics.find(({ id }) => id === at("pace-metric").value);
    const question = { subject, metric: metric.id, period };
    const until = today < end ? today : end;
    const members = this.#chosen(metric);
    const value = this.#values.get(metric.id) ?? null;
    const running = today >= start && today <= end;
    const foretold = running && FORECAST.has(metric.id) && FORECAST_GRAINS.has(grain);
    const [series, course, forecast] = await Promise.all([
      until < start ? null : ask("/v1/series", { subject, metric: metric.id, grain: "day", from: start, to: until }),
      value?.target ? ask("/v1/goals/course", question) : null,
      foretold ? ask("/v1/forecasts", question) : null,
    ]);
    if (metric.id !== at("pace-metric").value) return;
    this.#data = { metric, value, forecast, foretold, start, end, running, ...lines(series, course), unit: value?.unit ?? series?.unit ?? "count" };
    this.#write();
    await members;
  }

  #write() {
    const { days, metric, unit } = this.#data;
    this.#figure = element("div", { class: "drawing" });
    const text = sentences(this.#data);
    const heads = ["Day", metric.title, "Expected"].map((head, place) => element("th", { scope: "col", class: place ? "amount" : null }, head));
    const rows = days.map(({ day, actual, expected }) => element("tr", {},
      element("th", { scope: "row" }, format.date(day, { month: "short", weekday: "short" })),
      element("td", { class: "amount" }, format.number(actual, unit)),
      element("td", { class: "amount" }, format.number(expected, unit, { whole: true, most: 1 })),
    ));
    const table = element("table", { class: "list" }, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows));
    const open = at("pace-body").querySelector("details")?.open ?? false;
    at("pace-body").replaceChildren(
      element("div", { class: "standing" }, ...figures(this.#data)),
      element("figure", {}, this.#figure, legend(this.#data), element("figcaption", { id: "pace-said" }, text)),
      element("details", { open }, element("summary", {}, "As a table"), element("div", { class: "scrolled", tabindex: "0", role: "region", "aria-label": "Pace by day" }, table)),
    );
    put(at("announcement"), text);
    this.#draw();
  }

  #draw() {
    const width = this.#figure?.clientWidth ?? 0;
    if (!width || Number(this.#figure.dataset.width) === width) return;
    this.#figure.dataset.width = String(width);
    this.#figure.replaceChildren(chart(this.#data, width));
  }
}

/** For each day what was reached by its end, and what was expected; null where nothing is known. */
function lines(series, course) {
  const expected = new Map(course?.days.map((each) => [each.day, each.expected]));
  const actual = new Map();
  let sum = null;
  for (const { start, value } of series?.points ?? []) {
    sum = added(sum, value);
    actual.set(start, sum ?? "0");
  }
  const days = [...new Set([...actual.keys(), ...expected.keys()])].sort();
  return { days: days.map((day) => ({ day, actual: actual.get(day) ?? null, expected: expected.get(day) ?? null })) };
}

/** The exact sum of two decimal texts; null is nothing. */
function added(one, other) {
  if (one === null || other === null) return one ?? other;
  const places = Math.max(...[one, other].map((text) => (text.split(".")[1] ?? "").length));
  const whole = (text) => {
    const [units, rest = ""] = text.split(".");
    return BigInt(units + rest.padEnd(places, "0"));
  };
  const sum = whole(one) + whole(other);
  const digits = String(sum < 0n ? -sum : sum).padStart(places + 1, "0");
  const text = places ? `${digits.slice(0, -places)}.${digits.slice(-places)}` : digits;
  return sum < 0n ? `-${text}` : text;
}

function figures({ value, unit, forecast, foretold, running }) {
  const shown = [["So far", format.brief(value?.value, unit)]];
  if (value?.target) {
    shown.push(["Goal", format.brief(value.effective_target, unit)], ["Reached", format.share(value.attainment)]);
    shown.push(["Pace", format.share(value.pace)]);
    if (running) shown.push(["Needed a day", format.number(value.required_per_day, unit, { whole: true, most: 1 })]);
  }
  if (foretold) shown.push(["Forecast", format.brief(forecast?.distribution?.p50, unit)]);
  return shown.map(([name, text]) => element("p", {}, element("span", {}, name), " ", element("strong", {}, text)));
}

function legend({ days, forecast, value }) {
  const shown = [["actual", "Reached", true], ["expected", "Expected", days.some(({ expected }) => expected !== null)],
    ["goal", "Goal", Boolean(value?.target)], ["band", `Forecast, ${format.share(SURE)} of cases`, Boolean(forecast?.distribution)]];
  const items = shown.filter(([, , there]) => there).map(([name, text]) => element("li", { "data-line": name }, text));
  return element("ul", { class: "legend", "aria-hidden": "true" }, ...items);
}

/** What the chart shows, for those who don't see it, and for those who like it said. */
function sentences({ metric, value, unit, forecast, running, end }) {
  const amount = (text) => format.number(text, unit, { whole: true, most: 1 });
  const said = [`${metric.title}: ${amount(value?.value)}.`];
  if (value?.target) {
    said.push(`${format.share(value.attainment)} of the goal of ${amount(value.effective_target)} is reached.`);
    const ahead = Number(value.value ?? 0) - Number(value.expected ?? 0);
    const apart = format.difference(...(ahead < 0 ? [value.value ?? "0", value.expected] : [value.expected, value.value ?? "0"]));
    if (running && apart !== null) said.push(`That is ${amount(apart)} ${ahead < 0 ? "behind" : "ahead of"} what was expected by now.`);
    if (running && Number(value.required_per_day) > 0) said.push(`${amount(value.required_per_day)} a day are needed from here.`);
  }
  if (running && forecast?.distribution) {
    const { p10, p50, p90 } = forecast.distribution;
    said.push(`By ${format.date(end)} about ${amount(p50)} are likely, with a probability of ${format.share(SURE)} between ${amount(p10)} and ${amount(p90)}.`);
    const errors = forecast.backtest?.filter((each) => each.mape !== null) ?? [];
    const half = errors.find((each) => Number(each.share) === 0.5) ?? errors[0];
    if (half) said.push(`Forecasts of ${half.periods} past periods were wrong by ${format.share(half.mape)} on average, halfway.`);
  } else if (running && forecast?.reason) {
    said.push(`There is no forecast: ${forecast.reason}`);
  }
  return said.join(" ");
}
