// The pyramid: what is to be reached, what leads there, what is done for it; each number with its goal.

import { at, element, put } from "./dom.js";
import { brief, DASH, number, share } from "./format.js";

const SOON_BEHIND = 0.9; // of what is expected: below, a number is behind

export class Tiles {
  #open;
  #tiles = new Map(); // by metric

  /** `open(metric)` shows the records behind a number. */
  constructor(open) {
    this.#open = open;
  }

  show(view, values) {
    const missing = [];
    for (const section of document.querySelectorAll(".level")) {
      const metrics = view.metrics.filter((metric) => metric.level === section.dataset.level);
      const there = metrics.filter(({ id }) => says(values.get(id)));
      missing.push(...metrics.filter(({ id }) => !says(values.get(id))));
      // What has a goal comes first.
      const ordered = there.toSorted((a, b) => Number(Boolean(values.get(b.id).target)) - Number(Boolean(values.get(a.id).target)));
      const tiles = ordered.map((metric) => this.#tile(metric, values.get(metric.id), view));
      const list = section.querySelector(".tiles");
      // Only when there are others: what is replaced loses the focus.
      if (tiles.length !== list.children.length || tiles.some((tile, place) => list.children[place] !== tile)) {
        list.replaceChildren(...tiles);
      }
      section.hidden = tiles.length === 0;
    }
    at("dashes").hidden = missing.length === 0;
    at("dashes-count").textContent = String(missing.length);
    at("dashes-list").replaceChildren(...missing.map((metric) => element("li", {}, `${metric.title} ${DASH}`)));
  }

  #tile(metric, value, view) {
    const tile = this.#tiles.get(metric.id) ?? this.#made(metric, view);
    this.#tiles.set(metric.id, tile);
    const part = (name) => tile.querySelector(`.${name}`);
    const text = brief(value.value, value.unit);
    const opens = part("number").tagName === "BUTTON";
    put(part("number"), text);
    if (opens) {
      part("number").disabled = value.count === 0;
      part("number").setAttribute("aria-label", `${metric.title}, ${text}: show what is behind it`);
    }
    part("towards").hidden = value.effective_target === null;
    if (value.effective_target !== null) fillGoal(part, value, metric);
    const other = value.other_units.length ? `Also in ${value.other_units.join(", ")}` : "";
    put(part("other"), other);
    return tile;
  }

  #made(metric, view) {
    const opens = view.mayOpen && metric.base;
    const figure = opens
      ? element("button", { type: "button", class: "number" })
      : element("span", { class: "number" });
    if (opens) figure.addEventListener("click", () => this.#open(metric));
    const towards = element("div", { class: "towards" },
      element("span", { class: "bar", "aria-hidden": "true" }, element("span", { class: "fill" })),
      element("p", { class: "reached" }),
      element("p", { class: "speed" }),
    );
    return element("li", { class: "tile", "data-metric": metric.id, title: metric.description },
      element("h3", {}, metric.title), element("p", { class: "figure" }, figure), towards, element("p", { class: "other" }),
    );
  }
}

function fillGoal(part, value, metric) {
  const reached = Number(value.attainment ?? 0);
  part("fill").style.setProperty("--share", String(Math.max(0, Math.min(1, reached))));
  part("towards").dataset.reached = String(reached >= 1);
  put(part("reached"), `${share(value.attainment)} of ${brief(value.effective_target, value.unit)}`);
  const pace = value.pace === null ? null : Number(value.pace);
  // Where less is better, nobody is behind for having less.
  const behind = pace !== null && pace < SOON_BEHIND && metric.direction !== "lower";
  part("towards").dataset.behind = String(behind);
  const sentences = [];
  if (pace !== null && reached < 1) sentences.push(`Pace ${share(value.pace)}`);
  if (value.required_per_day !== null && Number(value.required_per_day) > 0) {
    sentences.push(`${number(value.required_per_day, value.unit, { whole: true, most: 1 })} a day needed`);
  }
  put(part("speed"), sentences.join(" · "));
}

/** Whether there is anything to say: a number, or a goal for one. */
function says(value) {
  return value !== null && value !== undefined && (value.value !== null || value.target !== null || value.other_units.length > 0);
}
