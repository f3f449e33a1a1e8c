// How many deals came how far.

import { ask } from "./api.js";
import { at, element } from "./dom.js";
import { DASH, number, share } from "./format.js";

export class Funnel {
  async show({ subject, period }) {
    const found = await ask("/v1/funnel", { subject, period });
    at("funnel").hidden = !found?.steps.length;
    if (at("funnel").hidden) return;
    const most = found.steps[0].count;
    const heads = ["Stage", "Entered", "Of those before"].map((head, place) => element("th", { scope: "col", class: place ? "amount" : null }, head));
    const rows = found.steps.map((step) => {
      const fill = element("span", { class: "fill" });
      fill.style.setProperty("--share", String(step.count / most));
      return element("tr", {},
        element("th", { scope: "row" }, element("span", {}, step.name), element("span", { class: "bar", "aria-hidden": "true" }, fill)),
        element("td", { class: "amount" }, number(String(step.count), "count")),
        element("td", { class: "amount" }, step.of_previous === null ? DASH : share(step.of_previous)),
      );
    });
    const table = element("table", { class: "list funnel", "aria-labelledby": "funnel-title" },
      element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows));
    at("funnel-body").replaceChildren(table);
  }
}
