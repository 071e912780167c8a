// Pictures: a month back and a month ahead, and how one rotation went.

import { h, s } from "./dom.js";
import { day, instant, midnight, span } from "./time.js";

const SHAPE = [["done", "good", "rotated"], ["failed", "warn", "failed"], ["out_of_sync", "bad", "out of sync"], ["due", "next", "due"]];

/** Hours summed to days of the viewer's zone. */
function days(past, coming, back, ahead) {
  const today = midnight(new Date());
  const list = [];
  for (let n = -back; n <= ahead; n++) {
    const at = new Date(today);
    at.setDate(at.getDate() + n);
    list.push({ at, n, done: 0, failed: 0, out_of_sync: 0, due: 0 });
  }
  const byDay = new Map(list.map((one) => [one.at.getTime(), one]));
  for (const hour of [...past, ...coming]) {
    const one = byDay.get(midnight(new Date(hour.at * 1000)).getTime());
    if (one) one[hour.outcome] += hour.count;
  }
  return list;
}

function told(one) {
  const parts = SHAPE.filter(([key]) => one[key]).map(([key, , word]) => `${one[key]} ${word}`);
  return `${day(one.at)}: ${parts.join(", ") || "nothing"}`;
}

/** The month behind and the month ahead as bars; the same numbers stand in a table for those who do not see it. */
export function month(past, coming, back = 30, ahead = 30) {
  const list = days(past, coming, back, ahead);
  const most = Math.max(1, ...list.map((one) => one.done + one.failed + one.out_of_sync + one.due));
  const width = 976, height = 168, floor = 132, step = width / list.length, bar = Math.max(4, step - 5);
  const top = 12, scale = (floor - top) / most;
  const bars = list.map((one, n) => {
    let y = floor;
    const x = n * step + (step - bar) / 2;
    const parts = SHAPE.filter(([key]) => one[key]).map(([key, tone]) => {
      const tall = Math.max(3, one[key] * scale);
      y -= tall;
      return s("rect", { x: x.toFixed(1), y: y.toFixed(1), width: bar.toFixed(1), height: Math.max(2, tall - 1).toFixed(1), rx: 2, class: `part ${tone}` });
    });
    return s("g", { class: "day" }, s("title", {}, told(one)), s("rect", { x: (n * step).toFixed(1), y: 0, width: step.toFixed(1), height: floor, class: "hit" }), parts.length ? parts : s("rect", { x: x.toFixed(1), y: floor - 2, width: bar.toFixed(1), height: 2, rx: 1, class: "part none" }));
  });
  const today = list.findIndex((one) => one.n === 0);
  const middle = (today + 0.5) * step;
  const labels = list.filter((one) => one.n % 10 === 0).map((one) => {
    const x = (list.indexOf(one) + 0.5) * step;
    const text = one.n === 0 ? "Today" : one.n < 0 ? `${-one.n} days ago` : `in ${one.n} days`;
    return s("text", { x: x.toFixed(1), y: height - 12, "text-anchor": one.n === -back ? "start" : one.n === ahead ? "end" : "middle", class: one.n === 0 ? "label strong" : "label" }, text);
  });
  const picture = s("svg", { class: "month", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Rotations of the last ${back} and the coming ${ahead} days; the busiest day has ${most}.`, preserveAspectRatio: "none" },
    s("line", { x1: 0, x2: width, y1: floor + 1, y2: floor + 1, class: "floor" }),
    s("line", { x1: middle.toFixed(1), x2: middle.toFixed(1), y1: 0, y2: floor + 8, class: "today" }),
    bars, labels);
  picture.setAttribute("preserveAspectRatio", "xMidYMid meet");
  const busy = list.filter((one) => one.done || one.failed || one.out_of_sync || one.due);
  const table = h("table", { class: "hidden" }, h("caption", {}, "Rotations by day"), h("tbody", {}, busy.map((one) => h("tr", {}, h("td", {}, told(one))))));
  const legend = h("ul", { class: "legend" }, SHAPE.filter(([key]) => key === "done" || key === "due" || list.some((one) => one[key])).map(([, tone, word]) => h("li", {}, h("i", { class: `swatch ${tone}` }), word[0].toUpperCase() + word.slice(1))));
  return h("div", { class: "chart", tabindex: "0", role: "group", "aria-label": "Rotations by day" }, picture, legend, table);
}

const STAGES = {
  claimed: "Taken up", preflighted: "Connection tested", staged: "New value stored", applied: "Changed on the target", verified: "Proved to work",
  in_doubt: "In doubt", done: "Done", failed: "Failed", out_of_sync: "Out of sync",
};
/** A stage in words. */
export const stageWord = (stage) => STAGES[stage] || stage;
const WAY = ["claimed", "preflighted", "staged", "applied", "verified", "done"];

/** How far a running rotation is, as steps. */
export function progress(rotation) {
  const reached = new Map((rotation?.stages || []).map((one) => [one.stage, one.at]));
  const over = rotation && ["done", "failed", "out_of_sync"].includes(rotation.stage);
  const last = Math.max(-1, ...WAY.map((stage, n) => (reached.has(stage) || rotation?.stage === stage ? n : -1)));
  return h("ol", { class: "steps", "aria-label": "Progress of the rotation" }, WAY.map((stage, n) => {
    const state = n < last || (over && rotation.stage === "done") ? "done" : n === last ? (over ? "stopped" : "now") : "";
    return h("li", { class: state, "aria-current": state === "now" ? "step" : null }, h("span", {}, stageWord(stage)));
  }));
}

/** What the colours of a line mean. */
export const lineLegend = () => h("ul", { class: "legend" }, [["a", "taken up"], ["b", "tested"], ["c", "stored"], ["d", "changed"], ["e", "proved"]].map(([tone, word]) => h("li", {}, h("i", { class: `swatch stage ${tone}` }), word)));

/** The stages of one rotation as a line: each as long as it took, short ones still to be seen. */
export function line(rotation) {
  const stages = rotation.stages || [];
  const begun = instant(rotation.started_at), ended = instant(rotation.ended_at);
  const points = [{ stage: "waiting", at: begun }, ...stages.map((one) => ({ stage: one.stage, at: instant(one.at) }))].filter((one) => one.at);
  if (points.length < 2) return null;
  const parts = points.slice(0, -1).map((one, n) => ({ from: one.stage, to: points[n + 1].stage, seconds: Math.max(0, (points[n + 1].at - one.at) / 1000) }));
  const total = Math.max(0.001, ((ended || points.at(-1).at) - begun) / 1000);
  // Roots make a part of some milliseconds visible beside one of seconds.
  const weights = parts.map((part) => Math.sqrt(part.seconds) + 0.05);
  const sum = weights.reduce((a, b) => a + b, 0);
  let x = 0;
  const tones = { claimed: "a", preflighted: "b", staged: "c", applied: "d", verified: "e", in_doubt: "warn", failed: "bad", out_of_sync: "bad", done: "e" };
  const rects = parts.map((part, n) => {
    const width = (weights[n] / sum) * 320;
    const rect = s("g", {}, s("title", {}, `${stageWord(part.to)}: after ${span(part.seconds)}`), s("rect", { x: x.toFixed(1), y: 0, width: Math.max(1, width - 1.5).toFixed(1), height: 8, rx: 2, class: `stage ${tones[part.to] || "a"}` }));
    x += width;
    return rect;
  });
  const words = parts.map((part) => `${stageWord(part.to)} after ${span(part.seconds)}`).join(", ");
  return h("div", { class: "line" }, s("svg", { viewBox: "0 0 320 8", preserveAspectRatio: "none", role: "img", "aria-label": words }, rects), h("span", { class: "dim small" }, span(total)));
}
