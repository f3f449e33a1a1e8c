// Numbers, periods and ages as people read them, in the browser's locale.
//
// The API writes numbers as decimal text, so that no cent is lost on the way; Intl takes the text as
// it is. No data is a dash, never a zero.

export const DASH = "–";

const UNBROKEN_SPACE = "\u00a0";
// From here on a board drops the decimal places: nobody reads cents of such amounts across a room.
const WHOLE_FROM = 10_000;

const formats = new Map();

/** The number as text; `whole` leaves decimal places of money out. */
export function number(text, unit, { whole = false, signed = false } = {}) {
  if (text === null || text === undefined || text === "") return DASH;
  const places = whole ? 0 : decimals(text);
  return format(unit, places, signed).format(text);
}

/** A share such as 0.9996 as 99 %: never rounded up to a target that wasn't reached. */
export function share(text) {
  if (text === null || text === undefined) return DASH;
  return cached("share", () => new Intl.NumberFormat(undefined, {
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

/** `month:2026-11-01` as "November 2026". */
export function period(written) {
  const [grain, start] = written.split(":");
  const day = new Date(`${start}T00:00:00Z`);
  if (Number.isNaN(day.getTime())) return written;
  const text = (options) => new Intl.DateTimeFormat(undefined, { timeZone: "UTC", ...options }).format(day);
  const full = { day: "numeric", month: "long", year: "numeric" };
  switch (grain) {
    case "day": return text({ weekday: "long", ...full });
    case "month": return text({ month: "long", year: "numeric" });
    case "quarter": return `Quarter from ${text(full)}`;
    case "year": return start.endsWith("-01-01") ? text({ year: "numeric" }) : `Year from ${text(full)}`;
    default: return `Week from ${text(full)}`;
  }
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
      return new Intl.NumberFormat(undefined, { style: "percent", ...digits });
    }
    const digits = { minimumFractionDigits: places, maximumFractionDigits: places, signDisplay };
    if (/^[A-Z]{3}$/.test(unit)) {
      const money = { style: "currency", currency: unit, currencyDisplay: "narrowSymbol" };
      return new Intl.NumberFormat(undefined, { ...money, ...digits });
    }
    return new Intl.NumberFormat(undefined, digits);
  });
}

function cached(key, make) {
  let found = formats.get(key);
  if (found === undefined) {
    found = make();
    formats.set(key, found);
  }
  return found;
}
