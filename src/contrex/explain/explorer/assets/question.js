// The question: what is asked of which picture, in words and in the page's address.

export const KINDS = {
  alone: "nothing: this class alone",
  classes: "the chosen classes",
  weighted: "the others, by probability",
  mean: "the mean of the others",
  max: "the strongest other",
};

/** What the page shows before anything is asked. */
export const DEFAULT = {
  photo: 0, view: 0, method: 0, target: -1, kind: "alone", foils: /** @type {number[]} */ ([]), share: 1,
  opacity: 1, threshold: 0, scale: "each", sign: "signed", sort: "file", keep: false, carried: false, marks: true,
};

const READ = {
  number: (text) => Number(text),
  boolean: (text) => text === "yes",
  string: (text) => text,
  object: (text) => text.split(" ").filter(Boolean).map(Number),
};

/** The address of a question: what differs from the default.
 * @param {typeof DEFAULT} question */
export const toAddress = (question) => {
  const words = new URLSearchParams();
  for (const [name, usual] of Object.entries(DEFAULT)) {
    const value = question[name];
    if (String(value) === String(usual)) continue;
    words.set(name, typeof value === "boolean" ? (value ? "yes" : "no") : Array.isArray(value) ? value.join(" ") : value);
  }
  return `#${words}`;
};

/** The question in an address; what makes no sense there is left out.
 * @param {string} address @param {Record<string, number>} limits how many photos, views ... there are
 * @param {any[]} choices the values that texts may have */
export const fromAddress = (address, limits, choices) => {
  const found = {};
  for (const [name, text] of new URLSearchParams(address.replace(/^#/, ""))) {
    if (!(name in DEFAULT)) continue;
    const value = READ[typeof DEFAULT[name]](text);
    const numbers = [value].flat().filter((one) => typeof one === "number");
    const whole = !["share", "opacity", "threshold"].includes(name);
    const fits = (one) => one >= 0 && (whole ? Number.isInteger(one) && one < (limits[name] ?? 1) : one <= 1);
    if (numbers.every(fits) && (typeof value !== "string" || choices.includes(value))) found[name] = value;
  }
  return found;
};

const SHORT = new Map();

/** Finds the short names of classes, "tabby" of "tabby, tabby cat", where no other class has it too; names that several
 * classes share get their numbers.
 * @param {string[]} names */
export const nameShortly = (names) => {
  const count = (all) => all.reduce((found, name) => found.set(name, (found.get(name) ?? 0) + 1), new Map());
  const full = count(names), first = count(names.map((name) => name.split(",")[0]));
  names.forEach((name, index) => { if (full.get(name) > 1) names[index] = `${name} (${index})`; });
  for (const name of names) if (first.get(name.split(",")[0]) === 1) SHORT.set(name, name.split(",")[0]);
};

/** The name of a class as it is shown. @param {string} name */
export const short = (name) => SHORT.get(name) ?? name;

/** @param {number[]} classes @param {string[]} names */
const listed = (classes, names) => {
  const told = classes.map((index) => short(names[index]));
  if (told.length > 3) told.splice(2, told.length, `${classes.length - 2} others`);
  return told.length > 1 ? `${told.slice(0, -1).join(", ")} or ${told[told.length - 1]}` : told[0];
};

/** The question in words, as parts that are told apart: [text, is a class].
 * @param {typeof DEFAULT} question @param {string[]} names @param {number[] | null} foils
 * @returns {[string, boolean][]} */
export const inWords = (question, names, foils) => {
  const target = short(names[question.target]);
  if (question.kind === "alone" || question.share === 0) return [["why ", false], [target, true], ["?", false]];
  const part = question.share < 1 ? ` (${Math.round(100 * question.share)}% of the contrast)` : "";
  const against = foils ? [listed(foils, names), true] : [{
    mean: "the mean of the others", weighted: "the others, weighted by probability",
  }[question.kind], false];
  return [["why ", false], [target, true], [" and not ", false], /** @type {[string, boolean]} */ (against), [`?${part}`, false]];
};
