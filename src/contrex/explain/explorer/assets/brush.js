// Hands on the picture: a brush that erases, and moving, enlarging and turning with a mouse or with fingers.
import { inPhoto, seenAt } from "./changes.js";
import { byId, make } from "./elements.js";

const TOOLS = {
  read: "Point at a cell of the picture to read what it gives to each class.",
  erase: "Drag over the picture: what is under the brush is erased. With the keyboard, go to a cell with the arrow keys, and E erases it.",
  move: "Drag the picture; the wheel or two fingers enlarge it, two fingers also turn it. With the keyboard, use the sliders.",
};

export const tool = () => /** @type {any} */ (document.querySelector("input[name=tool]:checked")).value;

/** Where in its frame a pointer is, in shares of the sides: the picture itself may be moved already. */
const placeIn = (event) => {
  const box = event.target.closest(".frame").getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};

/** The radius of the brush in the photo: on the screen it stays as large as it is. */
const radius = (changes) => Math.min(Math.max(Number(byId("brush").value) / changes.now().zoom, 0.001), 0.5);

/** Erases around a point of what is shown. */
const erase = (changes, points) => {
  const { erased } = changes.now(), inside = points.filter((point) => point.every((share) => share >= 0 && share <= 1));
  if (inside.length) changes.set({ erased: [...erased, { points: inside, radius: radius(changes) }] }, `key ${performance.now()}`);
};

class Stroke {
  constructor(app, changes) {
    Object.assign(this, { app, changes, before: changes.now(), aspect: changes.aspect() });
    this.radius = radius(changes);
    this.points = /** @type {number[][]} */ ([]);
  }

  /** One more place of the brush, where it is away from the last one. */
  add(place) {
    const point = inPhoto(this.before, this.aspect, place).map((share) => Math.min(Math.max(share, 0), 1));
    const last = this.points.at(-1);
    if (last && Math.hypot((point[0] - last[0]) * this.aspect, point[1] - last[1]) < this.radius / 4) return;
    this.points.push(point.map((share) => Math.round(1e4 * share) / 1e4));
    this.changes.set({ erased: [...this.before.erased, { points: this.points.slice(), radius: this.radius }] }, "stroke");
    this.paint(place);
  }

  /** Shows at once where the brush was. */
  paint([x, y]) {
    for (const { pen, canvas } of this.app.panels) {
      const { width, height } = canvas;
      pen.fillStyle = "rgba(128, 128, 128, .55)";
      pen.beginPath();
      pen.arc(x * width, y * height, this.radius * this.before.zoom * Math.min(width, height), 0, 7);
      pen.fill();
    }
  }
}

/** What two places of fingers, before and after, do to a change: they hold the points of the photo that they are on. */
const held = (change, aspect, before, after) => {
  const middle = (places) => [0, 1].map((axis) => places.reduce((sum, place) => sum + place[axis], 0) / places.length);
  const point = inPhoto(change, aspect, middle(before));
  let next = change;
  if (before.length > 1) {
    const [old, now] = [before, after].map(([a, b]) => [(b[0] - a[0]) * aspect, b[1] - a[1]]);
    const turn = (Math.atan2(now[1], now[0]) - Math.atan2(old[1], old[0])) * (180 / Math.PI);
    next = { ...change, zoom: change.zoom * (Math.hypot(...now) / Math.max(Math.hypot(...old), 1e-6)), angle: change.angle + turn };
  }
  return seenAt(next, aspect, point, middle(after));
};

/** The ring of the brush at the pointer. */
const showRing = (event, ring) => {
  const frame = event.target.closest?.(".frame");
  ring.hidden = !frame || tool() !== "erase" || event.type === "pointerleave" || event.pointerType === "touch";
  if (ring.hidden) return;
  const [x, y] = placeIn(event), size = 2 * Number(byId("brush").value) * Math.min(frame.clientWidth, frame.clientHeight);
  frame.append(ring);
  Object.assign(ring.style, { left: `${100 * x}%`, top: `${100 * y}%`, width: `${size}px`, height: `${size}px` });
};

export const startBrush = (app, changes) => {
  const panels = byId("panels"), ring = make("span", { id: "ring", hidden: true }), fingers = new Map();
  let stroke = null;
  for (const { canvas } of app.panels) {
    const frame = make("div", { class: "frame" });
    canvas.replaceWith(frame);
    frame.append(canvas);
  }
  const down = (event) => {
    event.target.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, placeIn(event));
    changes.rest();
    if (tool() !== "erase" || fingers.size > 1) return;
    stroke = new Stroke(app, changes);
    stroke.add(placeIn(event));
  };
  const move = (event) => {
    if (!fingers.has(event.pointerId)) return;
    const before = [...fingers.values()];
    fingers.set(event.pointerId, placeIn(event));
    if (tool() === "erase") stroke?.add(placeIn(event));
    else changes.set(held(changes.now(), changes.aspect(), before.slice(0, 2), [...fingers.values()].slice(0, 2)), "fingers");
  };
  const up = (event) => { fingers.delete(event.pointerId); stroke = null; };
  const acts = { pointerdown: down, pointermove: move, pointerup: up, pointercancel: up, pointerleave: () => {} };
  for (const [name, act] of Object.entries(acts)) {
    panels.addEventListener(name, (event) => {
      showRing(event, ring);
      if (tool() === "read" || !(/** @type {Element} */ (event.target).closest?.(".frame"))) return;
      event.stopPropagation(); // the cells are not read meanwhile
      if (name === "pointerdown") event.preventDefault();
      act(event);
    }, true);
  }
  panels.addEventListener("wheel", (event) => {
    if (tool() !== "move" || !(/** @type {Element} */ (event.target).closest(".frame"))) return;
    event.preventDefault();
    const now = changes.now(), place = placeIn(event), aspect = changes.aspect(), point = inPhoto(now, aspect, place);
    const zoom = Math.min(Math.max(now.zoom * 2 ** (-event.deltaY / 400), 0.5), 8);
    changes.set(seenAt({ ...now, zoom }, aspect, point, place), `wheel ${Math.floor(event.timeStamp / 1000)}`);
  }, { passive: false });
  panels.addEventListener("keydown", (event) => {
    if (event.key !== "e" || !app.cursor || event.ctrlKey || event.metaKey) return;
    erase(changes, [inPhoto(changes.now(), changes.aspect(), [app.cursor[1], app.cursor[0]])]);
  });
  const choose = () => {
    panels.className = tool();
    byId("tool-said").textContent = TOOLS[tool()];
    if (tool() !== "read") app.point(null);
    ring.hidden = true;
  };
  for (const one of document.querySelectorAll("input[name=tool]")) one.addEventListener("change", choose);
  choose();
};
