// The page: what every part of it does once it is there.
import { startCards } from "./cards.js";
import { startDialog } from "./dialog.js";
import { startTables } from "./tables.js";

/** What is wider than the window says so. */
const startWide = () => {
  const wide = document.querySelectorAll(".scroll, .sheet");
  const mark = () => wide.forEach((part) => part.classList.toggle("wide", part.scrollWidth > part.clientWidth + 1));
  addEventListener("resize", mark);
  mark();
};

/** @param {HTMLButtonElement} button */
const copy = async (button) => {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } catch { // no permission: it is selected, so that one key copies it
    getSelection().selectAllChildren(code);
  }
};

const startCopying = () => document.querySelectorAll("button.copy").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
});

startTables();
startCards();
startDialog();
startWide();
startCopying();
