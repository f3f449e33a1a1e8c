// The list of boards, for the switcher and for the start page.

import { get } from "./api.js";
import { element } from "./dom.js";
import { boardPage } from "./links.js";

/** All boards; throws a `Refused` when the API says no. */
export async function boards() {
  return (await get("/v1/boards")).boards;
}

/** An item with a link to a board; `detail` is a second line. */
export function link(board, { detail = "", wall = false } = {}) {
  const title = element("span", {}, board.title || board.id);
  return element("li", {}, element("a", { href: boardPage(board.id, { wall }) }, title, detail ? element("small", {}, detail) : null));
}
