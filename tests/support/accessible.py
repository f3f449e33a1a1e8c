"""What a page must offer to those who can't see it, or not well; looked up in the real browser."""

from playwright.async_api import Page

# Returns sentences about what is wrong; an empty list is a page that everyone can use.
AUDIT = r"""() => {
  const wrong = [];
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const visible = (node) => node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const named = (node) => {
    const by = (node.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean);
    const labels = [...(node.labels ?? [])].map((label) => label.textContent);
    const texts = by.map((id) => document.getElementById(id)?.textContent ?? "");
    return [node.getAttribute("aria-label"), ...texts, ...labels, node.textContent, node.alt]
      .some((text) => text?.trim());
  };
  const what = (node) => `<${node.localName} id="${node.id}" class="${node.getAttribute("class")}">`
    + node.textContent.trim().slice(0, 30);

  if (!document.documentElement.lang) wrong.push("the page has no language");
  if (!document.title) wrong.push("the page has no title");
  for (const [selector, most] of [["main", 1], ["h1", 1]]) {
    const found = all(selector).filter(visible).length;
    if (found !== most) wrong.push(`${found} ${selector} instead of ${most}`);
  }
  let level = 0;
  for (const heading of all("h1, h2, h3, h4").filter(visible)) {
    const own = Number(heading.localName[1]);
    if (own > level + 1) wrong.push(`h${level} is followed by ${what(heading)}`);
    level = own;
  }
  const ids = all("[id]").map((node) => node.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`two of #${id}`);
  for (const name of ["aria-labelledby", "aria-describedby", "for"]) {
    for (const node of all(`[${name}]`)) {
      for (const id of node.getAttribute(name).split(" ")) {
        if (!document.getElementById(id)) wrong.push(`${what(node)} refers to #${id}`);
      }
    }
  }
  const telling = "a[href], button, select, input:not([type=hidden]), summary, nav, dialog,"
    + "section, [role=img], [role=region], table[role=table]";
  for (const node of all(telling)) {
    if (visible(node) && !named(node)) wrong.push(`no name: ${what(node)}`);
  }
  for (const node of all("img:not([alt])")) wrong.push(`no text instead of ${node.src}`);
  for (const node of all("[onclick], [tabindex]")) {
    if (node.tabIndex > 0) wrong.push(`a tab order of its own: ${what(node)}`);
  }
  for (const table of all("table").filter(visible)) {
    if (!all("th[scope=col]", table).length) wrong.push(`no column heads: ${what(table)}`);
    for (const row of all("tbody tr", table)) {
      if (!row.querySelector("th[scope=row]")) wrong.push(`no row head: ${what(row)}`);
    }
  }
  for (const node of all("a[href], button, select, input, summary").filter(visible)) {
    node.focus();
    const { outlineStyle, outlineWidth } = getComputedStyle(node);
    if (document.activeElement !== node) continue;
    if (node.matches(":focus-visible") && (outlineStyle === "none" || !parseFloat(outlineWidth))) {
      wrong.push(`the focus can't be seen on ${what(node)}`);
    }
  }
  document.activeElement.blur();

  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const over = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const grounds = (node) => {
    const found = [];
    for (let each = node; each; each = each.parentElement) {
      found.unshift(getComputedStyle(each).backgroundColor);
    }
    const before = getComputedStyle(node, "::before");
    if (before.position === "absolute") found.push(before.backgroundColor);  // a medal
    return ["#000", ...found];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const told = new Set();
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    const said = texts.currentNode.data.trim();
    if (!said || !visible(node) || node.closest(".unseen, script, template")) continue;
    const style = getComputedStyle(node);
    const ground = grounds(node);
    const ink = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [one, other] = [light(over(ground)), light(over([...ground, ink]))].sort((a, b) => a - b);
    const contrast = (other + 0.05) / (one + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const key = `${ink} on ${ground}`;
    if (contrast < (large ? 3 : 4.5) && !told.has(key)) {
      told.add(key);
      wrong.push(`a contrast of ${contrast.toFixed(1)}: ${what(node)}`);
    }
  }
  return wrong;
}"""

SIDEWAYS = """() => [...document.querySelectorAll("body *")]
    .filter((node) => node.checkVisibility() && !node.closest(".unseen, .skip, thead, svg"))
    .filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
    .map((node) => `${node.localName}.${node.className}`)"""


async def barriers(page: Page) -> list[str]:
    """What stands in someone's way on the page as it is now."""
    found: list[str] = await page.evaluate(AUDIT)
    return found


async def sideways(page: Page) -> list[str]:
    """What reaches over the right edge of the screen."""
    found: list[str] = await page.evaluate(SIDEWAYS)
    scrolls: bool = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return [*found, *(["the page"] if scrolls else [])]
