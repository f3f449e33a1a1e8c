// Asking the API.

/** It said no; `detail` is a sentence that says why. */
export class Refused extends Error {
  constructor(status, detail = "") {
    super(`HTTP ${status}`);
    this.status = status;
    this.detail = detail;
  }
}

/** The answer; throws a `Refused` when the API says no. Parameters that are null are left out. */
export async function get(path, params = {}) {
  // Asked again each time, and answered with "not modified" where nothing has changed.
  const response = await fetch(address(path, params), { cache: "no-cache", headers: { Accept: "application/json" } });
  if (response.ok) return response.json();
  let detail = "";
  try {
    ({ detail = "" } = await response.json());
  } catch {
    // Something in between answered, which doesn't know our way to say no.
  }
  throw new Refused(response.status, detail);
}

/** The answer, or null when it can't be had: the page then shows the rest. */
export async function ask(path, params) {
  try {
    return await get(path, params);
  } catch {
    return null;
  }
}

/** A path with its parameters. */
export function address(path, params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** Does something for each item, a few at a time; the results in the items' order. */
export async function eachOf(items, job, width = 6) {
  const results = new Array(items.length);
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const place = next++;
      results[place] = await job(items[place]);
    }
  };
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker));
  return results;
}
