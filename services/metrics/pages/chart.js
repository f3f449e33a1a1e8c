// The pacing chart, drawn for a width: what is reached, day by day; what was expected; where it leads.

import { drawn } from "./dom.js";
import { compact, shortDate } from "./format.js";

const MARGIN = { top: 18, right: 14, bottom: 30, left: 58 };
const STEPS = [1, 2, 2.5, 5, 10];
const DAY_MS = 86_400_000;
const DATE_WIDTH = 84;

/** The chart as an image whose text is the element with the id `pace-said`. */
export function chart(data, width) {
  const height = Math.round(Math.max(220, Math.min(380, width * 0.42)));
  const { days, unit, value, forecast, start, end } = data;
  const target = value?.target ? Number(value.effective_target) : null;
  const band = forecast?.distribution ?? null;
  const numbers = days.flatMap(({ actual, expected }) => [actual, expected]).filter((text) => text !== null).map(Number);
  const [low, high, ticks] = scale([0, ...numbers, ...(target === null ? [] : [target]), ...(band ? [Number(band.p90)] : [])], unit);
  const x = horizontal(start, end, width);
  const y = (number) => height - MARGIN.bottom - ((number - low) / (high - low || 1)) * (height - MARGIN.top - MARGIN.bottom);

  const svg = drawn("svg", { class: "chart", role: "img", "aria-labelledby": "pace-said", width, height, viewBox: `0 0 ${width} ${height}` });
  svg.append(grid(ticks, unit, y, width), dates(start, end, x, height, width));
  if (target !== null) svg.append(drawn("line", { class: "goal", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(target), y2: y(target) }));
  const reached = days.filter(({ actual }) => actual !== null).map(({ day, actual }) => [x(day, 1), y(Number(actual))]);
  const from = [x(start, 0), y(0)];
  const now = reached.at(-1) ?? from;
  if (band && data.running) svg.append(...foretold(band, now, x(end, 1), y));
  const due = days.filter(({ expected }) => expected !== null).map(({ day, expected }) => [x(day, 1), y(Number(expected))]);
  if (due.length) svg.append(drawn("path", { class: "expected", d: line([from, ...due]) }));
  if (reached.length) {
    const path = [from, ...reached];
    const ground = [[now[0], y(0)], [from[0], y(0)]];
    svg.append(drawn("path", { class: "area", d: `${line([...path, ...ground])}Z` }), drawn("path", { class: "actual", d: line(path) }));
    svg.append(drawn("circle", { class: "now", cx: now[0], cy: now[1], r: 5 }));
  }
  return svg;
}

/** From where we are to the period's end: the range of four cases in five, and its middle. */
function foretold({ p10, p50, p90 }, now, end, y) {
  const corners = [now, [end, y(Number(p90))], [end, y(Number(p10))]];
  return [
    drawn("path", { class: "band", d: `${line(corners)}Z` }),
    drawn("path", { class: "likely", d: line([now, [end, y(Number(p50))]]) }),
  ];
}

function grid(ticks, unit, y, width) {
  return drawn("g", { class: "grid" }, ...ticks.flatMap((tick) => [
    drawn("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }),
    drawn("text", { x: MARGIN.left - 8, y: y(tick), "text-anchor": "end", "dominant-baseline": "middle" }, compact(tick, unit)),
  ]));
}

function dates(start, end, x, height, width) {
  const days = between(start, end);
  const room = Math.max(2, Math.floor((width - MARGIN.left - MARGIN.right) / DATE_WIDTH));
  const step = Math.max(1, Math.ceil(days / room));
  const texts = [];
  for (let day = 0; day < days; day += step) {
    const named = new Date(Date.parse(start) + day * DAY_MS).toISOString().slice(0, 10);
    texts.push(drawn("text", { x: x(named, 0.5), y: height - 8, "text-anchor": "middle" }, shortDate(named)));
  }
  return drawn("g", { class: "days" }, ...texts);
}

/** Where a day is; `part` of it is over. */
function horizontal(start, end, width) {
  const days = between(start, end);
  return (day, part) => MARGIN.left + ((between(start, day) - 1 + part) / days) * (width - MARGIN.left - MARGIN.right);
}

/** How many days there are from one to another, both inclusive. */
function between(start, end) {
  return Math.round((Date.parse(end) - Date.parse(start)) / DAY_MS) + 1;
}

/** Round limits around the numbers, and four or five steps between them. */
function scale(numbers, unit) {
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  const rough = (most - least || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = power * STEPS.find((each) => each * power >= rough * 0.999);
  if (unit === "count") step = Math.max(1, Math.ceil(step));
  const low = Math.floor(least / step) * step;
  const count = Math.max(1, Math.ceil((most - low) / step - 1e-9));
  return [low, low + count * step, Array.from({ length: count + 1 }, (_, place) => low + place * step)];
}

function line(points) {
  return points.map(([x, y], place) => `${place ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}
