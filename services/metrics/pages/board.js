// The page of a board: follows it and shows it, on the wall for weeks if need be.

import { boards, link } from "./boards.js";
import { at, put } from "./dom.js";
import { Following } from "./following.js";
import * as format from "./format.js";
import { boardPage } from "./links.js";
import { asked, Rotation } from "./rotation.js";
import { Scroller } from "./scroll.js";
import { Table } from "./table.js";

const wall = document.documentElement.dataset.place === "wall";
const version = document.querySelector("meta[name=pacesetter-version]").content;
const first = decodeURIComponent(location.pathname.split("/").pop());

const VERSION_EVERY_MS = 5 * 60_000;
const BOARDS_EVERY_MS = 10 * 60_000;
// Spoken summaries: not more often than someone can listen to.
const SPEAK_EVERY_MS = 12_000;
const CLIMBERS = 2;
// On the wall, what is only for who uses the page goes away after a while.
const IDLE_MS = 6_000;
const RELOADED = "pacesetter-reloaded";
const FADE = { duration: 600, easing: "ease-out" };

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const table = new Table({ linked: !wall });
const scroller = wall ? new Scroller(at("pause")) : null;

const STATES = { live: "Live", waiting: "Reconnecting" };
const REFUSED = {
  401: ["Signed out", "This screen is no longer signed in, and shows what it knew. Sign in again with a new token: "],
  403: ["Not permitted", "This board is not for you. Another one may be."],
  404: ["No such board", "There is no board at this address. Choose another one from the list."],
};

let definitions = new Map(); // of all boards, by id
let changedAt = null; // by the clock on the wall
let spokenAt = -SPEAK_EVERY_MS;
let toSay = null;
let said = new Map();
let idle = 0;

const on = {
  changed: (following) => {
    if (following !== current) turn(following);
    show();
  },
  state: (following, name) => {
    if (following === current) setState(name, STATES[name]);
  },
  refused: (following, status) => {
    if (following === current) refuse(status);
    else rotation.skipped(following);
  },
};
let current = new Following(first, on);
const rotation = new Rotation(wall ? asked(first, new URLSearchParams(location.search)) : { names: [first] }, (name) =>
  // Where only one of them can be had, it stays.
  (name === current.board ? { stop() {} } : new Following(name, on).start()));

/** The board that was prepared takes the place of the one that was shown. */
function turn(following) {
  rotation.shown(following);
  current.stop();
  current = following;
  said = new Map();
  toSay = null;
  setState("live", STATES.live);
  mark();
  scroller?.restart();
  if (!calm.matches) at("ranking").animate([{ opacity: 0 }, { opacity: 1 }], FADE);
}

function show() {
  const [rows, info] = [current.rows(), current.info];
  const definition = definitions.get(current.board) ?? {};
  changedAt = Date.now();
  put(at("title"), info.title);
  put(at("subtitle"), `${definition.metric_title || format.title(info.metric)} · ${format.period(info.period)}`);
  document.title = `${info.title} · Pacesetter`;
  setNote(rows.length ? "" : "Nobody is on this board yet.");
  table.show({ ...definition, ...info }, rows);
  scroller?.changed();
  showAge();
  announce(rows, info);
}

/** Who leads and who climbed since this was last said, for those who don't see the screen. */
function announce(rows, info) {
  const leaders = rows.filter((row) => row.rank === 1 && Number(row.value) !== 0);
  const climbers = rows.filter((row) => row.rank !== null && row.rank < (said.get(row.subject) ?? 0));
  if (!leaders.length) return;
  const names = leaders.map((row) => row.name).join(" and ");
  const value = leaders[0].hidden ? "" : ` with ${format.number(leaders[0].value, info.unit)}`;
  const sentences = [`${names}: first${value}.`];
  for (const row of climbers.filter((row) => row.rank > 1).slice(0, CLIMBERS)) {
    sentences.push(`${row.name} is up to place ${row.rank}.`);
  }
  toSay = { text: sentences.join(" "), places: new Map(rows.map((row) => [row.subject, row.rank])) };
}

function speak() {
  if (toSay === null || performance.now() - spokenAt < SPEAK_EVERY_MS) return;
  put(at("announcement"), toSay.text);
  said = toSay.places;
  spokenAt = performance.now();
  toSay = null;
}

function setState(name, text) {
  if (at("live").dataset.state === name) return;
  at("live").dataset.state = name;
  at("state").textContent = text;
  if (name !== "live") return;
  at("renew").hidden = true;
  checkVersion();
}

function refuse(status) {
  const [text, sentence] = REFUSED[status];
  setState("refused", text);
  if (status === 401) {
    const again = document.createElement("a");
    again.href = location.href;
    again.textContent = "sign in";
    at("renew").replaceChildren(sentence, again);
    at("renew").hidden = false;
  } else {
    // What may not be seen any more isn't left on the wall.
    at("table").hidden = true;
  }
  if (at("table").hidden) setNote(status === 401 ? "" : sentence);
}

function setNote(text) {
  put(at("note"), text);
  at("note").hidden = text === "";
}

function showAge() {
  if (changedAt === null) return;
  const seconds = Math.max(0, (Date.now() - changedAt) / 1000);
  put(at("age"), `${format.clock(changedAt)} · ${seconds < 2 ? "just now" : `${format.age(seconds)} ago`}`);
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
    definitions = new Map(found.map((board) => [board.id, board]));
    at("boards").replaceChildren(...found.map((board) => {
      const item = link(board, { wall });
      item.dataset.board = board.id;
      return item;
    }));
    mark();
  } catch {
    // The switcher keeps what it has; the indicator tells that the service is away.
  }
}

/** Which of the boards in the switcher is shown. */
function mark() {
  for (const item of at("boards").children) {
    if (item.dataset.board === current.board) item.firstElementChild.setAttribute("aria-current", "page");
    else item.firstElementChild.removeAttribute("aria-current");
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

function hold() {
  rotation.held = !rotation.held;
  at("hold").setAttribute("aria-pressed", String(rotation.held));
}

async function fullScreen() {
  try {
    await (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen());
  } catch {
    // Refused by the browser: the page is as good without.
  }
}

function used() {
  document.body.classList.remove("idle");
  clearTimeout(idle);
  idle = setTimeout(() => document.body.classList.toggle("idle", !at("switcher").open), IDLE_MS);
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

if (wall) {
  at("hold").hidden = !rotation.turns;
  at("hold").addEventListener("click", hold);
  at("full").hidden = !document.fullscreenEnabled;
  at("full").addEventListener("click", fullScreen);
  for (const name of ["pointermove", "pointerdown", "keydown"]) addEventListener(name, used, { passive: true });
  document.addEventListener("visibilitychange", stayAwake);
  used();
  stayAwake();
} else {
  at("wall").href = boardPage(first, { wall: true });
  at("wall").hidden = false;
}
addEventListener("click", closeSwitcher);
addEventListener("keydown", closeSwitcher);
setInterval(() => { showAge(); speak(); }, 1_000);
setInterval(checkVersion, VERSION_EVERY_MS);
setInterval(listBoards, BOARDS_EVERY_MS);
await listBoards();
current.start();
