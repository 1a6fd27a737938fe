// The page with a server behind it: photos that are dropped, and what is done to them.
import { showBeforehand } from "./beforehand.js";
import { startBrush } from "./brush.js";
import { Changes, UNCHANGED } from "./changes.js";
import { byId, make } from "./elements.js";
import { started } from "./main.js";
import { percent } from "./numbers.js";
import { post } from "./server.js";

const fail = (message) => {
  byId("live-error").textContent = message;
  byId("live-error").hidden = !message;
};

const say = (message) => { byId("live-said").textContent = message; };

/** Sends a photo, and shows it. @param {any} app null on a page that has none yet @param {File} file */
const send = async (app, file, mostBytes) => {
  if (file.size > mostBytes) throw new Error(`${file.name} has ${Math.ceil(file.size / 2 ** 20)} MB, and the server takes ${mostBytes / 2 ** 20}: send a smaller file.`);
  say(`Reading ${file.name} …`);
  const said = await post(`/photos?name=${encodeURIComponent(file.name)}`, file);
  if (!app) return void location.reload();
  const { content } = app, photo = content.photos.length;
  content.photos.push(said.name);
  content.live.ids.push(said.id);
  for (const key of app.kept.keys()) if (/^(order|limit) /.test(key)) app.kept.delete(key);
  app.once(`photo ${photo}`, () => said.photo);
  byId("photo").append(make("option", { value: String(photo) }, said.name));
  byId("photos").hidden = false;
  await app.ask({ photo, view: 0 });
  say(`${said.name} is shown.`);
};

/** Sends files one after the other; what is refused is told, and the others are sent. */
const sendAll = async (app, files, mostBytes) => {
  const wrong = [];
  fail(files.length ? "" : "That was no file: save the picture first, and drop the file.");
  for (const file of files) await send(app, file, mostBytes).catch((error) => { wrong.push(error.message); say(""); });
  if (wrong.length) fail(wrong.join(" "));
};

const startFiles = (app, mostBytes) => {
  byId("file").addEventListener("change", async () => { await sendAll(app, [...byId("file").files], mostBytes); byId("file").value = ""; });
  const over = (isOver) => document.body.classList.toggle("dropping", isOver);
  addEventListener("dragover", (event) => { event.preventDefault(); over(true); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) over(false); });
  addEventListener("drop", (event) => { event.preventDefault(); over(false); sendAll(app, [...event.dataTransfer.files], mostBytes); });
  addEventListener("paste", (event) => { if (event.clipboardData.files.length) sendAll(app, [...event.clipboardData.files], mostBytes); });
};

/** The sliders: what each says of a change, and how it is written. */
const SLIDERS = {
  zoom: { of: Math.log2, to: (value) => 2 ** value, said: (change) => `×${change.zoom.toFixed(2)}` },
  angle: { of: Number, to: Number, said: (change) => `${Math.round(change.angle)}°` },
  x: { of: Number, to: Number, said: (change) => percent(change.x) },
  y: { of: Number, to: Number, said: (change) => percent(change.y) },
};

/** The controls as the change has them that is asked for. */
const showControls = (app, changes) => {
  const now = changes.now();
  for (const [name, { of, said }] of Object.entries(SLIDERS)) {
    byId(name).value = String(of(now[name]));
    byId(`${name}-said`).textContent = said(now);
    byId(name).setAttribute("aria-valuetext", said(now));
  }
  byId("flip").checked = now.flip;
  byId("fill").value = now.fill;
  byId("brush-said").textContent = percent(Number(byId("brush").value));
  byId("undo").disabled = !changes.state().before.length;
  byId("reset").disabled = !app.changed.has(app.question.photo);
  byId("changed-view").disabled = !app.changed.has(app.question.photo);
};

const startSliders = (app, changes) => {
  const show = () => showControls(app, changes);
  for (const [name, { to }] of Object.entries(SLIDERS)) {
    byId(name).addEventListener("input", () => { changes.set({ [name]: to(Number(byId(name).value)) }, name); show(); });
    byId(name).addEventListener("change", () => changes.rest());
  }
  byId("flip").addEventListener("change", () => { changes.set({ flip: byId("flip").checked }, `flip ${performance.now()}`); show(); });
  byId("fill").addEventListener("change", () => { changes.set({ fill: byId("fill").value }, "fill"); show(); });
  byId("brush").addEventListener("input", show);
  byId("undo").addEventListener("click", () => { changes.undo(); show(); });
  byId("reset").addEventListener("click", () => { changes.set(UNCHANGED, `reset ${performance.now()}`); show(); });
  addEventListener("keydown", (event) => {
    const isText = /** @type {any} */ (event.target).matches?.("input[type=search], select");
    if (event.key !== "z" || event.altKey || isText) return;
    event.preventDefault();
    changes.undo();
    show();
  });
};

started.then((app) => {
  const { mostBytes } = (app?.content ?? JSON.parse(byId("content").textContent)).live;
  startFiles(app, mostBytes);
  if (app) {
    const changes = new Changes(app, fail);
    byId("seen").after(byId("change"));
    byId("change").hidden = false;
    if (app.content.models.length === 1) byId("side").prepend(byId("beforehand")); // beside the picture
    byId("view").append(make("option", { value: String(app.content.views.length), id: "changed-view" }, "as you changed it"));
    startBrush(app, changes);
    startSliders(app, changes);
    const follow = () => { showBeforehand(app); showControls(app, changes); changes.preview(); };
    app.followers.push(follow);
    follow();
  } else {
    byId("waiting").hidden = true;
    byId("welcome").hidden = false;
  }
  document.documentElement.dataset.live = "yes";
});
