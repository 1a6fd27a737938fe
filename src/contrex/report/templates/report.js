"use strict";
(() => {
  // --- tables of methods: a button in every column head -------------------------------------------
  const cellValue = (row, column) => {
    const text = row.cells[column].dataset.value;
    return text === "" || text === "nan" ? NaN : Number(text);
  };

  const byNumber = (a, b, sign) => {
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // undefined comes last
    return sign * (a - b);
  };

  const sortRows = (table, heads, column) => {
    const head = heads[column];
    const first = head.dataset.better === "up" ? "ascending" : "descending";
    const second = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? second : first;
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => byNumber(cellValue(a, column), cellValue(b, column), sign));
    table.tBodies[0].append(...rows);
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
  };

  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sortRows(table, heads, column));
      head.append(button);
    });
  });

  // --- the gallery ---------------------------------------------------------------------------------
  const sorter = document.getElementById("sort-cards");
  const list = document.querySelector("ol.cards");

  const sortCards = () => {
    const [key, direction] = sorter.value.split(":");
    const sign = direction === "up" ? 1 : -1;
    const compare = key === "path"
      ? (a, b) => a.dataset.path.localeCompare(b.dataset.path, undefined, { numeric: true })
      : (a, b) => byNumber(Number(a.dataset[key]), Number(b.dataset[key]), sign);
    list.append(...[...list.children].sort(compare));
  };

  if (sorter) {
    sorter.closest(".sorter").hidden = false;
    sorter.addEventListener("change", sortCards);
  }

  // --- commands --------------------------------------------------------------------------------------
  const copy = async (button) => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    } catch { // no permission: select it, so that one key copies it
      getSelection().selectAllChildren(code);
    }
  };

  document.querySelectorAll("button.copy").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  });
})();
