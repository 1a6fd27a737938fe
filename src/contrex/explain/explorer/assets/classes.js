// The list of classes: which is explained, which it is explained against, and how probable each is.
import { byId, make } from "./elements.js";
import { percent } from "./numbers.js";
import { short } from "./question.js";

export const NUM_TOP = 10;
const MOST_FOUND = 40;

/** The classes in the list: the most probable, those that are asked about, and those that were searched for. */
const listedClasses = (app) => {
  const wanted = byId("search").value.trim().toLowerCase();
  const { target, foils } = app.resolved();
  if (!wanted) return [...new Set([...app.answers()[0].order.slice(0, NUM_TOP), target, ...foils])];
  const found = app.answers()[0].order.filter((index) => app.content.names[index].toLowerCase().includes(wanted));
  return found.slice(0, MOST_FOUND);
};

/** What a click on a name asks: first why this class, then why not that one. */
const pick = (app, index) => {
  if (app.next === "target" || index === app.resolved().target) {
    const again = app.next === "foil";
    app.next = again ? "target" : "foil";
    app.ask({ target: index, kind: "alone", foils: [], share: 1 });
  } else {
    app.ask({ target: app.resolved().target, kind: "classes", foils: [index], share: app.question.share || 1 });
  }
};

const toggleFoil = (app, index, isOn) => {
  const { target, foils, kind } = app.resolved();
  const before = kind === "classes" ? foils : [];
  const now = isOn ? [...before, index] : before.filter((foil) => foil !== index);
  app.next = "foil";
  app.ask({ target, kind: now.length ? "classes" : "alone", foils: now, share: app.question.share || 1 });
};

const rowOf = (app, index) => {
  const name = app.content.names[index], hasMap = app.tables().every((table) => table.place(index) >= 0);
  const why = make("input", { type: "radio", name: "target", "aria-label": `why ${name}`, disabled: !hasMap,
    onchange: () => { app.next = "foil"; app.ask({ target: index, foils: app.question.foils.filter((f) => f !== index) }); } });
  const not = make("input", { type: "checkbox", "aria-label": `and not ${name}`, disabled: !hasMap,
    onchange: () => toggleFoil(app, index, not.checked) });
  const button = make("button", { type: "button", class: "pick", title: name, disabled: !hasMap,
    onclick: () => pick(app, index) }, short(name));
  const row = make("tr", { "data-class": String(index) }, make("td", {}, why), make("td", {}, not),
    make("th", { scope: "row" }, button, hasMap ? "" : make("small", {}, "no map of it here")));
  app.content.models.forEach(() => row.append(make("td", { class: "probability" }, make("meter"), make("span"))));
  return Object.assign(row, { why, not, button });
};

const updateRow = (app, row, index) => {
  const { target, foils, kind } = app.resolved();
  row.why.checked = index === target;
  row.not.checked = kind === "classes" && foils.includes(index);
  row.not.disabled = row.why.disabled || index === target;
  row.classList.toggle("target", index === target);
  row.classList.toggle("foil", row.not.checked);
  row.querySelectorAll(".probability").forEach((cell, model) => {
    const probability = app.answers()[model].probabilities[index];
    cell.children[0].value = probability;
    cell.children[1].textContent = percent(probability);
  });
};

/** Brings the list up to date; rows that stay keep the focus. */
export const showClasses = (app) => {
  const body = byId("classes").tBodies[0], classes = listedClasses(app);
  const key = `${app.question.photo} ${app.question.view} ${app.question.method} ${classes}`;
  if (body.dataset.key !== key) {
    const focused = body.contains(document.activeElement) ? document.activeElement : null;
    const place = focused && [focused.closest("tr").dataset.class, [...focused.closest("tr").querySelectorAll("input, button")].indexOf(focused)];
    body.replaceChildren(...classes.map((index) => rowOf(app, index)));
    body.dataset.key = key;
    if (place) body.querySelector(`[data-class="${place[0]}"]`)?.querySelectorAll("input, button")[place[1]]?.focus();
  }
  [...body.rows].forEach((row) => updateRow(app, row, Number(row.dataset.class)));
  byId("found").textContent = classes.length ? "" : "No class is called so.";
  byId("next").textContent = app.next === "target" ? "Click a class: why this one?" : "Click another class: why not that one?";
};

export const startClasses = (app) => {
  const head = byId("classes").tHead.rows[0];
  app.content.models.forEach((model) => head.append(make("th", { scope: "col" }, app.content.models.length > 1 ? model.name : "probability")));
  byId("search").addEventListener("input", () => showClasses(app));
};

/** Moves what the class is explained against through the most probable ones. @param {number} step */
export const sweep = (app, step) => {
  const { target, foils, kind } = app.resolved();
  const has = (index) => app.tables().every((table) => table.place(index) >= 0);
  const top = app.answers()[0].order.slice(0, NUM_TOP).filter((index) => index !== target && has(index));
  const now = kind === "classes" && foils.length === 1 ? top.indexOf(foils[0]) : step > 0 ? -1 : 0;
  const next = top[(now + step + top.length) % top.length];
  app.next = "foil";
  if (next !== undefined) app.ask({ target, kind: "classes", foils: [next], share: app.question.share || 1 });
};
