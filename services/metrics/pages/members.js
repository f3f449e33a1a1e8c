// A team's people and the teams below it, the parts of a territory, or what the organisation is made
// of, with what each brings to the number that is looked at.

import { ask } from "./api.js";
import { at, element, put } from "./dom.js";
import { brief, number, share } from "./format.js";
import { named } from "./links.js";

// As many as are told at once; a board shows them all.
const MOST = 100;
const ROLLED_UP = new Set(["team", "org"]); // whose goals are made up of those below
const WHAT = { team: "Team", territory: "Territory" };

export class Members {
  #view = null;
  #everyone = [];

  show(view) {
    const { teams, territories, people } = view.about;
    this.#view = view;
    this.#everyone = [...teams, ...territories, ...people];
    at("people").hidden = this.#everyone.length === 0;
    put(at("people-title"), territories.length ? "Parts" : people.length ? "People" : "Teams");
  }

  /** Show what everyone brings to a metric. */
  async about(metric) {
    if (at("people").hidden) return;
    const { about, period, subject, grain, kind } = this.#view;
    const everyone = this.#everyone;
    const asked = everyone.filter((one) => one.may_see).slice(0, MOST).map((one) => one.subject);
    const [rolled, told] = await Promise.all([
      about.may_open && ROLLED_UP.has(kind) ? ask("/v1/goals/roll-up", { subject, metric: metric.id, period }) : null,
      asked.length ? ask("/v1/values/each", { subject: asked, metric: metric.id, period }) : null,
    ]);
    const values = new Map(told?.values.map((value) => [value.subject, value]));
    const mixed = new Set(everyone.map(kindOf)).size > 1;
    const rows = everyone.map((one) => ({ one, value: values.get(one.subject) }));
    rows.sort((a, b) => Number(b.value?.value ?? -Infinity) - Number(a.value?.value ?? -Infinity) || 0);
    const heads = ["Name", metric.title, "Goal", "Reached", "Pace"];
    // Roles are written out: on a narrow screen rows are laid out as cards, which takes them away.
    const table = element("table", { class: "list members", role: "table", "aria-labelledby": "people-title" },
      element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads.map((head, place) => element("th", { role: "columnheader", scope: "col", class: place ? "amount" : null }, head)))),
      element("tbody", { role: "rowgroup" }, ...rows.map(({ one, value }) => row(one, value, grain, mixed))));
    at("people-body").replaceChildren(...[covered(rolled), table].filter((part) => part !== null));
  }
}

const kindOf = ({ subject }) => subject.split(":", 1)[0];

/** `mixed` says that rows aren't all of one kind. */
function row(one, value, grain, mixed) {
  const amount = (text, title) => element("td", { role: "cell", class: "amount", "data-title": title }, text);
  const name = named(one, { grain });
  const what = mixed && kindOf(one) in WHAT ? element("small", {}, WHAT[kindOf(one)]) : null;
  return element("tr", { role: "row", "data-subject": one.subject },
    element("th", { role: "rowheader", scope: "row" }, name, what),
    amount(brief(value?.value, value?.unit), null),
    amount(brief(value?.effective_target, value?.unit), "Goal"),
    amount(share(value?.attainment), "Reached"),
    amount(share(value?.pace), "Pace"),
  );
}

/** How the goals of those below stand to the whole's. */
function covered(rolled) {
  if (rolled === null || rolled.target === null || !rolled.parts.length) return null;
  const goal = `The goals below add up to ${brief(rolled.assigned, rolled.unit)}, ${share(rolled.covered)} of the whole ${brief(rolled.target, rolled.unit)}`;
  const rest = [["gap", "that nobody has"], ["over_assigned", "more than it needs"]].find(([name]) => Number(rolled[name]) > 0);
  return element("p", { class: "hint" }, rest ? `${goal}: ${number(rolled[rest[0]], rolled.unit, { whole: true })} ${rest[1]}.` : `${goal}.`);
}
