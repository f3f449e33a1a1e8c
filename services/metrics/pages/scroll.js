// On a wall nobody scrolls: where a board is longer than a large screen, the page does it by itself.
//
// It stops for a while when someone uses the page, and for good with the button.

const PAUSE_MS = 12_000;
const AFTER_INPUT_MS = 60_000;
const INPUT = ["wheel", "pointerdown", "touchstart", "keydown"];

const large = matchMedia("(min-width: 75em) and (min-height: 37em)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Scroller {
  #button;
  #stopped = false;
  #quietUntil = 0;

  constructor(button) {
    this.#button = button;
    button.addEventListener("click", () => this.#toggle());
    INPUT.forEach((name) => addEventListener(name, () => this.#wait(), { passive: true }));
    addEventListener("resize", () => this.changed());
    setInterval(() => this.#turn(), PAUSE_MS);
  }

  /** To the beginning, for another board. */
  restart() {
    scrollTo({ top: 0, behavior: "instant" });
    this.changed();
  }

  /** The page may have become longer or shorter. */
  changed() {
    this.#button.hidden = !this.#applies();
  }

  #applies() {
    const page = document.documentElement;
    return large.matches && page.scrollHeight > page.clientHeight + 1;
  }

  #wait() {
    this.#quietUntil = performance.now() + AFTER_INPUT_MS;
  }

  #toggle() {
    this.#stopped = !this.#stopped;
    this.#button.setAttribute("aria-pressed", String(this.#stopped));
    this.#quietUntil = 0;
    // Wherever a movement that is under way has come to.
    if (this.#stopped) scrollTo({ top: scrollY, behavior: "instant" });
  }

  #turn() {
    this.changed();
    if (this.#stopped || document.hidden || performance.now() < this.#quietUntil || !this.#applies()) return;
    const page = document.documentElement;
    const end = page.scrollTop + page.clientHeight >= page.scrollHeight - 1;
    const step = page.clientHeight - (document.querySelector("header")?.offsetHeight ?? 0);
    const top = end ? 0 : page.scrollTop + step * 0.9;
    scrollTo({ top, behavior: calm.matches ? "instant" : "smooth" });
  }
}
