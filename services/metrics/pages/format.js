// Numbers, periods and ages as people read them: in the browser's locale, or that of `?lang=de`.
//
// The API writes numbers as decimal text, so that no cent is lost on the way; Intl takes the text as
// it is. No data is a dash, never a zero.

export const DASH = "–";

/** The locale of numbers and dates; undefined is the browser's own. */
export const LOCALE = known(new URLSearchParams(location.search).get("lang"));

const UNBROKEN_SPACE = "\u00a0";
// From here on decimal places are left out: of such amounts nobody reads the cents across a room, nor of
// a number that stands alone.
const WHOLE_FROM = 10_000;
const ALONE_WHOLE_FROM = 1_000;
const DAY_MS = 86_400_000;
const MANY_PARTS = 10; // from so many days on, hours say nothing

const formats = new Map();

/** The number as text; `whole` leaves decimal places of money out, `most` is how many may stay. */
export function number(text, unit, { whole = false, signed = false, most = Infinity } = {}) {
  if (text === null || text === undefined || text === "") return DASH;
  if (unit === "seconds") return duration(Number(text));
  const places = whole && isMoney(unit) ? 0 : Math.min(decimals(text), most);
  return format(unit, places, signed).format(text);
}

/** A number on its own: cents are left out where nobody would read them. */
export function brief(text, unit) {
  return number(text, unit, { whole: Math.abs(Number(text ?? 0)) >= ALONE_WHOLE_FROM });
}

/** A number for the side of a chart, such as 20K. */
export function compact(value, unit) {
  if (unit === "seconds") return duration(value);
  const money = isMoney(unit) ? { style: "currency", currency: unit, currencyDisplay: "narrowSymbol" } : {};
  const digits = { notation: "compact", maximumFractionDigits: 1, minimumFractionDigits: 0 };
  return cached(`compact/${unit}`, () => new Intl.NumberFormat(LOCALE, { ...money, ...digits })).format(value);
}

/** Seconds as their largest parts: "2 days 4 hr", but "20 days". */
export function duration(seconds) {
  const sizes = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];
  const whole = Math.round(Math.abs(seconds));
  const first = Math.max(0, sizes.findIndex(([, size]) => whole >= size || size === 1));
  const [unit, size] = sizes[first];
  const [next, part] = sizes[first + 1] ?? [unit, size];
  const sign = seconds < 0 ? "−" : "";
  if (whole >= MANY_PARTS * size || part === size) return sign + inUnit(unit, Math.round(whole / size));
  const rest = Math.floor((whole % size) / part);
  return sign + inUnit(unit, Math.floor(whole / size)) + (rest ? ` ${inUnit(next, rest)}` : "");
}

/** A share such as 0.9996 as 99 %: never rounded up to a target that wasn't reached. */
export function share(text) {
  if (text === null || text === undefined) return DASH;
  return cached("share", () => new Intl.NumberFormat(LOCALE, {
    style: "percent", maximumFractionDigits: 0, roundingMode: "floor",
  })).format(text);
}

/** Whether a column of these numbers is better read without decimal places. */
export function isLarge(texts) {
  return texts.some((text) => text !== null && Math.abs(Number(text)) >= WHOLE_FROM);
}

/** `b - a` as decimal text with the places of both, or null when either is missing. */
export function difference(a, b) {
  if (a === null || b === null) return null;
  const places = Math.max(decimals(a), decimals(b));
  const scale = 10 ** places;
  const steps = Math.round(Number(b) * scale) - Math.round(Number(a) * scale);
  return steps === 0 ? null : (steps / scale).toFixed(places);
}

/**
 * `month:2026-11-01` as "November 2026", `range:2026-11-01..2026-11-15` as "November 1 – 15, 2026".
 *
 * Months and years of whole weeks begin on any day, and aren't those that people know by name.
 */
export function period(written) {
  const [grain, days = ""] = written.split(":");
  const [start, end] = days.split("..");
  const [day, last] = [start, end ?? start].map(dayOf);
  if (Number.isNaN(day.getTime()) || Number.isNaN(last.getTime())) return written;
  const months = { month: 1, quarter: 3, half: 6, year: 12 }[grain];
  if (grain === "day") return date(start, { weekday: "long" });
  if (grain === "range") return span(start, end);
  if (months === undefined || !start.endsWith("-01") || (grain === "year" && !start.endsWith("-01-01"))) {
    return `${title(grain)} from ${date(start)}`;
  }
  return span(start, new Date(Date.UTC(day.getUTCFullYear(), day.getUTCMonth() + months, 0)).toISOString().slice(0, 10));
}

/** From one day to another, both inclusive, as short as it can be said: "October – December 2026". */
export function span(start, end) {
  const [day, last] = [dayOf(start), dayOf(end)];
  if (start === end) return date(start, { weekday: "long" });
  const whole = start.endsWith("-01") && new Date(last.getTime() + DAY_MS).getUTCDate() === 1;
  if (!whole) return dates({ day: "numeric", month: "long", year: "numeric" }).formatRange(day, last);
  if (start.endsWith("-01-01") && end === `${start.slice(0, 4)}-12-31`) return dates({ year: "numeric" }).format(day);
  const months = dates({ month: "long", year: "numeric" });
  return start.slice(0, 7) === end.slice(0, 7) ? months.format(day) : months.formatRange(day, last);
}

/** `2026-11-22` as "22 November 2026"; `options` as Intl.DateTimeFormat has them. */
export function date(day, options = {}) {
  return dates({ day: "numeric", month: "long", year: "numeric", ...options }).format(dayOf(day));
}

/** `2026-11-22` as "22 Nov". */
export function shortDate(day) {
  return dates({ day: "numeric", month: "short" }).format(dayOf(day));
}

/** An instant as the time on a clock in the room. */
export function clock(instant) {
  return cached("clock", () => new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit" })).format(instant);
}

/** The weekday, 1 being Monday: "Mon", or "Monday" when it is `long`. */
export function weekday(number, width = "short") {
  return dates({ weekday: width }).format(new Date(Date.UTC(2026, 5, number))); // 1 June 2026 is a Monday
}

/** The hour of a day, such as "9 AM" or "09". */
export function hour(number) {
  return dates({ hour: "numeric" }).format(new Date(Date.UTC(2026, 0, 1, number)));
}

/** `calls_made` as "Calls made". */
export function title(id) {
  const words = id.replaceAll("_", " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Seconds as "12 s", "5 min", "3 h" or "2 d". */
export function age(seconds) {
  const steps = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [Infinity, 86400, "d"]];
  const [, size, name] = steps.find(([below]) => seconds < below);
  return `${Math.floor(seconds / size)}${UNBROKEN_SPACE}${name}`;
}

/** What a number is in, guessed from how it is written, where the API doesn't say. */
export function guessUnit(texts, boardUnit) {
  const places = Math.max(0, ...texts.filter((text) => text !== null).map(decimals));
  if (places === 0) return "count";
  return places === 4 ? "ratio" : boardUnit;
}

function decimals(text) {
  const point = String(text).indexOf(".");
  return point < 0 ? 0 : String(text).length - point - 1;
}

function format(unit, places, signed) {
  const signDisplay = signed ? "exceptZero" : "auto";
  return cached(`${unit}/${places}/${signed}`, () => {
    if (unit === "ratio") {
      const digits = { minimumFractionDigits: 1, maximumFractionDigits: 1, signDisplay };
      return new Intl.NumberFormat(LOCALE, { style: "percent", ...digits });
    }
    const digits = { minimumFractionDigits: places, maximumFractionDigits: places, signDisplay };
    if (isMoney(unit)) {
      const money = { style: "currency", currency: unit, currencyDisplay: "narrowSymbol" };
      return new Intl.NumberFormat(LOCALE, { ...money, ...digits });
    }
    // Thousandths and parts of a count are said as far as there are any.
    return new Intl.NumberFormat(LOCALE, { ...digits, minimumFractionDigits: 0 });
  });
}

function inUnit(unit, amount) {
  const options = { style: "unit", unit, unitDisplay: "short" };
  return cached(`in ${unit}`, () => new Intl.NumberFormat(LOCALE, options)).format(amount);
}

function isMoney(unit) {
  return /^[A-Z]{3}$/.test(unit);
}

function dayOf(day) {
  return new Date(`${day}T00:00:00Z`);
}

function dates(options) {
  const key = JSON.stringify(options);
  return cached(key, () => new Intl.DateTimeFormat(LOCALE, { timeZone: "UTC", ...options }));
}

function known(tag) {
  try {
    return Intl.getCanonicalLocales(tag ?? [])[0];
  } catch {
    return undefined; // what was asked for is no language: then the browser's
  }
}

function cached(key, make) {
  let found = formats.get(key);
  if (found === undefined) {
    found = make();
    formats.set(key, found);
  }
  return found;
}
