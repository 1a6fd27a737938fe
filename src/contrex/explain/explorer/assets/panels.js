// The pictures with their maps, one for each model, and what a cell gives to each class.
import { draw, markCell, markSigns } from "./drawing.js";
import { bar, byId, make } from "./elements.js";
import { carried } from "./maps.js";
import { cosine, fullColour, percent, signed, sum } from "./numbers.js";
import { short } from "./question.js";

const MORPH = 260; // milliseconds in which one map becomes the next

/** The figures, once for each model. */
export const startPanels = (app) => {
  app.panels = app.content.models.map((model, index) => {
    const canvas = make("canvas", { role: "img", tabindex: "0" });
    const legend = make("canvas", { class: "legend", "aria-hidden": "true" });
    const limits = make("div", { class: "limits", "aria-hidden": "true" }), here = make("p", { class: "here" });
    const said = make("p"), note = make("p", { class: "note" });
    const caption = make("figcaption", {}, make("strong", {}, model.name), legend, limits, here, said, note);
    byId("panels").append(make("figure", { "data-model": String(index) }, canvas, caption));
    canvas.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") app.point(placeOf(event)); });
    canvas.addEventListener("pointerdown", (event) => touch(app, index, event));
    canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") app.point(null); });
    canvas.addEventListener("keydown", (event) => moveCursor(app, index, event));
    return { canvas, legend, limits, here, said, note, pen: canvas.getContext("2d", { willReadFrequently: true }), now: null };
  });
};

/** The place in a picture that an event is at. */
const placeOf = (event) => {
  const box = event.target.getBoundingClientRect(), inside = (share) => Math.min(Math.max(share, 0), 1 - 1e-9);
  return [inside((event.clientY - box.top) / box.height), inside((event.clientX - box.left) / box.width)];
};

/** A finger that is lifted leaves the cell chosen, until it touches it again. */
const touch = (app, model, event) => {
  const before = app.cell(model);
  app.point(placeOf(event));
  if (event.pointerType !== "mouse" && before === app.cell(model)) app.point(null);
};

/** Moves from cell to cell of a model's map; the first key goes to the one in the middle. */
const moveCursor = (app, model, event) => {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step && event.key !== "Escape") return;
  event.preventDefault();
  event.stopPropagation();
  if (!step) return void app.point(null);
  const sides = [app.shown[model].rows, app.shown[model].columns];
  app.point(sides.map((num, axis) => {
    const now = app.cursor ? Math.floor(app.cursor[axis] * num) + step[axis] : Math.floor(num / 2);
    return (Math.min(Math.max(now, 0), num - 1) + 0.5) / num;
  }));
};

/** Computes what each model's panel shows. */
export const compute = (app) => {
  const limits = app.question.scale === "common" ? app.commonLimit() : null;
  app.shown = app.tables().map((table, model) => {
    const { map, missing } = app.mapOf(app.question.photo, app.question.view, model, app.question.carried);
    const values = map ?? new Float64Array(table.cells);
    return { map: values, missing, rows: table.rows, columns: table.columns, limit: limits ?? fullColour(values), table };
  });
};

/** Draws all panels, from what they showed before to what they show now. */
export const showPanels = (app, isStill) => {
  const still = isStill || matchMedia("(prefers-reduced-motion: reduce)").matches;
  const before = app.panels.map((panel) => panel.now), started = performance.now();
  cancelAnimationFrame(app.frame);
  const step = (now) => {
    const done = still ? 1 : Math.min((now - started) / MORPH, 1), eased = done * done * (3 - 2 * done);
    app.panels.forEach((panel, model) => {
      const shown = app.shown[model], old = before[model];
      const fits = old && old.map.length === shown.map.length && done < 1;
      panel.now = !fits ? shown : { ...shown, limit: old.limit + eased * (shown.limit - old.limit),
        map: shown.map.map((value, i) => old.map[i] + eased * (value - old.map[i])) };
      paint(app, panel, model);
    });
    if (done < 1) app.frame = requestAnimationFrame(step);
  };
  step(started);
  app.panels.forEach((panel, model) => describe(app, panel, model));
};

const paint = (app, panel, model) => {
  const { width, height } = app.pixels(), { question } = app;
  if (panel.canvas.width !== width || panel.canvas.height !== height) Object.assign(panel.canvas, { width, height });
  const how = { opacity: question.opacity, threshold: question.threshold, isPositive: question.sign === "positive" };
  panel.above = draw(panel.pen, app.pixels(), panel.now, how, app.colours);
  if (question.marks && !question.threshold && question.opacity > 0.3) markSigns(panel.pen, panel.now, how.isPositive);
  panel.clean = panel.pen.getImageData(0, 0, width, height);
  if (app.cursor) markCell(panel.pen, panel.now, app.cell(model));
};

/** Moves the frame of the cell that is pointed at, on all panels. */
export const showCursor = (app) => app.panels.forEach((panel, model) => {
  if (!panel.clean) return;
  panel.pen.putImageData(panel.clean, 0, 0);
  if (app.cursor) markCell(panel.pen, panel.now, app.cell(model));
});

const describe = (app, panel, model) => {
  const shown = app.shown[model], answer = app.answers()[model], { target, foils, kind } = app.resolved(model);
  const isPositive = app.question.sign === "positive", names = app.content.names;
  paintLegend(app, panel.legend, isPositive);
  const limits = [...(isPositive ? ["0"] : [`${signed(-shown.limit)} against`, "0"]), `${signed(shown.limit)} for`];
  panel.limits.replaceChildren(...limits.map((text) => make("span", {}, text)));
  const told = [target, ...(kind === "alone" ? [] : foils)].slice(0, 4);
  const chances = told.map((index) => `${short(names[index])} ${percent(answer.probabilities[index])}`).join(", ");
  const above = app.question.threshold ? `. ${Math.round(100 * panel.above)}% of the picture are above the threshold` : "";
  const moved = app.consistency(model);
  const agrees = moved === null ? "" : `. This map and that of the whole picture, moved along, agree by ${moved.toFixed(2)} (cosine)`;
  panel.said.textContent = `${chances}; score ${signed(app.score(model))}${above}${agrees}.`;
  panel.note.textContent = notesOf(app, model).join(" ");
  panel.note.hidden = !panel.note.textContent;
  panel.canvas.setAttribute("aria-label", `${app.sentence(model)} ${app.content.models[model].name}: ${strongest(app, shown)}. ` +
    "Arrow keys move through the cells.");
};

const paintLegend = (app, canvas, isPositive) => {
  Object.assign(canvas, { width: 511, height: 1 });
  const pen = canvas.getContext("2d"), line = pen.createImageData(511, 1);
  app.colours.ramp.forEach((_, i) => {
    line.data.set([...app.colours.ramp[isPositive ? 255 + Math.round(i / 2) : i], 255], 4 * i);
  });
  pen.putImageData(line, 0, 0);
};

/** Where a map is strongest, in words. */
const strongest = (app, shown) => {
  const best = shown.map.indexOf(Math.max(...shown.map)), least = shown.map.indexOf(Math.min(...shown.map));
  const at = (cell) => `row ${Math.floor(cell / shown.columns) + 1}, column ${(cell % shown.columns) + 1} of ${shown.rows} by ${shown.columns}`;
  return `strongest for it at ${at(best)}${shown.map[least] < 0 ? `, against it at ${at(least)}` : ""}`;
};

/** What a reader must know of a map before believing it. */
const notesOf = (app, model) => {
  const { table, missing, map } = app.shown[model], { target, foils, kind } = app.resolved(model), notes = [];
  const answer = app.answers()[model], names = app.content.names, seen = kind === "alone" ? [target] : [target, ...foils];
  const unseen = seen.filter((index) => answer.probabilities[index] < 0.01);
  if (unseen.length === seen.length && seen.length > 1) notes.push("The network sees none of them.");
  else if (unseen.length) notes.push(`The network does not see ${short(names[unseen[0]])}.`);
  if (!table.isClassSpecific) notes.push("This method has one map for all classes: the question does not change it.");
  else if (missing) notes.push("There is no map for this question here: not all of its classes were computed.");
  else if (!map.some(Boolean)) notes.push("The map is zero everywhere.");
  if (table.isClassSpecific && !table.isLinear && kind !== "alone")
    notes.push("This method is not linear in the score: its contrast is the difference of the classes' maps.");
  if (table.isClassSpecific && table.classes)
    notes.push(`${table.classes.length} of ${names.length} classes have a map here${table.hasRest ? "; the others count together" : ""}.`);
  if (table.size) notes.push(`The map has ${table.size.join(" x ")} pixels; cells are their means.`);
  return notes;
};

/** What the cell under the cursor gives to each class, model by model, and what all cells add up to. */
export const showCell = (app) => {
  byId("cell-name").textContent = app.cursor ? cellName(app, 0) : "All cells together";
  byId("cell").replaceChildren(...app.shown.map((shown, model) => barsOf(app, shown, model)));
  app.shown.forEach((shown, model) => {
    const name = app.cursor ? cellName(app, model).toLowerCase() : "all cells";
    app.panels[model].here.textContent = `${name}: ${signed(worthOf(app, shown, model, shown.map))}`;
  });
  if (app.cursor) byId("said").textContent = `${cellName(app, 0)}: ${app.shown.map((shown, model) =>
    `${app.content.models[model].name} ${signed(worthOf(app, shown, model, shown.map))}`).join(", ")}`;
};

const cellName = (app, model) => {
  const { columns } = app.shown[model], cell = app.cell(model);
  return `Cell in row ${Math.floor(cell / columns) + 1}, column ${(cell % columns) + 1}`;
};

/** What the cell that is pointed at gives, or all cells together. */
const worthOf = (app, { table }, model, map) => table.factor * (app.cursor ? map[app.cell(model)] : sum(map));

const barsOf = (app, shown, model) => {
  const { table } = shown, { target, foils, kind } = app.resolved(model), answer = app.answers()[model];
  const worth = (map) => worthOf(app, shown, model, map);
  const asked = kind === "alone" ? [target] : [target, ...foils.slice(0, 4)];
  const classes = [...new Set([...asked, ...answer.order.slice(0, 6)])];
  const gifts = classes.map((index) => [index, table.of(index)]).filter(([, map]) => map).map(([index, map]) => [index, worth(map)]);
  const largest = Math.max(...gifts.map(([, value]) => Math.abs(value)), Math.abs(worth(shown.map)), 1e-30);
  const line = (name, value, kind) => make("tr", { class: kind }, make("th", { scope: "row" }, name), make("td", {}, bar(value / largest)), make("td", {}, signed(value)));
  const rows = gifts.map(([index, value]) => line(short(app.content.names[index]), value, asked.includes(index) ? "asked" : ""));
  const body = make("tbody", {}, ...(table.isClassSpecific ? rows : []), line("this question", worth(shown.map), "total"));
  const head = make("caption", {}, `${app.content.models[model].name}: ${table.method}`);
  return make("div", {}, make("table", {}, head, body), make("p", { class: "note" }, addsUp(app, shown, model)));
};

/** How the cells of the map add up to the logits, or that they do not. */
const addsUp = (app, shown, model) => {
  const { table } = shown, answer = app.answers()[model], weights = app.weights(model);
  if (!table.isClassSpecific || shown.missing) return "";
  const all = table.factor * sum(shown.map), logits = sum(answer.logits.map((y, index) => y * weights[index]));
  const how = table.factor === 1 ? "All cells together" : table.size ? "All pixels together" : "The mean of all cells";
  const what = { alone: "the logit", classes: "the difference of the logits", mean: "the difference of the logits" }[
    app.question.share < 1 && app.question.kind !== "alone" ? "" : app.question.kind] ?? "the weighted difference of the logits";
  if (app.question.carried && app.question.view) return "";
  if (table.adds === "nothing") return `${how}: ${signed(all)}, which is ${what}, ${signed(logits)}.`;
  if (table.adds === "bias")
    return `${how}: ${signed(all)}. With the biases of the classes, ${signed(logits - all)}, this is ${what}, ${signed(logits)}.`;
  return `${how}: ${signed(all)}, but ${what} is ${signed(logits)}. With this method and layer the cells do not add up to it: ${signed(logits - all)} are in no cell.`;
};

/** How well the map of a view agrees with that of the whole picture, carried along; null for the whole picture. */
export const agreement = (app, photo, view, model) => {
  const { map, table } = app.mapOf(photo, view, model, false), whole = app.mapOf(photo, 0, model, false);
  if (!view || !map || !whole.map || map.length !== whole.map.length) return null;
  return cosine(map, carried(whole.map, table.rows, table.columns, app.view(photo, view)));
};
