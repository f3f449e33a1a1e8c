// The start page: every board, for the desk and for the wall.

import { boards, link } from "./boards.js";
import { at, element } from "./dom.js";
import * as format from "./format.js";
import { boardPage, subjectPage, WHOLE } from "./links.js";

const note = at("note");
at("own").href = subjectPage("person:me");
at("whole").href = subjectPage(WHOLE);

try {
  const items = (await boards()).map((board) => {
    const item = link(board, { detail: detail(board) });
    const href = boardPage(board.id, { wall: true });
    item.append(element("a", { class: "wall", href, "aria-label": `${board.title || board.id}, on the wall` }, "On the wall"));
    return item;
  });
  at("boards").replaceChildren(...items);
  note.textContent = items.length ? "Live, for the desk, the phone and the wall." : "There is no board yet.";
} catch {
  note.textContent = "The list of boards can't be had right now. Load this page again in a moment.";
}

function detail(board) {
  const metric = board.metric_title || (board.metric ? format.title(board.metric) : "");
  const grain = board.grain ? `by ${board.grain}` : "";
  return [metric, grain].filter(Boolean).join(", ");
}
