// The TV page: follows one board and shows it, for weeks if need be.

import { boards, link } from "./boards.js";
import { Feed } from "./feed.js";
import * as format from "./format.js";
import { Scroller } from "./scroll.js";
import { Table } from "./table.js";

// Which board, and what the list of boards tells about it.
const board = decodeURIComponent(location.pathname.split("/").pop());
const version = document.querySelector("meta[name=pacesetter-version]").content;

const VERSION_EVERY_MS = 5 * 60_000;
const BOARDS_EVERY_MS = 10 * 60_000;
// Spoken summaries: not more often than someone can listen to.
const SPEAK_EVERY_MS = 12_000;
const CLIMBERS = 2;
const RELOADED = "pacesetter-reloaded";

const at = (id) => document.getElementById(id);
const table = new Table();
const scroller = new Scroller(at("pause"));

let definition = {};
let state = { info: null, rows: new Map() };
let changedAt = null;
let spokenAt = -SPEAK_EVERY_MS;
let toSay = null;
let said = new Map();

const REFUSED = {
  401: ["Signed out", "This screen is no longer signed in. Open the link with its token again."],
  403: ["Not permitted", "This board is not for you. Another one may be."],
  404: ["No such board", "There is no board at this address. Choose another one from the list."],
};

const feed = new Feed(board, {
  live: () => setState("live", "Live"),
  waiting: () => setState("waiting", "Reconnecting"),
  refused: (status) => {
    setState("refused", REFUSED[status][0]);
    if (state.info === null) setNote(REFUSED[status][1]);
  },
  snapshot: ({ rows, ...info }) => {
    const changed = state.info === null || !equal([state.info.period, rows], [info.period, ranking()]);
    state = { info, rows: new Map(rows.map((row) => [row.subject, row])) };
    if (changed) show();
  },
  update: (change) => {
    change.removed?.forEach((subject) => state.rows.delete(subject));
    change.rows.forEach((row) => state.rows.set(row.subject, row));
    show();
  },
});

function show() {
  const rows = ranking();
  changedAt = performance.now();
  at("title").textContent = state.info.title;
  at("subtitle").textContent = subtitle(state.info);
  document.title = `${state.info.title} · Pacesetter`;
  setNote(rows.length ? "" : "Nobody is on this board yet.");
  table.show({ ...definition, ...state.info }, rows);
  scroller.changed();
  showAge();
  announce(rows);
}

/** The rows in the API's order: by place, those without one last, then by name. */
function ranking() {
  const before = (a, b) => (a < b ? -1 : Number(a > b));
  return [...state.rows.values()].sort(
    (a, b) => before(a.rank ?? Infinity, b.rank ?? Infinity) || before(a.name, b.name) || before(a.subject, b.subject),
  );
}

function subtitle(info) {
  return `${definition.metric_title || format.title(info.metric)} · ${format.period(info.period)}`;
}

/** Who leads and who climbed since this was last said, for those who don't see the screen. */
function announce(rows) {
  const leaders = rows.filter((row) => row.rank === 1 && Number(row.value) !== 0);
  const climbers = rows.filter((row) => row.rank !== null && row.rank < (said.get(row.subject) ?? 0));
  if (!leaders.length) return;
  const names = leaders.map((row) => row.name).join(" and ");
  const sentences = [`${names}: first with ${format.number(leaders[0].value, state.info.unit)}.`];
  for (const row of climbers.filter((row) => row.rank > 1).slice(0, CLIMBERS)) {
    sentences.push(`${row.name} is up to place ${row.rank}.`);
  }
  toSay = { text: sentences.join(" "), places: new Map(rows.map((row) => [row.subject, row.rank])) };
}

function speak() {
  if (toSay === null || performance.now() - spokenAt < SPEAK_EVERY_MS) return;
  if (at("announcement").textContent !== toSay.text) at("announcement").textContent = toSay.text;
  said = toSay.places;
  spokenAt = performance.now();
  toSay = null;
}

function setState(name, text) {
  if (at("live").dataset.state === name) return;
  at("live").dataset.state = name;
  at("state").textContent = text;
  if (name === "live") checkVersion();
}

function setNote(text) {
  at("note").textContent = text;
  at("note").hidden = text === "";
}

function showAge() {
  if (changedAt === null) return;
  const seconds = (performance.now() - changedAt) / 1000;
  const text = seconds < 2 ? "just now" : `${format.age(seconds)} ago`;
  if (at("age").textContent !== text) at("age").textContent = text;
}

/** After an update of the service a screen on the wall should show the new page by itself. */
async function checkVersion() {
  try {
    const response = await fetch("/static/version.json", { cache: "no-store" });
    if (!response.ok || (await response.json()).version === version) return;
  } catch {
    return; // the feed tells that the service is away
  }
  // While replicas are replaced, a reload may bring the old page again: once in a while is enough.
  const last = Number(sessionStorage.getItem(RELOADED));
  if (Date.now() - last < VERSION_EVERY_MS) return;
  sessionStorage.setItem(RELOADED, String(Date.now()));
  location.reload();
}

async function listBoards() {
  try {
    const found = await boards();
    definition = found.find((other) => other.id === board) ?? definition;
    const items = found.map((other) => {
      const item = link(other);
      if (other.id === board) item.firstChild.setAttribute("aria-current", "page");
      return item;
    });
    at("boards").replaceChildren(...items);
  } catch {
    // The switcher keeps what it has; the indicator tells that the service is away.
  }
}

function closeSwitcher(event) {
  const switcher = at("switcher");
  if (!switcher.open) return;
  if (event.type === "keydown") {
    if (event.key !== "Escape") return;
    switcher.querySelector("summary").focus();
  } else if (switcher.contains(event.target)) {
    return;
  }
  switcher.open = false;
}

/** Keeps a wall screen from going dark, where the browser can. */
async function stayAwake() {
  if (document.hidden || !matchMedia("(min-width: 75em)").matches) return;
  try {
    await navigator.wakeLock?.request("screen");
  } catch {
    // Refused, for example on battery: then the screen's own settings decide.
  }
}

function equal(a, b) {
  return JSON.stringify(a) === JSON.stringify(b);
}

addEventListener("click", closeSwitcher);
addEventListener("keydown", closeSwitcher);
document.addEventListener("visibilitychange", stayAwake);
setInterval(() => { showAge(); speak(); }, 1_000);
setInterval(checkVersion, VERSION_EVERY_MS);
setInterval(listBoards, BOARDS_EVERY_MS);
stayAwake();
await listBoards();
feed.start();
