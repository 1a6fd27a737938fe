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
  const filters = ["filter-wrong", "filter-class"].map((id) => document.getElementById(id)).filter(Boolean);

  const sortCards = () => {
    const [key, direction] = sorter.value.split(":");
    const sign = direction === "up" ? 1 : -1;
    const compare = key === "path"
      ? (a, b) => a.dataset.path.localeCompare(b.dataset.path, undefined, { numeric: true })
      : (a, b) => byNumber(Number(a.dataset[key]), Number(b.dataset[key]), sign);
    list.append(...[...list.children].sort(compare));
  };

  const isShown = (card) => filters.every((filter) => {
    if (filter.value === "") return true;
    if (filter.id === "filter-class") return card.dataset.label === filter.value;
    const wrong = card.dataset.wrong.split(" ").filter(Boolean);
    return filter.value === "any" ? wrong.length > 0 : wrong.includes(filter.value);
  });

  const filterCards = () => {
    const cards = [...list.children];
    cards.forEach((card) => { card.hidden = !isShown(card); });
    const num = cards.filter((card) => !card.hidden).length;
    document.getElementById("num-shown").textContent = `${num} of ${cards.length} images`;
  };

  if (sorter) {
    document.querySelectorAll(".sorter").forEach((label) => { label.hidden = false; });
    sorter.addEventListener("change", sortCards);
    filters.forEach((filter) => filter.addEventListener("change", filterCards));
    if (filters.length) filterCards(); // a browser may have kept the choices of an earlier visit
  }

  // --- enlarged pictures: a copy of the panel in a dialog, within the gallery, whose choices hold in it too ---
  const dialog = document.getElementById("enlarged");

  const enlarge = (panel) => {
    const copy = panel.cloneNode(true);
    copy.querySelectorAll("[tabindex]").forEach((part) => { part.removeAttribute("tabindex"); part.removeAttribute("role"); });
    dialog.querySelector(".panel").replaceWith(copy);
    dialog.showModal();
  };

  if (dialog) {
    document.querySelectorAll(".cards .panel").forEach((panel) => {
      const frame = panel.querySelector(".frame");
      frame.tabIndex = 0;
      frame.setAttribute("role", "button");
      frame.setAttribute("aria-label", `Enlarge: ${frame.querySelector("svg").getAttribute("aria-label")}`);
      frame.addEventListener("click", () => enlarge(panel));
      frame.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        enlarge(panel);
      });
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target.closest(".close, .frame")) dialog.close();
    });
  }

  // --- what is wider than the window says so -----------------------------------------------------------
  const wide = document.querySelectorAll(".scroll, .sheet");
  const mark = () => wide.forEach((part) => part.classList.toggle("wide", part.scrollWidth > part.clientWidth + 1));
  addEventListener("resize", mark);
  mark();

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
