// The ranking as a table: rows keep their identity, move to their new place, and flash what changed.
//
// Text from data is only ever set as text. Nothing is kept of a row that is gone, and every animation
// ends by itself, so that a screen may run for weeks.

import { element as made, put } from "./dom.js";
import { DASH, difference, guessUnit, isLarge, number, share, title } from "./format.js";
import { subjectPage } from "./links.js";

const MOVE = { duration: 900, easing: "cubic-bezier(.2, .8, .2, 1)" };
const COME = { duration: 500, easing: "ease-out" };
const FLASH = { duration: 2_600, easing: "ease-out" };
const GAIN = { duration: 6_000, easing: "ease-in-out" };
const FIXED = 6; // columns that every board has
const PODIUM = 3;
// With more people than this on the first three places, nobody stands out.
const CROWD = 5;
// What movement compares with, as a head and as it is spoken.
const SINCE = { day: ["Today", "today"], yesterday: ["Since yesterday", "since yesterday"], week: ["This week", "this week"] };
// What a board is ranked by, where that isn't its value.
const SCORES = { improvement: "Change", per_head: "Per head" };

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Table {
  #table = document.getElementById("table");
  #head = this.#table.querySelector("thead tr");
  #body = document.getElementById("rows");
  #template = document.getElementById("row");
  #rows = new Map(); // by subject: the row's element and the data it shows
  #columns = [];
  #board = null;
  #whole = false;
  #linked;

  /** `linked` names lead to the pages of those who bear them. */
  constructor({ linked = false } = {}) {
    this.#linked = linked;
  }

  /** Show these rows of a board, in order; animates from what was shown before. */
  show(board, rows) {
    const same = this.#board !== null && this.#board.board === board.board && this.#board.period === board.period;
    this.#board = board;
    this.#setColumns(board, rows);
    this.#setLooks(rows);
    const before = same ? this.#places() : new Map();
    this.#remove(rows);
    const podium = rows.filter(isOnPodium).length <= CROWD;
    rows.forEach((row, position) => this.#place(row, position, podium && isOnPodium(row), same));
    this.#table.hidden = false;
    if (same) this.#animate(before);
  }

  #setColumns(board, rows) {
    const ids = Object.keys(rows[0]?.columns ?? {});
    this.#columns = ids.map((id) => {
      const texts = rows.map((row) => row.columns[id] ?? null);
      const told = board.columns?.find((column) => column.id === id);
      const unit = told?.unit === "money" ? board.unit : (told?.unit ?? guessUnit(texts, board.unit));
      return { id, unit, title: told?.title ?? title(id), whole: isLarge(texts), of: (row) => row.columns?.[id] ?? null };
    });
    if (rows.some((row) => row.score)) this.#columns.unshift(scoreOf(board, rows));
    put(this.#head.querySelector(".movement"), since(board)[0]);
    this.#head.querySelector(".value").textContent = board.metric_title || title(board.metric);
    const heads = this.#columns.map((column, position) => {
      const cell = document.createElement("th");
      cell.style.setProperty("--column", String(FIXED + 1 + position));
      cell.setAttribute("role", "columnheader");
      cell.scope = "col";
      cell.className = "extra";
      cell.textContent = column.title;
      return cell;
    });
    const had = [...this.#head.querySelectorAll(".extra")];
    const titles = (cells) => cells.map((cell) => cell.textContent).join("\n");
    if (titles(had) === titles(heads)) return;
    had.forEach((cell) => cell.remove());
    this.#head.append(...heads);
    this.#table.style.setProperty("--columns", String(FIXED + heads.length));
    this.#rows.forEach(({ element }) => element.remove());
    this.#rows.clear();
  }

  /** Columns in which nobody has anything are left out. */
  #setLooks(rows) {
    const some = (name) => rows.some((row) => row[name] !== null && row[name] !== undefined);
    this.#table.classList.toggle("without-attainment", !some("attainment"));
    this.#table.classList.toggle("without-movement", !some("movement"));
    this.#table.classList.toggle("without-gap", !some("gap_to_next"));
    document.documentElement.style.setProperty("--rows", String(Math.max(1, rows.length)));
    this.#whole = isLarge(rows.map((row) => row.value));
  }

  #places() {
    const places = new Map();
    if (calm.matches || document.hidden) return places;
    for (const [subject, { element }] of this.#rows) {
      places.set(subject, element.getBoundingClientRect().top);
    }
    return places;
  }

  #remove(rows) {
    const stay = new Set(rows.map((row) => row.subject));
    for (const [subject, { element }] of this.#rows) {
      if (stay.has(subject)) continue;
      element.remove();
      this.#rows.delete(subject);
    }
  }

  #place(row, position, onPodium, lively) {
    let shown = this.#rows.get(row.subject);
    if (shown === undefined) {
      shown = { element: this.#newRow(), data: null };
      this.#rows.set(row.subject, shown);
    }
    const { element, data } = shown;
    shown.data = row;
    this.#fill(element, row, onPodium);
    if (this.#body.children[position] !== element) {
      this.#body.insertBefore(element, this.#body.children[position] ?? null);
    }
    if (lively && data !== null) this.#flash(element, data, row);
  }

  #newRow() {
    const element = this.#template.content.firstElementChild.cloneNode(true);
    for (const [position, column] of this.#columns.entries()) {
      const cell = document.createElement("td");
      cell.style.setProperty("--column", String(FIXED + 1 + position));
      cell.setAttribute("role", "cell");
      cell.className = "extra";
      cell.dataset.title = column.title;
      const text = document.createElement("span");
      cell.append(text);
      element.append(cell);
    }
    return element;
  }

  #fill(element, row, onPodium) {
    const part = (name) => element.querySelector(`.${name}`);
    const { unit } = this.#board;
    element.dataset.subject = row.subject;
    element.dataset.place = onPodium ? String(row.rank) : "";
    element.classList.toggle("empty", row.value === null);
    put(part("rank"), row.rank === null ? DASH : String(row.rank));
    fillMovement(part("movement"), row.movement, since(this.#board)[1]);
    this.#name(part("name"), row);
    part("name").title = row.name;
    put(part("team"), row.team || "");
    put(part("amount"), row.hidden ? "hidden" : number(row.value, unit, { whole: this.#whole }));
    put(part("gap"), number(row.gap_to_next, unit, { whole: this.#whole }));
    part("gap").dataset.none = String(row.gap_to_next === null);
    fillAttainment(part("attainment"), row, unit, this.#whole);
    const extras = element.querySelectorAll(".extra");
    this.#columns.forEach((column, position) => {
      const text = number(column.of(row), column.unit, { whole: column.whole, signed: column.signed });
      put(extras[position].firstElementChild, text);
    });
  }

  #name(place, row) {
    const href = this.#linked ? subjectPage(row.subject) : null;
    if (href === null) return put(place, row.name || row.subject);
    if (place.firstElementChild === null) place.append(made("a", { href }));
    put(place.firstElementChild, row.name || row.subject);
  }

  #flash(element, old, now) {
    if (old.value === now.value || document.hidden) return;
    const colours = [{ backgroundColor: "var(--flash)" }, { backgroundColor: "transparent" }];
    element.querySelector(".value").animate(colours, FLASH);
    element.querySelector(".gain")?.remove();
    const change = difference(old.value, now.value);
    if (change === null) return;
    const gain = document.createElement("span");
    gain.className = "gain";
    gain.setAttribute("aria-hidden", "true");
    gain.dataset.direction = change.startsWith("-") ? "down" : "up";
    gain.textContent = number(change, this.#board.unit, { whole: this.#whole, signed: true });
    element.querySelector(".who").append(gain);
    const frames = [
      { opacity: 0, offset: 0 }, { opacity: 1, offset: 0.06 }, { opacity: 1, offset: 0.85 }, { opacity: 0, offset: 1 },
    ];
    gain.animate(frames, GAIN).onfinish = () => gain.remove();
  }

  /** From where each row was to where it is now, without the browser having to lay out in between. */
  #animate(before) {
    if (calm.matches || document.hidden) return;
    // What still moves would be measured where it is, not where it is going.
    const rows = [...this.#rows].map(([subject, { element }]) => {
      element.getAnimations().forEach((animation) => animation.cancel());
      return [subject, element];
    });
    const now = rows.map(([, element]) => element.getBoundingClientRect().top);
    rows.forEach(([subject, element], position) => {
      const was = before.get(subject);
      if (was === undefined) {
        element.animate([{ opacity: 0, transform: "translateX(-2rem)" }, { opacity: 1, transform: "none" }], COME);
        return;
      }
      const way = was - now[position];
      if (Math.abs(way) < 1) return;
      const rises = way > 0;
      const lifted = { transform: `translateY(${way}px)`, zIndex: rises ? 2 : 1, opacity: rises ? 1 : 0.6 };
      element.animate([lifted, { transform: "none", zIndex: rises ? 2 : 1, opacity: 1 }], MOVE);
    });
  }
}

function isOnPodium(row) {
  return row.rank !== null && row.rank <= PODIUM && Number(row.value) !== 0;
}

/** The column of what a board is ranked by beside its value. */
function scoreOf(board, rows) {
  const texts = rows.map((row) => row.score ?? null);
  const change = board.rank_by === "improvement";
  const unit = change && board.definition?.improvement !== "difference" ? "ratio" : board.unit;
  return { unit, title: SCORES[board.rank_by] ?? "Score", whole: isLarge(texts), signed: change, of: (row) => row.score ?? null };
}

function since(board) {
  return SINCE[board.definition?.since] ?? SINCE.day;
}

function fillMovement(cell, movement, when) {
  const [arrow, spoken] = cell.children;
  const direction = movement === null ? "none" : ["down", "same", "up"][Math.sign(movement) + 1];
  cell.dataset.direction = direction;
  const steps = Math.abs(movement ?? 0);
  put(arrow, { none: DASH, same: "=", up: `▲${steps}`, down: `▼${steps}` }[direction]);
  const words = { none: "not ranked before", same: "unchanged", up: `up ${steps}`, down: `down ${steps}` };
  put(spoken, `${words[direction]} ${when}`);
}

function fillAttainment(cell, row, unit, whole) {
  const reached = row.attainment === null ? 0 : Math.max(0, Number(row.attainment));
  cell.dataset.none = String(row.attainment === null);
  cell.dataset.reached = String(reached >= 1);
  cell.querySelector(".fill").style.setProperty("--share", String(Math.min(1, reached)));
  put(cell.querySelector(".percent"), share(row.attainment));
  cell.title = row.target === null ? "No target" : `Target ${number(row.target, unit, { whole })}`;
}
