// The probabilities before and after a change, side by side.
import { byId, make } from "./elements.js";
import { percent } from "./numbers.js";
import { short } from "./question.js";

const NUM_LISTED = 5; // the most probable classes before, and as many after

const cell = (probability) => make("td", { class: "probability" }, make("meter", { value: probability }), make("span", {}, percent(probability)));

const tableOf = (app, model, before, after) => {
  const { target, foils, kind } = app.resolved(model), asked = [target, ...(kind === "classes" ? foils : [])];
  const larger = (index) => Math.max(before.probabilities[index], after.probabilities[index]);
  const classes = [...new Set([...before.order.slice(0, NUM_LISTED), ...after.order.slice(0, NUM_LISTED), ...asked])].sort((a, b) => larger(b) - larger(a));
  const rows = classes.map((index) => make("tr", { "data-class": String(index), class: asked.includes(index) ? "asked" : "" },
    make("th", { scope: "row" }, short(app.content.names[index])), cell(before.probabilities[index]), cell(after.probabilities[index])));
  const head = ["class", "before", "after"].map((text) => make("th", { scope: "col" }, text));
  return make("table", {}, make("caption", {}, `Before and after: ${app.content.models[model].name}`), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
};

/** Shows what the change of the photo did to the probabilities, and says it of the class that is asked about. */
export const showBeforehand = (app) => {
  const { photo, view } = app.question, changed = app.changed.get(photo), before = app.answers(photo, 0);
  byId("beforehand").hidden = !changed;
  byId("beforehand").replaceChildren(...(changed ? before.map((answer, model) => tableOf(app, model, answer, changed.answers[model])) : []));
  if (!changed || app.content.views[view]) return;
  const { target } = app.resolved(), told = before.map((answer, model) => `${app.content.models[model].name}: ` +
    `${percent(answer.probabilities[target])} before, ${percent(changed.answers[model].probabilities[target])} after`);
  byId("said").textContent += ` ${short(app.content.names[target])}, ${told.join("; ")}.`;
};
