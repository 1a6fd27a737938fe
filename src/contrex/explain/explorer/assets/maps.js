// Maps of classes, and every contrast that is made of them.
import { floats, logsumexp, shorts, softmax } from "./numbers.js";

/** The maps of one picture's classes by one method and model. */
export class Table {
  /** @param {any} plain as `content.py` writes it */
  constructor(plain) {
    Object.assign(this, plain);
    [this.rows, this.columns] = plain.shape;
    this.cells = this.rows * this.columns;
    this.data = shorts(plain.values);
    this.factors = floats(plain.factors);
    this.places = plain.classes && new Map(plain.classes.map((name, place) => [name, place]));
  }

  /** Where the map of a class is, or -1. @param {number} index */
  place(index) {
    if (!this.isClassSpecific) return 0;
    return this.places ? (this.places.get(index) ?? -1) : index;
  }

  /** Adds `weight` times the map at a place. @param {Float64Array} onto @param {number} place @param {number} weight */
  add(onto, place, weight) {
    const scale = weight * this.factors[place], start = place * this.cells;
    for (let i = 0; i < this.cells; i++) onto[i] += scale * this.data[start + i];
  }

  /** The map of one class, or null. @param {number} index */
  of(index) {
    const place = this.place(index);
    if (place < 0) return null;
    const map = new Float64Array(this.cells);
    this.add(map, place, 1);
    return map;
  }

  /** The weighted sum of the classes' maps; null where a class that counts has none. The classes without a map count
   * together, where their weights are alike or follow their probabilities.
   * @param {Float64Array} weights @param {"mean" | "weighted" | string} kind */
  weighted(weights, kind) {
    if (!this.isClassSpecific) return this.of(0);
    const map = new Float64Array(this.cells);
    let rest = 0;
    for (let index = 0; index < weights.length; index++) {
      if (!weights[index]) continue;
      const place = this.place(index);
      if (place >= 0) this.add(map, place, weights[index]);
      else rest += weights[index];
    }
    if (rest) {
      if (!this.hasRest || (kind !== "mean" && kind !== "weighted")) return null;
      this.add(map, this.classes.length + (kind === "mean" ? 0 : 1), rest);
    }
    return map;
  }
}

/** What one model says of one view: logits, probabilities, and a table for each method. */
export class Answer {
  /** @param {any} plain @param {string} task */
  constructor(plain, task) {
    this.logits = floats(plain.logits);
    this.plain = plain;
    const all = softmax(this.logits, () => true);
    this.probabilities = task === "multilabel" ? Float64Array.from(this.logits, (y) => 1 / (1 + Math.exp(-y))) : all;
    // One logit y has z = (-y, y), of which the probabilities are sigmoids, not a softmax.
    if (task === "binary") this.probabilities = Float64Array.from(this.logits, (z) => 1 / (1 + Math.exp(-z)));
    this.order = Array.from(this.logits.keys()).sort((a, b) => this.logits[b] - this.logits[a] || a - b);
    this.tables = [];
  }

  /** @param {number} method */
  table(method) {
    return (this.tables[method] ??= new Table(this.plain.tables[method]));
  }
}

/** The classes that a contrast sets against the target.
 * @param {{kind: string, target: number, foils: number[]}} question @param {Answer} answer */
export const rivals = (question, answer) => {
  const { kind, target, foils } = question;
  if (kind === "max") return [answer.order.find((index) => index !== target)];
  return kind === "classes" ? foils : null;
};

/** The weights of the classes (`ops.scores.class_weights`), and of the target alone at a share of 0.
 * @param {any} question @param {Answer} answer @param {string} task @param {number} scale */
export const weightsOf = (question, answer, task, scale) => {
  const { kind, target, share } = question, num = answer.logits.length;
  const alone = kind === "alone" || (task === "multilabel" && kind === "weighted");
  const some = rivals(question, answer);
  let weights = new Float64Array(num);
  if (!alone && kind === "mean") weights.fill(-1 / (num - 1));
  else if (!alone) weights = softmax(answer.logits, some ? (i) => some.includes(i) : (i) => i !== target).map((a) => -a);
  weights[target] = 1;
  const factor = alone ? 1 : scale;
  return weights.map((weight, index) => {
    const bare = index === target ? 1 : 0;
    return bare + share * (factor * weight - bare);
  });
};

/** The number that is explained (`ops.scores.score`).
 * @param {any} question @param {Answer} answer @param {string} task */
export const scoreOf = (question, answer, task) => {
  const { kind, target } = question, z = answer.logits;
  if (kind === "alone" || task === "binary" || (task === "multilabel" && kind === "weighted")) return z[target];
  if (kind === "mean") return z[target] - (z.reduce((a, b) => a + b, 0) - z[target]) / (z.length - 1);
  const some = rivals(question, answer);
  return z[target] - logsumexp(z, some ? (i) => some.includes(i) : (i) => i !== target);
};

/** The values of a map [rows, columns] at positions, in cells from the first one's centre, between the nearest cells.
 * @param {ArrayLike<number>} map @param {number} rows @param {number} columns
 * @param {Float64Array} ys @param {Float64Array} xs @returns {Float32Array} */
export const sampled = (map, rows, columns, ys, xs) => {
  const out = new Float32Array(ys.length * xs.length), across = near(xs, columns), down = near(ys, rows);
  for (let y = 0, place = 0; y < ys.length; y++) {
    const top = down.low[y] * columns, bottom = down.high[y] * columns, share = down.share[y];
    for (let x = 0; x < xs.length; x++) {
      const left = across.low[x], right = across.high[x], along = across.share[x];
      const above = map[top + left] * (1 - along) + map[top + right] * along;
      const below = map[bottom + left] * (1 - along) + map[bottom + right] * along;
      out[place++] = above * (1 - share) + below * share;
    }
  }
  return out;
};

/** The two nearest cells of each position, of `num` in a row, and how far it is on the way from one to the other.
 * @param {Float64Array} positions @param {number} num */
const near = (positions, num) => {
  const clamped = positions.map((position) => Math.min(Math.max(position, 0), num - 1));
  const low = Int32Array.from(clamped, Math.floor);
  return { low, high: low.map((cell) => Math.min(cell + 1, num - 1)), share: clamped.map((position, i) => position - low[i]) };
};

/** A map enlarged to a size, as `ops.heatmap.resize` does.
 * @param {ArrayLike<number>} map @param {number} rows @param {number} columns @param {number} height
 * @param {number} width */
export const enlarged = (map, rows, columns, height, width) => {
  const centres = (num, cells) => Float64Array.from({ length: num }, (_, i) => ((i + 0.5) * cells) / num - 0.5);
  return sampled(map, rows, columns, centres(height, rows), centres(width, columns));
};

/** What a map of the whole picture looks like in one of its views, cell by cell. A view that is not a part of the picture
 * says `from` which point of it each of its points is, in shares of the sides; outside of the picture is nothing.
 * @param {ArrayLike<number>} map @param {number} rows @param {number} columns @param {any} view */
export const carried = (map, rows, columns, view) => {
  if (view.from) return Float32Array.from({ length: rows * columns }, (_, i) => {
    const [x, y] = view.from([((i % columns) + 0.5) / columns, (Math.floor(i / columns) + 0.5) / rows]);
    if (x < 0 || y < 0 || x > 1 || y > 1) return 0;
    return sampled(map, rows, columns, Float64Array.of(y * rows - 0.5), Float64Array.of(x * columns - 0.5))[0];
  });
  const along = (num, start, size) =>
    Float64Array.from({ length: num }, (_, i) => (start + (size * (i + 0.5)) / num) * num - 0.5);
  const xs = along(columns, view.left, view.width);
  return sampled(map, rows, columns, along(rows, view.top, view.height), view.is_flipped ? xs.reverse() : xs);
};
