// Instants and spans in words. Dates are shown in the viewer's zone; UTC is told on hover.

import { h } from "./dom.js";

const MINUTE = 60, HOUR = 3600, DAY = 86400;
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const short = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
const dated = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });
const dayOnly = new Intl.DateTimeFormat(undefined, { weekday: "short", month: "short", day: "numeric" });

/** The instant of a text; nothing for Go's zero time. */
export function instant(text) {
  if (!text || text.startsWith("0001-")) return null;
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? null : at;
}

/** Seconds in words: 3 min, 5 h, 12 days. */
export function span(seconds) {
  const n = Math.abs(seconds);
  if (n < 1) return `${Math.round(n * 1000)} ms`;
  if (n < 10) return `${n.toFixed(1)} s`;
  if (n < MINUTE) return `${Math.round(n)} s`;
  if (n < HOUR) return `${Math.round(n / MINUTE)} min`;
  if (n < 2 * DAY) return `${Math.round(n / HOUR)} h`;
  if (n < 60 * DAY) return `${Math.round(n / DAY)} days`;
  if (n < 730 * DAY) return `${Math.round(n / DAY / 30.4)} months`;
  return `${(n / DAY / 365).toFixed(1)} years`;
}

/** How far away, in words. */
export function distance(at, now = new Date()) {
  const seconds = (at - now) / 1000;
  if (Math.abs(seconds) < 45) return seconds < 0 ? "just now" : "in a moment";
  return seconds < 0 ? `${span(seconds)} ago` : `in ${span(seconds)}`;
}

/** What is told on hover. */
const hover = (at) => `${full.format(at)} here\n${at.toISOString().replace("T", " ").slice(0, 19)} UTC`;

/** An instant as people say it, with the exact one on hover. */
export function when(text, { far = "relative", none = "never" } = {}) {
  const at = text instanceof Date ? text : instant(text);
  if (!at) return h("span", { class: "dim" }, none);
  const shown = far === "relative" ? distance(at) : far === "date" ? dated.format(at) : short.format(at);
  return h("time", { datetime: at.toISOString(), title: hover(at), "data-far": far }, shown);
}

/** Brings what is told as a distance up to date. */
export function refreshTimes() {
  const now = new Date();
  for (const node of document.querySelectorAll("time[data-far=relative]")) node.textContent = distance(new Date(node.dateTime), now);
}

/** A day. */
export const day = (at) => dayOnly.format(at);
/** A whole instant. */
export const exact = (at) => full.format(at);

/** Midnight of a day in the viewer's zone. */
export function midnight(at) {
  const day = new Date(at);
  day.setHours(0, 0, 0, 0);
  return day;
}
