// Enlarged pictures, in a dialog within the gallery, whose choices hold in it too.
import { byId, make } from "../../explain/explorer/assets/elements.js";
import { canAsk, frameOf } from "./asking.js";

const ASKED = "Click a class: why this one? Another: why not that one? The network sees the whole picture here; " +
  "what the cards say it predicts, it predicts of the central square.";

/** The cards that are shown, in their order. @returns {HTMLElement[]} */
const shownCards = () => [...document.querySelectorAll(".card:not([hidden])")];

/** A copy of a panel, without what it does when it is clicked. @param {HTMLElement} panel */
const copied = (panel) => {
  const copy = /** @type {HTMLElement} */ (panel.cloneNode(true));
  copy.querySelectorAll("[tabindex]").forEach((part) => ["tabindex", "role", "aria-label"].forEach((name) => part.removeAttribute(name)));
  return copy;
};

/** Shows a panel of a card: in the explorer where the records have what it needs, or else as it is, larger.
 * @param {HTMLElement} card @param {HTMLElement} panel */
const enlarge = async (card, panel) => {
  const dialog = byId("enlarged"), asks = canAsk(card), cards = shownCards(), place = cards.indexOf(card);
  const go = (step) => { if (step && cards[place + step]) enlarge(cards[place + step], cards[place + step].querySelector(".panel")); };
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input[type=search], select")) return;
    if (event.key === "Escape" && !event.defaultPrevented) dialog.close();
    go({ j: 1, k: -1 }[event.key] ?? 0); // the page in the frame has one picture, so the next one is here
  };
  const target = Number(panel.dataset.target ?? card.querySelector("[data-target]").dataset.target);
  const large = asks ? await frameOf(card, target, onKey) : copied(panel);
  byId("enlarged-title").replaceChildren(...[...card.querySelector("h3").childNodes].map((part) => part.cloneNode(true)));
  byId("enlarged-note").textContent = asks ? ASKED : "";
  dialog.classList.toggle("asks", asks);
  dialog.querySelector(".shown-large").replaceChildren(large);
  dialog.querySelectorAll(".step").forEach((button) => {
    const step = Number(button.dataset.step);
    button.disabled = !cards[place + step];
    button.onclick = () => go(step);
  });
  if (!dialog.open) dialog.showModal();
};

/** A picture that can be enlarged, by a click or by a key. @param {HTMLElement} panel */
const startPanel = (panel) => {
  const frame = panel.querySelector(".frame"), card = panel.closest(".card");
  const words = canAsk(card) ? "Enlarge and ask" : "Enlarge";
  frame.tabIndex = 0;
  frame.setAttribute("role", "button");
  frame.setAttribute("aria-label", `${words}: ${frame.querySelector("svg").getAttribute("aria-label")}`);
  frame.addEventListener("click", () => enlarge(card, panel));
  frame.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    enlarge(card, panel);
  });
};

export const startDialog = () => {
  const dialog = byId("enlarged");
  if (!dialog) return;
  document.querySelectorAll(".cards .panel").forEach(startPanel);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest(".close, .frame")) dialog.close();
  });
  dialog.addEventListener("close", () => dialog.querySelector(".shown-large").replaceChildren());
};
