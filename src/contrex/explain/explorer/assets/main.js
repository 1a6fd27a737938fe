// The page: what is asked, what follows from it, and what the keys do.
import { showClasses, startClasses, sweep } from "./classes.js";
import { pixelsOf, ramp } from "./drawing.js";
import { byId, make } from "./elements.js";
import { startKeeping } from "./keeping.js";
import { Answer, carried, enlarged, rivals, scoreOf, weightsOf } from "./maps.js";
import { cosine, fullColour } from "./numbers.js";
import { agreement, compute, showCell, showCursor, showPanels, startPanels } from "./panels.js";
import { DEFAULT, fromAddress, inWords, KINDS, nameShortly, toAddress } from "./question.js";

/** Everything in the file is there; the first photo is before. */
const PARSED = new Promise((done) => {
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", done);
  else done();
});

const WHOLE = { left: 0, top: 0, width: 1, height: 1, is_flipped: false };

class App {
  /** @param {any} content as `content.py` writes it */
  constructor(content) {
    this.content = content;
    nameShortly(content.names);
    this.colours = { ramp: ramp(content.colours), darkest: content.colours.darkest };
    this.question = { ...DEFAULT };
    this.next = "target"; // what a click on a class's name asks for
    this.cursor = null; // where in the picture, as shares of its height and width: models may have other grids
    this.heading = 0; // the photo that is asked for, shown or about to be
    this.images = [];
    this.kept = new Map(); // answers and pixels, each made once
    this.changed = new Map(); // what a server said of photos that were changed: a view behind all others
    this.followers = []; // what else is brought up to date when something else is shown
  }

  once(key, value) {
    if (!this.kept.has(key)) this.kept.set(key, value());
    return this.kept.get(key);
  }

  /** What the page has of a photo, which is read when it is asked for. */
  photo(index = this.question.photo) {
    return this.once(`photo ${index}`, () => JSON.parse(byId(`photo-${index}`).textContent));
  }

  view(photo = this.question.photo, view = this.question.view) { return this.content.views[view] ?? this.changed.get(photo).view; }

  /** What each model says of a view. @returns {Answer[]} */
  answers(photo = this.question.photo, view = this.question.view) {
    if (!this.content.views[view]) return this.changed.get(photo).answers;
    return this.once(`answers ${photo} ${view}`, () =>
      this.photo(photo).answers[view].map((plain) => new Answer(plain, this.content.task)));
  }

  tables() { return this.answers().map((answer) => answer.table(this.question.method)); }

  pixels() {
    const { photo, view } = this.question, changed = this.changed.get(photo);
    if (!this.content.views[view]) return (changed.pixels ??= pixelsOf(changed.image, WHOLE));
    return this.once(`pixels ${photo} ${view}`, () => pixelsOf(this.images[photo], this.view()));
  }

  /** The question with its classes: those that were not chosen are the most probable ones of the whole picture. */
  resolved(model = 0, photo = this.question.photo, view = this.question.view) {
    const { order } = this.answers(photo, 0)[0], { kind } = this.question;
    const target = this.question.target >= 0 ? this.question.target : order[0];
    let foils = this.question.foils.filter((index) => index !== target);
    if (kind === "classes" && !foils.length) foils = [order.find((index) => index !== target)];
    const question = { ...this.question, target, foils };
    if (kind === "max") question.foils = rivals(question, this.answers(photo, view)[model]);
    return question;
  }

  weights(model, photo = this.question.photo, view = this.question.view) {
    const answer = this.answers(photo, view)[model], { task, scale } = this.content;
    return weightsOf(this.resolved(model, photo, view), answer, task, scale);
  }

  /** The map of the question on a view, or that of the whole picture carried along. */
  mapOf(photo, view, model, isCarried) {
    const from = isCarried ? 0 : view, table = this.answers(photo, from)[model].table(this.question.method);
    const map = table.weighted(this.weights(model, photo, from), this.question.kind);
    if (!map || !isCarried || !view) return { map, missing: !map, table };
    return { map: carried(map, table.rows, table.columns, this.view(photo, view)), missing: false, table };
  }

  score(model) {
    const { task } = this.content, question = this.resolved(model), answer = this.answers()[model];
    const alone = scoreOf({ ...question, kind: "alone" }, answer, task), full = scoreOf(question, answer, task);
    return alone + (question.kind === "alone" ? 0 : question.share) * (full - alone);
  }

  sentence(model) {
    const question = this.resolved(model), { kind, foils } = question;
    const named = kind === "classes" || kind === "max" ? foils : null;
    return inWords(question, this.content.names, named).map(([text]) => text).join("");
  }

  consistency(model) { return agreement(this, this.question.photo, this.question.view, model); }

  /** The value with the full colour for all photos and models. */
  commonLimit() {
    const { kind, target, foils, share, method } = this.question;
    return this.once(`limit ${[kind, target, foils, share, method]}`, () => Math.max(...this.content.photos.flatMap((_, photo) =>
      this.content.models.map((_, model) => { const { map } = this.mapOf(photo, 0, model, false); return map ? fullColour(map) : 0; }))) || 1);
  }

  /** How much a photo's models disagree, or its views. @param {string} by */
  disagreement(photo, by) {
    const answers = this.answers(photo, 0), others = answers.slice(1).map((_, i) => i + 1);
    const worst = (of) => Math.max(0, ...others.map(of));
    const large = (model) => { // networks may have other grids: maps are compared as they are seen
      const { map, table } = this.mapOf(photo, 0, model, false);
      return map ? enlarged(map, table.rows, table.columns, 32, 32) : [];
    };
    if (by === "maps") return worst((other) => 1 - cosine(large(0), large(other)));
    if (by === "classes") return worst((other) =>
      answers[0].probabilities.reduce((total, p, i) => total + Math.abs(p - answers[other].probabilities[i]), 0) / 2);
    const views = this.content.views.slice(1).map((_, i) => i + 1);
    return -Math.min(1, ...answers.flatMap((_, model) => views.map((view) => agreement(this, photo, view, model) ?? 1)));
  }

  /** The photos in the order that is asked for. */
  order() {
    const all = this.content.photos.map((_, index) => index), { sort, kind, target, foils, share, method } = this.question;
    if (sort === "file") return all;
    return this.once(`order ${[sort, kind, target, foils, share, method]}`, () => {
      const by = all.map((photo) => this.disagreement(photo, sort));
      return all.sort((a, b) => by[b] - by[a] || a - b);
    });
  }

  /** The picture of a photo, as soon as it can be drawn. */
  loaded(photo) {
    return this.once(`image ${photo}`, async () => {
      if (photo) await PARSED;
      const image = new Image();
      image.src = this.photo(photo).image;
      await image.decode();
      this.images[photo] = image;
    });
  }

  /** Changes the question, and shows what follows, as soon as what it needs is there. */
  ask(changes, isStill = false) {
    const asked = { ...this.question, ...changes }, { photo } = asked;
    const needsAll = document.readyState === "loading" && (asked.sort !== "file" || asked.scale === "common");
    this.heading = photo;
    if (needsAll || !this.images[photo])
      return Promise.all([this.loaded(photo), needsAll && PARSED]).then(() => { if (this.heading === photo) this.ask(changes, isStill); });
    if (photo !== this.question.photo && !this.question.keep) {
      changes = { target: -1, foils: [], ...changes };
      this.next = "target";
    }
    Object.assign(this.question, changes);
    if (!this.content.views[this.question.view] && !this.changed.has(photo)) this.question.view = 0;
    try {
      history.replaceState(null, "", toAddress(this.question));
    } catch { /* a frame of a notebook has no address of its own */ }
    this.show(isStill || photo !== this.shownPhoto);
    this.shownPhoto = photo;
    return Promise.resolve();
  }

  show(isStill) {
    compute(this);
    showPanels(this, isStill);
    showClasses(this);
    showCell(this);
    showQuestion(this);
    for (const follow of this.followers) follow();
  }

  /** The cell of a model's map that is pointed at, or null. */
  cell(model) {
    const { rows, columns } = this.shown[model];
    return this.cursor && Math.floor(this.cursor[0] * rows) * columns + Math.floor(this.cursor[1] * columns);
  }

  /** Points at a place of the picture, or at none. */
  point(cursor) {
    const before = this.shown.map((_, model) => this.cell(model));
    this.cursor = cursor;
    if (before.every((cell, model) => cell === this.cell(model))) return;
    showCursor(this);
    showCell(this);
  }

  /** Goes to another photo, in their order. @param {number} step */
  go(step) {
    const order = this.order(), place = order.indexOf(this.heading) + step;
    if (order[place] !== undefined) this.ask({ photo: order[place] });
  }
}

/** The sentence above all, and the controls as the question has them. */
const showQuestion = (app) => {
  const question = app.resolved(), { names } = app.content;
  const named = question.kind === "classes" || question.kind === "max" ? question.foils : null;
  const parts = inWords(question, names, named);
  byId("question").replaceChildren(...parts.map(([text, isClass]) => (isClass ? make("em", {}, text) : text)));
  document.title = `${app.sentence(0)} ${app.content.photos[app.question.photo]}`;
  byId("about").textContent = `${app.content.photos[app.question.photo]}${app.question.view ? `, ${app.view().name}` : ""}; ${app.shown[0].table.method}`;
  byId("said").textContent = `${app.content.photos[app.question.photo]}: ${app.sentence(0)}`;
  for (const name of ["photo", "view", "method", "kind", "scale", "sign", "sort"]) byId(name).value = String(app.question[name]);
  for (const name of ["share", "opacity", "threshold"]) {
    byId(name).value = String(app.question[name]);
    byId(`${name}-said`).textContent = `${Math.round(100 * app.question[name])}%`;
  }
  for (const name of ["keep", "carried", "marks"]) byId(name).checked = app.question[name];
  byId("share").disabled = question.kind === "alone";
  byId("carried").disabled = !app.question.view;
  const order = app.order(), place = order.indexOf(app.question.photo);
  byId("place").textContent = `${place + 1} of ${order.length}`;
  byId("before").disabled = place === 0;
  byId("after").disabled = place === order.length - 1;
};

const choices = (id, entries) => byId(id).replaceChildren(...entries.map(([value, text]) => make("option", { value: String(value) }, text)));

const startControls = (app) => {
  const { photos, models, methods, views } = app.content;
  if (models.length > 1) { // there the cells are read below the pictures, model below model
    byId("page").classList.add("several");
    byId("seen").after(byId("read"));
  }
  choices("photo", photos.map((name, index) => [index, name]));
  choices("view", views.map((view, index) => [index, view.name]));
  choices("method", app.answers(0, 0)[0].plain.tables.map((table, index) => [index, table.method || methods[index]]));
  choices("kind", Object.entries(KINDS));
  const sorts = [["file", "as given"]];
  if (models.length > 1) sorts.push(["maps", "maps that disagree first"], ["classes", "classes that disagree first"]);
  if (views.length > 1) sorts.push(["views", "maps that do not move along first"]);
  choices("sort", sorts);
  for (const [id, isThere] of [["photos", photos.length > 1], ["views", views.length > 1], ["methods", methods.length > 1]]) byId(id).hidden = !isThere;
  for (const name of ["photo", "view", "method"]) byId(name).addEventListener("change", () => app.ask({ [name]: Number(byId(name).value) }));
  for (const name of ["kind", "scale", "sign", "sort"]) byId(name).addEventListener("change", () => app.ask({ [name]: byId(name).value }));
  byId("kind").addEventListener("change", () => { app.next = "foil"; });
  for (const name of ["share", "opacity", "threshold"]) byId(name).addEventListener("input", () => app.ask({ [name]: Number(byId(name).value) }, true));
  for (const name of ["keep", "carried", "marks"]) byId(name).addEventListener("change", () => app.ask({ [name]: byId(name).checked }));
  byId("before").addEventListener("click", () => app.go(-1));
  byId("after").addEventListener("click", () => app.go(1));
};

const startKeys = (app) => document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input:not([type=radio], [type=checkbox]), select")) return;
  const num = app.content.views.length + Number(app.changed.has(app.question.photo));
  const keys = {
    j: () => app.go(1), k: () => app.go(-1), ArrowRight: () => sweep(app, 1), ArrowLeft: () => sweep(app, -1),
    "/": () => byId("search").focus(), v: () => app.ask({ view: (app.question.view + 1) % num }),
    m: () => app.ask({ method: (app.question.method + 1) % app.content.methods.length }),
    s: () => app.ask({ sign: app.question.sign === "signed" ? "positive" : "signed" }),
    c: () => app.ask({ scale: app.question.scale === "each" ? "common" : "each" }),
  };
  if (!keys[event.key] || (event.target.type === "radio" && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  keys[event.key]();
});

/** What an address asks, beside what the page opens with. */
const asked = (app) => {
  const { photos, models, methods, names, start, views } = app.content;
  const limits = { photo: photos.length, view: views.length, method: methods.length, target: names.length, foils: names.length };
  const texts = [...Object.keys(KINDS), "each", "common", "signed", "positive", "file", ...(models.length > 1 ? ["maps", "classes"] : []), "views"];
  const first = { target: start.target ?? -1, kind: "alone", foils: [], keep: start.target !== null && photos.length > 1, share: start.share ?? 1 };
  if (Array.isArray(start.contrast)) Object.assign(first, { kind: "classes", foils: start.contrast });
  else if (start.contrast) first.kind = start.contrast;
  return { ...DEFAULT, ...first, ...fromAddress(location.hash, limits, texts) };
};

const start = async () => {
  const content = JSON.parse(byId("content").textContent);
  if (!content.photos.length) return null; // a server may begin without one
  const app = new App(content);
  startControls(app);
  startClasses(app);
  startPanels(app);
  startKeeping(app);
  startKeys(app);
  await app.ask(asked(app), true);
  byId("page").hidden = false;
  byId("waiting").hidden = true;
  requestAnimationFrame(() => performance.mark("shown"));
  addEventListener("hashchange", () => app.ask({ ...asked(app) }));
  for (const photo of app.content.photos.keys()) await app.loaded(photo);
  document.documentElement.dataset.ready = "yes";
  return app;
};

/** The page at work, or null where there is no photo. */
export const started = start();
