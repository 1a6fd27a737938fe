// The gallery's cards: their order, and which are shown.
import { byId } from "../../explain/explorer/assets/elements.js";
import { byNumber } from "./tables.js";

/** Sorts the cards by what is chosen, as "name of the data:direction". @param {HTMLElement} list */
const sortCards = (list) => {
  const [key, direction] = byId("sort-cards").value.split(":"), sign = direction === "up" ? 1 : -1;
  const compare = key === "path"
    ? (a, b) => a.dataset.path.localeCompare(b.dataset.path, undefined, { numeric: true })
    : (a, b) => byNumber(Number(a.dataset[key]), Number(b.dataset[key]), sign);
  list.append(...[...list.children].sort(compare));
};

/** Whether a card is what a filter asks for. @param {HTMLElement} card @param {HTMLSelectElement} filter */
const fits = (card, filter) => {
  if (filter.value === "") return true;
  if (filter.id === "filter-class") return card.dataset.label === filter.value;
  const wrong = card.dataset.wrong.split(" ").filter(Boolean);
  return filter.value === "any" ? wrong.length > 0 : wrong.includes(filter.value);
};

const filterCards = (list, filters) => {
  const cards = [...list.children];
  cards.forEach((card) => { card.hidden = !filters.every((filter) => fits(card, filter)); });
  const num = cards.filter((card) => !card.hidden).length;
  byId("num-shown").textContent = num ? `${num} of ${cards.length} images` : `None of ${cards.length} images is both: choose "all" in one of the lists.`;
};

export const startCards = () => {
  const list = document.querySelector("ol.cards");
  if (!list) return;
  const filters = ["filter-wrong", "filter-class"].map(byId).filter(Boolean);
  document.querySelectorAll(".sorter").forEach((label) => { label.hidden = false; });
  byId("sort-cards").addEventListener("change", () => sortCards(list));
  filters.forEach((filter) => filter.addEventListener("change", () => filterCards(list, filters)));
  sortCards(list); // a browser may have kept the choices of an earlier visit
  if (filters.length) filterCards(list, filters);
};
