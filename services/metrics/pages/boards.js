// The list of boards, for the switcher and for the start page.

/** All boards; throws a `Refused` with the status when the API says no. */
export async function boards() {
  const response = await fetch("/v1/boards", { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Refused(response.status);
  return (await response.json()).boards;
}

export class Refused extends Error {
  constructor(status) {
    super(`HTTP ${status}`);
    this.status = status;
  }
}

/** A link to a board; `detail` is a second line. */
export function link(board, detail = "") {
  const anchor = document.createElement("a");
  anchor.href = `/tv/${encodeURIComponent(board.id)}`;
  const title = document.createElement("span");
  title.textContent = board.title || board.id;
  anchor.append(title);
  if (detail) {
    const line = document.createElement("small");
    line.textContent = detail;
    anchor.append(line);
  }
  const item = document.createElement("li");
  item.append(anchor);
  return item;
}
