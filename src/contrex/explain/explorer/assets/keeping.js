// Keeping: the question as a link, as Python, as a command, as a picture, and as a record.
import { byId, make } from "./elements.js";
import { percent, signed } from "./numbers.js";
import { short } from "./question.js";

const CELLS = 16; // rows and columns that a record keeps of a map

/** @param {string} text for a shell */
const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\"'\"'")}'`);
/** @param {string} text @param {Record<string, string>} values */
const filled = (text, values) => text.replace(/\{(photo|explainer|target|contrast)\}/g, (_, name) => values[name]);

/** Shows a text, and copies it where the browser allows that. */
const keep = async (app, title, text) => {
  byId("kept").hidden = false;
  byId("kept-title").textContent = title;
  byId("kept-text").textContent = text;
  try {
    await navigator.clipboard.writeText(text);
    byId("kept-title").textContent = `${title}, copied`;
  } catch { // no permission: it is selected, so that one key copies it
    getSelection().selectAllChildren(byId("kept-text"));
    byId("kept-title").textContent = `${title}, selected: copy it with Ctrl+C`;
  }
};

const offer = (name, address) => make("a", { href: address, download: name }).click();

/** The question as arguments: those of Python, or the words of a command. */
const asPython = (app, model) => {
  const { target, foils, kind } = app.resolved(model), { photo, share, method, view } = app.question;
  const several = foils.length > 1 ? `[[${foils.join(", ")}]]` : String(foils[0]);
  const contrast = { alone: "None", classes: several }[kind] ?? `"${kind}"`;
  const values = { photo: JSON.stringify(app.photo().path), explainer: JSON.stringify(app.content.methods[method]),
    target: String(target), contrast };
  const lines = [filled(app.content.models[model].python, values)];
  if (kind !== "alone" && share < 1) {
    lines.push(`alone = ask(${target}, None)`, `heatmap = alone.heatmap + ${share} * (why.heatmap - alone.heatmap)`);
  }
  if (view) lines.push(`# of the picture's view "${app.view().name}": the page crops and flips what the network sees`);
  return lines.join("\n");
};

const asCommand = (app, model) => {
  const { target, foils, kind } = app.resolved(model), { photo, method } = app.question;
  if (kind === "classes" && foils.length > 1) return "# the command takes one class at a time; Python takes several";
  const contrast = { alone: "none", classes: String(foils[0]) }[kind] ?? kind;
  const values = { photo: quoted(app.photo().path), explainer: quoted(app.content.methods[method]),
    target: String(target), contrast };
  return filled(app.content.models[model].command, values);
};

/** One text for all models, each under its name. */
const forEach = (app, say) => app.content.models.map((model, index) =>
  `${app.content.models.length > 1 ? `# ${model.name}\n` : ""}${say(app, index)}`).join("\n\n");

/** The means of parts of a map, at most 16 x 16, as torch's adaptive pooling takes them. */
const pooled = (map, rows, columns) => {
  const parts = (num) => Array.from({ length: Math.min(num, CELLS) }, (_, i) => {
    const most = Math.min(num, CELLS);
    return [Math.floor((i * num) / most), Math.ceil(((i + 1) * num) / most)];
  });
  return parts(rows).map(([top, bottom]) => parts(columns).map(([left, right]) => {
    let total = 0;
    for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) total += map[y * columns + x];
    return total / ((bottom - top) * (right - left));
  }));
};

const classOf = (app, model, index) => ({ index, name: app.content.names[index], probability: app.answers()[model].probabilities[index] });

/** The question and its answer, as an explanation record has them. */
const questionOf = (app, model, name) => {
  const { map, rows, columns } = app.shown[model], { target, foils, kind } = app.resolved(model);
  return {
    question: app.sentence(model), note: app.panels[model].note.textContent, target: classOf(app, model, target),
    contrast: kind === "alone" ? null : kind === "classes" ? "foils" : kind,
    foils: kind === "classes" || kind === "max" ? foils.map((foil) => classOf(app, model, foil)) : [],
    value: app.score(model),
    map: { name, shape: [rows, columns], largest: Math.max(...map.map(Math.abs)), cells: pooled(map, rows, columns) },
  };
};

/** The explanation record of a model: one that `contrex verify` computes again, where the question is one that a command
 * can ask, and else all that the page knows. */
const recordOf = (app, model) => {
  const { photo, method, view, share, kind } = app.question, base = app.photo().records[model];
  const { table, missing } = app.shown[model], isWhole = view === 0 && (share === 1 || kind === "alone");
  if (base && isWhole && !table.size && !missing) {
    const row = { ...base.explanations[method], questions: [questionOf(app, model, "map_0_0")] };
    return { ...base, explanations: [row], picture: null, maps: null };
  }
  return { kind: "PageExplanation", version: app.content.version, versions: { contrex: app.content.contrex },
    photo: { name: app.content.photos[photo] }, model: app.content.models[model].name, method: table.method,
    view: app.view().name, change: app.view().change, share, task: app.content.task, question: questionOf(app, model, "map") };
};

const saveRecords = (app) => app.content.models.forEach((model, index) => {
  const text = JSON.stringify(recordOf(app, index), null, 2);
  const several = app.content.models.length > 1 ? `-${index + 1}` : "";
  offer(`explanation-${stem(app)}${several}.json`, `data:application/json;charset=utf-8,${encodeURIComponent(text)}`);
});

const stem = (app) => app.content.photos[app.question.photo].replace(/\.\w+$/, "").replace(/[^\w-]+/g, "_");

/** The panels as one picture, with the question above and the legend below. */
const savePicture = (app) => {
  const gap = 24, { width, height } = app.pixels(), num = app.panels.length;
  const canvas = make("canvas"), pen = canvas.getContext("2d");
  Object.assign(canvas, { width: Math.max(num * (width + gap) + gap, 480), height: height + 150 });
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  const write = (text, x, y, font, most) => { pen.font = `${font} system-ui, sans-serif`; pen.fillStyle = "#1a1f26"; pen.fillText(text, x, y, most); };
  write(app.sentence(0), gap, 34, "600 20px", canvas.width - 2 * gap);
  app.panels.forEach((panel, model) => {
    const left = gap + model * (width + gap), limit = app.shown[model].limit;
    pen.drawImage(panel.canvas, left, 52);
    pen.drawImage(panel.legend, left, height + 60, width, 8);
    const low = app.question.sign === "positive" ? "0" : `${signed(-limit)} against`;
    write(`${low}  to  ${signed(limit)} for`, left, height + 86, "13px", width);
    write(`${app.content.models[model].name}: ${app.shown[model].table.method}`, left, height + 108, "600 13px", width);
    const { target, foils, kind } = app.resolved(model), told = [target, ...(kind === "alone" ? [] : foils.slice(0, 3))];
    write(told.map((index) => `${short(app.content.names[index])} ${percent(app.answers()[model].probabilities[index])}`).join(", "), left, height + 128, "13px", width);
  });
  offer(`why-${stem(app)}.png`, canvas.toDataURL("image/png"));
};

export const startKeeping = (app) => {
  byId("copy-link").addEventListener("click", () => keep(app, "Link", location.href));
  byId("copy-python").addEventListener("click", () => keep(app, "Python", forEach(app, asPython)));
  byId("copy-command").addEventListener("click", () => keep(app, "Command", forEach(app, asCommand)));
  byId("copy-link").hidden = location.protocol === "about:"; // a frame of a notebook
  byId("copy-python").hidden = !app.content.models.every((model) => model.python);
  byId("copy-command").hidden = !app.content.models.every((model) => model.command);
  byId("save-picture").addEventListener("click", () => savePicture(app));
  byId("save-record").addEventListener("click", () => saveRecords(app));
};
