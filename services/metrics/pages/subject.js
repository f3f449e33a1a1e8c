// The page of a person, team, territory, role or the organisation: their numbers of a period, and
// what is behind them.
//
// Every part asks for its own data and stands for itself: what the API doesn't know, or doesn't tell
// this reader, is a dash or isn't there, and the rest is shown.

import { get, Refused } from "./api.js";
import { at, element, put } from "./dom.js";
import * as format from "./format.js";
import { Funnel } from "./funnel.js";
import { Heat } from "./heat.js";
import { named, startPage, subjectPage, WHOLE } from "./links.js";
import { Members } from "./members.js";
import { Pace } from "./pace.js";
import { Records } from "./records.js";
import { Tiles } from "./tiles.js";

const GRAINS = { week: "Week", month: "Month", quarter: "Quarter", year: "Year" };
const USUAL = "month";
const AGAIN_MS = 60_000;

const { kind } = document.body.dataset;
const name = decodeURIComponent(location.pathname.split("/").slice(2).join("/"));
const subject = kind === "org" ? WHOLE : `${kind}:${name}`;
const query = new URLSearchParams(location.search);
const grain = query.get("grain") in GRAINS ? query.get("grain") : USUAL;
const asked = /^\d{4}-\d\d-\d\d$/.test(query.get("day") ?? "") ? query.get("day") : null;

const SENTENCES = {
  401: "You are no longer signed in here.",
  403: "These numbers aren't yours to see.",
  404: `There is no such ${kind}.`,
};

const records = new Records();
const members = new Members();
const parts = [records, new Tiles((metric) => records.open(metric)), members, new Pace((metric) => members.about(metric)), new Funnel(), new Heat()];
let view = null; // what all parts are about: subject, period, catalogue and what may be seen
let loading = false;

async function load() {
  if (loading) return;
  loading = true;
  try {
    const about = await get("/v1/subjects", { subject, day: asked });
    const catalogue = view?.catalogue ?? (await get("/v1/metrics")).metrics;
    const same = JSON.stringify(about) === JSON.stringify(view?.about);
    view = seen(about, catalogue);
    if (!same) showHead(about); // what is replaced loses the focus
    const told = await get("/v1/values/of", { subject, period: view.period }).catch((error) => {
      // What is there already of the same says more than dashes.
      if (same || error.status in SENTENCES) throw error;
      say(error);
      return null;
    });
    const values = new Map(told?.values.map((value) => [value.metric, value]));
    at("note").hidden = told !== null;
    at("content").hidden = false;
    await Promise.all(parts.map((part) => part.show(view, values)));
  } catch (error) {
    if (!(error instanceof Refused) && !(error instanceof TypeError)) throw error;
    if (at("content").hidden || error.status in SENTENCES) refuse(error);
  } finally {
    loading = false;
  }
}

function seen(about, catalogue) {
  const { period, start, end } = about.periods[grain];
  const shown = catalogue.filter((metric) => !metric.part_only && !metric.for_each);
  // Only what records add up to opens into them, and adds up over days.
  const metrics = shown.map((metric) => ({ ...metric, base: !("formula" in metric) }));
  return { about, catalogue, subject, kind, grain, period, start, end, metrics, today: about.today, mayOpen: about.may_open };
}

function showHead(about) {
  document.title = `${about.name} · Pacesetter`;
  put(at("name"), about.name);
  put(at("period"), format.span(view.start, view.end));
  const links = about.also.map((each) => named(each, kept()));
  at("also").replaceChildren(...links.flatMap((link, place) => (place ? [" · ", link] : [link])));
  const steps = [element("a", { href: startPage() }, "Boards"), ...about.above.toReversed().map((each) => named(each, kept()))];
  at("way").replaceChildren(...steps.map((step) => element("li", {}, step)));
  const grains = Object.entries(GRAINS).map(([name, title]) => {
    const current = name === grain ? "true" : null;
    return element("a", { href: subjectPage(subject, { grain: name, day: asked }), "aria-current": current }, title);
  });
  const step = (days, from, label, sign) => {
    const href = subjectPage(subject, { grain, day: shifted(from, days) });
    return element("a", { href, class: "step", "aria-label": `The ${grain} ${label}`, rel: days < 0 ? "prev" : "next" }, sign);
  };
  const later = view.end < about.today ? step(1, view.end, "after", "›") : null;
  const before = step(-1, view.start, "before", "‹");
  at("periods").replaceChildren(...[before, ...grains, later].filter((link) => link !== null));
  at("periods").hidden = false;
}

/** What a link to another subject keeps of the period. */
function kept() {
  return { grain: grain === USUAL ? null : grain, day: asked };
}

function shifted(day, days) {
  const moved = new Date(`${day}T00:00:00Z`);
  moved.setUTCDate(moved.getUTCDate() + days);
  return moved.toISOString().slice(0, 10);
}

function refuse(error) {
  at("content").hidden = true;
  say(error);
}

function say({ status, detail }) {
  const note = at("note");
  note.hidden = false;
  note.textContent = SENTENCES[status] ?? "The numbers can't be had right now. The page tries again by itself.";
  if (detail && status !== 401) note.append(" ", detail);
  const [href, text] = status === 401 ? [location.href, "Sign in again"] : [startPage(), "Go to the boards"];
  note.append(" ", element("a", { href }, text));
}

addEventListener("visibilitychange", () => document.hidden || load());
setInterval(() => document.hidden || load(), AGAIN_MS);
await load();
