// A screen that shows several boards in turn: `?boards=a,b&every=30`.
//
// The next board is followed before it is shown, so that no turn shows an empty screen; one that
// doesn't begin, because it is gone or not permitted, is passed over.

const USUAL_S = 30;
const [LEAST_S, MOST_S] = [5, 3_600];
const BEGIN_MS = 10_000;

/** The boards that an address names, the one it is of first, and how long each is shown. */
export function asked(first, query) {
  const named = (query.get("boards") ?? "").split(",").map((each) => each.trim()).filter(Boolean);
  const seconds = Number.parseFloat(query.get("every") ?? "") || USUAL_S;
  return { names: [...new Set([first, ...named])], every: Math.min(MOST_S, Math.max(LEAST_S, seconds)) * 1_000 };
}

export class Rotation {
  held = false;
  #names;
  #place = 0;
  #next = null;
  #prepare;
  #limit = 0;

  /** `prepare(name)` begins to follow a board; what it returns is given up with stop(). */
  constructor({ names, every }, prepare) {
    this.#names = names;
    this.#prepare = prepare;
    if (names.length > 1) setInterval(() => this.#turn(), every);
  }

  get turns() {
    return this.#names.length > 1;
  }

  /** The one that was prepared is shown now. */
  shown(following) {
    if (following !== this.#next) return;
    clearTimeout(this.#limit);
    this.#next = null;
  }

  /** Whether it is only being prepared; if it can't be had, the one after it has its turn. */
  skipped(following) {
    if (following !== this.#next) return false;
    this.#giveUp();
    return true;
  }

  #turn() {
    if (this.held || document.hidden || this.#next !== null) return;
    this.#place = (this.#place + 1) % this.#names.length;
    this.#next = this.#prepare(this.#names[this.#place]);
    this.#limit = setTimeout(() => this.#giveUp(), BEGIN_MS);
  }

  #giveUp() {
    clearTimeout(this.#limit);
    this.#next.stop();
    this.#next = null;
  }
}
