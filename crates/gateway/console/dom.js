// Elements, made by hand. Text is only ever text: there is no way from a string to markup in this file or any other.

const SVG = "http://www.w3.org/2000/svg";

function put(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === true) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

function dress(node, attributes) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on") && typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "open") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  return node;
}

/** An HTML element. */
export function h(tag, attributes, ...children) {
  return put(dress(document.createElement(tag), attributes), children);
}

/** An SVG element. */
export function s(tag, attributes, ...children) {
  return put(dress(document.createElementNS(SVG, tag), attributes), children);
}

/** Replaces what a node holds. */
export function fill(node, ...children) {
  node.replaceChildren();
  return put(node, children);
}

// Lines on a grid of 24; one stroke width for all of them.
const ICONS = {
  overview: "M4 13h6V4H4zM14 20h6v-9h-6zM4 20h6v-3H4zM14 7h6V4h-6z",
  key: "M14.5 9.5a4.5 4.5 0 1 0-4.2 4.5L12 12.3h2v-2h2l2-2M8.5 8.5h.01",
  secret: "M7 14a4 4 0 1 1 3.9-5H20v3h-2v2h-3v-2h-4.1A4 4 0 0 1 7 14zM7 10h.01",
  target: "M4 5h16v6H4zM4 13h16v6H4zM8 8h.01M8 16h.01M12 8h5M12 16h5",
  people: "M9 11a3.2 3.2 0 1 0 0-6.4A3.2 3.2 0 0 0 9 11zM3 20c0-3.4 2.6-5.6 6-5.6s6 2.2 6 5.6M16 11a2.6 2.6 0 1 0 0-5M17 14.6c2.4.4 4 2.3 4 5",
  audit: "M6 3h9l4 4v14H6zM15 3v4h4M9 12h7M9 16h7",
  report: "M4 20h16M7 20v-6M12 20V6M17 20v-9",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4",
  plus: "M12 5v14M5 12h14",
  right: "M9 6l6 6-6 6",
  left: "M15 6l-6 6 6 6",
  down: "M6 9l6 6 6-6",
  up: "M6 15l6-6 6 6",
  check: "M5 12.5l4.5 4.5L19 7.5",
  cross: "M6 6l12 12M18 6L6 18",
  warn: "M12 4l9 16H3zM12 10v4.5M12 17.3h.01",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7v5l3.4 2",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12zM12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
  hide: "M4 4l16 16M9.5 5.9A9 9 0 0 1 12 5.5c6 0 9.5 6.5 9.5 6.5a17 17 0 0 1-3 3.7M6.2 7.4A16 16 0 0 0 2.5 12S6 18.5 12 18.5a9.500 9.500 0 0 0 4.300-1",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M5.300 18.700l1.400-1.400M17.300 6.700l1.400-1.400",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z",
  menu: "M4 7h16M4 12h16M4 17h16",
  refresh: "M20 11a8 8 0 0 0-14.300-4.300L4 8.500M4 4v4.500h4.500M4 13a8 8 0 0 0 14.300 4.300L20 15.500M20 20v-4.500h-4.500",
  wrench: "M14.500 6.500a4.500 4.500 0 0 1 5.700-2.200l-2.900 2.900.5 2 2 .5 2.900-2.900a4.500 4.500 0 0 1-6.200 5.700L8.500 20.500a2.100 2.100 0 0 1-3-3l8-8a4.500 4.500 0 0 1 1-3z",
  shield: "M12 3l8 3v6c0 4.600-3.400 7.800-8 9-4.600-1.200-8-4.400-8-9V6zM8.500 12l2.500 2.500 4.500-4.500",
  lock: "M6 11h12v9H6zM8.500 11V8a3.500 3.500 0 0 1 7 0v3",
  folder: "M3 6h6l2 2.500h10V19H3z",
  out: "M14 4h5v16h-5M10 8l-4 4 4 4M6 12h9",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  edit: "M5 19l.8-4L16 4.800l3.200 3.200L9 18.200zM13.800 7l3.200 3.200",
  off: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM6 6l12 12",
  dot: "M12 12h.01",
  download: "M12 4v11M7.500 11l4.500 4.500 4.500-4.500M5 20h14",
  print: "M7 9V4h10v5M7 17H4v-8h16v8h-3M7 14h10v6H7z",
  trash: "M5 7h14M10 7V4.500h4V7M7 7l1 13h8l1-13M10.500 11v5.500M13.500 11v5.500",
  holder: "M12 3l7.500 4.500v9L12 21l-7.500-4.500v-9zM12 12l7.500-4.500M12 12v9M12 12L4.500 7.500",
};

/** A picture that says nothing by itself: it stands beside its word. */
export function icon(name, size = 16) {
  return s("svg", { class: name === "more" || name === "dot" ? "icon bold" : "icon", width: size, height: size, viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    s("path", { d: ICONS[name] || ICONS.dot }));
}

/** The wheel. */
export function mark(size = 26) {
  return s("svg", { class: "mark", width: size, height: size, viewBox: "0 0 32 32", "aria-hidden": "true", focusable: "false" },
    s("circle", { cx: 16, cy: 16, r: 14.6, class: "mark-rim" }),
    s("circle", { cx: 16, cy: 16, r: 10.2, class: "mark-ring" }),
    s("circle", { cx: 16, cy: 16, r: 5.4, class: "mark-inner" }),
    s("path", { d: "M16 16V3.4", class: "mark-hand" }),
    s("circle", { cx: 16, cy: 16, r: 1.8, class: "mark-hub" }));
}

let counter = 0;
/** An id unlike any other on the page. */
export const fresh = (what) => `${what}-${++counter}`;

/** Says something to people who do not see it. */
export function announce(text) {
  const place = document.getElementById("announce");
  if (place) place.textContent = text;
}
