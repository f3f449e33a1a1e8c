// The start page: every board, one link each.

import { boards, link } from "./boards.js";
import * as format from "./format.js";

const note = document.getElementById("note");

try {
  const found = await boards();
  const items = found.map((board) => link(board, detail(board)));
  document.getElementById("boards").replaceChildren(...items);
  note.textContent = items.length ? "Live, for the wall and for the phone." : "There is no board yet.";
} catch {
  note.textContent = "The list of boards can't be had right now. Load this page again in a moment.";
}

function detail(board) {
  const metric = board.metric_title || (board.metric ? format.title(board.metric) : "");
  const grain = board.grain ? `by ${board.grain}` : "";
  return [metric, grain].filter(Boolean).join(", ");
}
