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

/** A path with its parameters; one that has several values is repeated. */
export function address(path, params = {}) {
  const each = Object.entries(params).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  const given = each.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}
