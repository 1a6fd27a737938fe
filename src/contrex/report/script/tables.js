// Tables of methods: a button in every column head sorts the rows.
import { make } from "../../explain/explorer/assets/elements.js";

/** Compares two numbers; those that are undefined come last in either direction.
 * @param {number} a @param {number} b @param {1 | -1} sign */
export const byNumber = (a, b, sign) => {
  if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
  return sign * (a - b);
};

/** @param {HTMLTableRowElement} row @param {number} column */
const cellValue = (row, column) => {
  const text = row.cells[column].dataset.value;
  return text === "" || text === "nan" ? NaN : Number(text);
};

/** Sorts by a column, first with the best on top, and the other way round when asked again.
 * @param {HTMLTableElement} table @param {HTMLTableCellElement[]} heads @param {number} column */
const sortRows = (table, heads, column) => {
  const head = heads[column];
  const first = head.dataset.better === "up" ? "ascending" : "descending";
  const second = first === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? second : first;
  const sign = order === "ascending" ? 1 : -1, body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => byNumber(cellValue(a, column), cellValue(b, column), sign)));
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
};

export const startTables = () => document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.append(make("button", { type: "button", class: "sort", onclick: () => sortRows(table, heads, column) }, ...head.childNodes));
  });
});
