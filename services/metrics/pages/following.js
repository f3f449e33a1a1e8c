// A board as its feed tells it, with one's own row in its place.

import { Feed } from "./feed.js";

export class Following {
  info = null; // of the board, once it is known
  board;
  #rows = new Map(); // by subject
  #own = null;
  #feed;

  /** `on` has changed(following), state(following, name) and refused(following, status). */
  constructor(board, on) {
    this.board = board;
    this.#feed = new Feed(board, {
      live: () => on.state(this, "live"),
      waiting: () => on.state(this, "waiting"),
      refused: (status) => on.refused(this, status),
      own: (row) => {
        this.#own = row;
        if (this.info !== null) on.changed(this);
      },
      snapshot: ({ rows, ...info }) => {
        const known = this.info === null ? null : JSON.stringify([this.info.period, this.#told()]);
        this.info = info;
        this.#rows = bySubject(rows);
        // After a reconnect there is often nothing new, and nothing should flash.
        if (known !== JSON.stringify([info.period, this.#told()])) on.changed(this);
      },
      update: (change) => {
        change.removed?.forEach((subject) => this.#rows.delete(subject));
        change.rows.forEach((row) => this.#rows.set(row.subject, row));
        on.changed(this);
      },
    });
  }

  start() {
    this.#feed.start();
    return this;
  }

  stop() {
    this.#feed.stop();
  }

  /** In the API's order: by place, those without one last, then by name. */
  rows() {
    const own = this.#own;
    return this.#told().map((row) => (own !== null && row.subject === own.subject ? own : row));
  }

  #told() {
    const before = (a, b) => (a < b ? -1 : Number(a > b));
    return [...this.#rows.values()].sort(
      (a, b) => before(a.rank ?? Infinity, b.rank ?? Infinity) || before(a.name, b.name) || before(a.subject, b.subject),
    );
  }
}

function bySubject(rows) {
  return new Map(rows.map((row) => [row.subject, row]));
}
