// The board as it is now, kept up to date for as long as the page is open.
//
// A stream gives a snapshot, or what was missed since the version we know, and then updates, each naming
// the version it follows on. What doesn't follow on is a gap, and a gap is closed by a new stream that
// begins with a snapshot. A lost stream is opened again here, with growing pauses, and not by the
// browser, which gives up at the first error answer and never waits longer. A connection can also die
// without telling: after a minute of silence a second stream is opened beside the first and takes its
// place once it is heard.

const SILENCE_MS = 60_000;
// A stream that hasn't begun by then never will.
const BEGIN_MS = 15_000;
const FIRST_PAUSE_MS = 1_000;
// Long enough for a restarting service to breathe, short enough for people in front of a screen.
const LONGEST_PAUSE_MS = 30_000;
// For what a retry alone won't mend: no longer signed in, not permitted, no such board.
const REFUSED_PAUSE_MS = 60_000;

export class Feed {
  #address;
  #on;
  #source = null;
  #successor = null;
  #version = "";
  #failures = 0;
  #retry = 0;
  #watch = 0;
  #refused = false;
  #ended = new AbortController();

  /** `on` has snapshot(board), update(change), own(row), live(), waiting() and refused(status). */
  constructor(board, on) {
    this.#address = `/v1/boards/${encodeURIComponent(board)}`;
    this.#on = on;
  }

  start() {
    addEventListener("online", () => this.#reopen(), { signal: this.#ended.signal });
    this.#reopen();
  }

  /** For good: nothing is said any more, and nothing of it stays. */
  stop() {
    this.#ended.abort();
    clearTimeout(this.#retry);
    this.#close();
  }

  #reopen() {
    clearTimeout(this.#retry);
    this.#close();
    this.#source = this.#open();
    this.#expect(BEGIN_MS, () => this.#failed());
  }

  #open() {
    const known = this.#version ? `?last_event_id=${encodeURIComponent(this.#version)}` : "";
    const source = new EventSource(`${this.#address}/events${known}`);
    source.addEventListener("open", () => {
      // Who resumes hears nothing until something happens, and is live all the same.
      if (known && this.#heard(source)) this.#live();
    });
    source.addEventListener("snapshot", (event) => {
      if (this.#heard(source)) this.#snapshot(JSON.parse(event.data));
    });
    source.addEventListener("update", (event) => {
      if (this.#heard(source)) this.#update(JSON.parse(event.data));
    });
    // One's own row, where the board hides numbers from those who see it with us; it has no version.
    source.addEventListener("own", (event) => {
      if (this.#heard(source)) this.#on.own(JSON.parse(event.data));
    });
    source.addEventListener("error", () => {
      if (source === this.#source || source === this.#successor) this.#failed();
    });
    return source;
  }

  /** Whether what this stream says counts; a successor that is heard becomes the stream. */
  #heard(source) {
    if (source === this.#successor) {
      this.#source.close();
      this.#source = source;
      this.#successor = null;
    }
    if (source !== this.#source) return false;
    this.#expect(SILENCE_MS, () => this.#check());
    return true;
  }

  #snapshot(board) {
    this.#version = board.version;
    this.#live();
    this.#on.snapshot(board);
  }

  #update(change) {
    if (change.version === this.#version) return;
    if (change.previous !== this.#version) {
      this.#version = "";
      this.#failed();
      return;
    }
    this.#version = change.version;
    this.#live();
    this.#on.update(change);
  }

  #live() {
    this.#failures = 0;
    this.#refused = false;
    this.#on.live();
  }

  /** Silence: is it that nothing happens, or that nothing gets through? */
  #check() {
    this.#failures = 0;
    this.#successor = this.#open();
    this.#expect(BEGIN_MS, () => this.#failed());
  }

  async #failed() {
    this.#close();
    if (!this.#refused) this.#on.waiting();
    const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#failures);
    this.#failures += 1;
    // Spread out, so that a hundred screens don't all come back in the same instant.
    this.#again(pause * (0.5 + Math.random() / 2));
    const status = await this.#status();
    if (this.#ended.signal.aborted) return;
    if ([401, 403, 404].includes(status) && this.#source === null) {
      this.#refused = true;
      this.#on.refused(status);
      this.#again(REFUSED_PAUSE_MS);
    }
  }

  #again(pause) {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#reopen(), pause);
  }

  /** An EventSource doesn't say why it was refused; a plain request does. */
  async #status() {
    try {
      const signal = AbortSignal.timeout(BEGIN_MS);
      const response = await fetch(this.#address, { cache: "no-store", signal });
      await response.body?.cancel();
      return response.status;
    } catch {
      return 0;
    }
  }

  #expect(within, otherwise) {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(otherwise, within);
  }

  #close() {
    clearTimeout(this.#watch);
    this.#source?.close();
    this.#successor?.close();
    this.#source = this.#successor = null;
  }
}
