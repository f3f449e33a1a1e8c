// Where pages are. Links stay in the language that was asked for.

import { address } from "./api.js";
import { element } from "./dom.js";
import { LOCALE } from "./format.js";

const PAGES = { person: "/people", team: "/teams", territory: "/territories", role: "/roles" };
const lang = new URLSearchParams(location.search).has("lang") ? LOCALE : null;

/** The page of a board: for the desk, or for the `wall`. */
export function boardPage(id, { wall = false } = {}) {
  return address(`/${wall ? "tv" : "boards"}/${encodeURIComponent(id)}`, { lang });
}

/** The organisation as a subject. */
export const WHOLE = "org:all";

/** The page of `person:ada`, `team:north`, `territory:dach`, `role:closer` or `org:all`; null for all else. */
export function subjectPage(subject, params = {}) {
  if (subject === WHOLE) return address("/organisation", { ...params, lang });
  const [kind] = subject.split(":", 1);
  const id = subject.slice(kind.length + 1);
  return kind in PAGES ? address(`${PAGES[kind]}/${encodeURIComponent(id)}`, { ...params, lang }) : null;
}

export const startPage = () => address("/", { lang });

/** A name that leads to the subject's page, or only the name, where the reader may not go. */
export function named({ subject, name, may_see: mayLook }, params) {
  const href = mayLook ? subjectPage(subject, params) : null;
  return href === null ? element("span", {}, name) : element("a", { href }, name);
}
