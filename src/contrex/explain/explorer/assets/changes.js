// What is changed of each photo: asked of the server one after the other, always the newest, and undone again.
import { byId } from "./elements.js";
import { Answer } from "./maps.js";
import { PAGE, post } from "./server.js";

/** A photo as it is.
 * @typedef {{erased: {points: number[][], radius: number}[], fill: string, zoom: number, x: number, y: number, angle: number, flip: boolean}} Change
 * @type {Change} */
export const UNCHANGED = { erased: [], fill: "blur", zoom: 1, x: 0.5, y: 0.5, angle: 0, flip: false };

const RANGES = { zoom: [0.5, 8], x: [0, 1], y: [0, 1] };
const PAUSE = 60; // milliseconds in which movements are gathered

/** @param {Change} change */
const isUnchanged = (change) => !change.erased.length && ["zoom", "x", "y", "angle", "flip"].every((name) => change[name] === UNCHANGED[name]);

/** From the points of a photo to those of the changed one, both in units of their height.
 * @param {Change} change @param {number} aspect width by height */
export const matrixOf = ({ zoom, x, y, angle, flip }, aspect) => new DOMMatrix().translate(aspect / 2, 0.5).rotate(angle)
  .scale(flip ? -zoom : zoom, zoom).translate(-x * aspect, -y);

/** A point of the changed photo as one of the photo, in shares of the sides.
 * @param {Change} change @param {number} aspect @param {number[]} point x and y */
export const inPhoto = (change, aspect, [x, y]) => {
  const from = matrixOf(change, aspect).inverse().transformPoint({ x: x * aspect, y });
  return [from.x / aspect, from.y];
};

/** The change with its centre where a point of the photo is seen at a place. Points are shares of the sides.
 * @param {Change} change @param {number} aspect @param {number[]} point @param {number[]} place @returns {Change} */
export const seenAt = (change, aspect, point, place) => {
  const under = inPhoto(change, aspect, place);
  return { ...change, x: change.x + point[0] - under[0], y: change.y + point[1] - under[1] };
};

/** One of the page's views as a change. @param {any} view */
const geometryOf = (view) => ({ zoom: 1 / view.width, x: view.left + view.width / 2, y: view.top + view.height / 2, angle: 0, flip: view.is_flipped });

/** @param {Change} change @returns {Change} */
const within = (change) => {
  const inside = (name) => Math.min(Math.max(change[name], RANGES[name][0]), RANGES[name][1]);
  const angle = change.angle - 360 * Math.round(change.angle / 360);
  return { ...change, zoom: inside("zoom"), x: inside("x"), y: inside("y"), angle };
};

export class Changes {
  /** @param {any} app @param {(message: string) => void} fail */
  constructor(app, fail) {
    Object.assign(this, { app, fail, wanted: null, asked: null, last: "" });
    this.states = new Map();
  }

  /** The change of the photo that is shown, and those before it. */
  state() {
    const { photo } = this.app.question;
    if (!this.states.has(photo)) this.states.set(photo, { now: UNCHANGED, before: [] });
    return this.states.get(photo);
  }

  /** What is shown of the photo, as a change. @returns {Change} */
  shown() {
    const { photo, view } = this.app.question;
    return this.app.changed.get(photo)?.change && !this.app.content.views[view] ? this.app.changed.get(photo).change
      : { ...UNCHANGED, ...geometryOf(this.app.content.views[view]) };
  }

  /** What the next change begins with: what is asked for, or erased parts in the view that is shown. @returns {Change} */
  now() {
    const { now } = this.state(), view = this.app.content.views[this.app.question.view];
    return this.wanted || this.asked || !view ? now : { ...now, ...geometryOf(view) };
  }

  aspect() { const { width, height } = this.app.pixels(); return width / height; }

  /** Changes the photo. Changes by the same hand, a name, are one step of undo.
   * @param {Partial<Change>} parts @param {string} hand */
  set(parts, hand) {
    const before = this.now();
    if (hand !== this.last) this.state().before.push(before);
    this.last = hand;
    this.become(within({ ...before, ...parts }));
  }

  /** What comes next is another step of undo. */
  rest() { this.last = ""; }

  undo() {
    const { before } = this.state();
    if (before.length) this.become(before.pop());
    this.rest();
  }

  /** Asks for a change, as soon as a movement pauses and the one before is answered. @param {Change} change */
  become(change) {
    this.state().now = change;
    this.wanted = { photo: this.app.question.photo, change };
    byId("working").hidden = false;
    this.timer ??= setTimeout(() => { this.timer = null; this.deliver(); }, PAUSE);
    this.preview();
  }

  async deliver() {
    if (this.asked) return;
    while (this.wanted) {
      [this.asked, this.wanted] = [this.wanted, null];
      try {
        await this.answer(this.asked);
        this.fail("");
      } catch (error) {
        this.fail(error.message);
      }
    }
    this.asked = null;
    byId("working").hidden = true;
    this.preview();
  }

  /** Gets and shows what the networks say of a changed photo. */
  async answer({ photo, change }) {
    const { app } = this;
    if (isUnchanged(change)) {
      app.changed.delete(photo);
      if (photo === app.question.photo) app.ask({ view: 0 });
      return;
    }
    const { target, foils, kind } = app.resolved(), named = kind === "classes" || kind === "max" ? foils : [];
    const asked = { page: PAGE, photo: app.content.live.ids[photo], change, classes: [target, ...named] };
    const said = await post("/changes", JSON.stringify(asked));
    if (said.isStale) return;
    const image = new Image();
    image.src = said.image;
    await image.decode();
    const aspect = image.naturalWidth / image.naturalHeight, from = (point) => inPhoto(change, aspect, point);
    app.changed.set(photo, { image, change, view: { name: "as you changed it", change, from },
      answers: said.answers.map((plain) => new Answer(plain, app.content.task)) });
    if (photo === app.question.photo) app.ask({ view: app.content.views.length });
  }

  /** Moves what is shown to where it will be, until the answer is there. */
  preview() {
    const isWaiting = this.wanted?.photo === this.app.question.photo || this.asked?.photo === this.app.question.photo;
    const aspect = this.aspect();
    const way = isWaiting ? matrixOf(this.state().now, aspect).multiply(matrixOf(this.shown(), aspect).inverse()) : null;
    for (const { canvas } of this.app.panels) {
      const { a, b, c, d, e, f } = way ?? new DOMMatrix(), height = canvas.clientHeight;
      canvas.style.transform = way && !way.isIdentity ? `matrix(${[a, b, c, d, e * height, f * height]})` : "";
    }
  }
}
