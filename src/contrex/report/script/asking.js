// A picture of the gallery in the explorer's page, in a frame of its own.
import { byId, make } from "../../explain/explorer/assets/elements.js";

const SIDE = 480; // pixels that a small picture is enlarged to, as squares, so that a map over it is smooth

/** The explorer's page with marks, and what all pictures share. @returns {{page: string, content: any}} */
const explorer = () => JSON.parse(byId("explorer").textContent);

/** Whether a card has what the explorer needs. @param {HTMLElement} card */
export const canAsk = (card) => Boolean(card.dataset.asked && byId("explorer"));

/** Plain values as JSON that cannot end the element it stands in. @param {any} plain */
const asData = (plain) => JSON.stringify(plain).replace(/[<>&]/g, (letter) => `\\u00${letter.charCodeAt(0).toString(16)}`);

/** The address of a card's photograph. @param {HTMLElement} card @returns {Promise<string>} */
const addressOf = async (card) => {
  const photo = document.querySelector(card.querySelector("use").getAttribute("href"));
  const address = photo.getAttribute("href");
  if (!photo.classList.contains("pixels")) return address;
  const image = new Image();
  image.src = address;
  await image.decode();
  const times = Math.ceil(SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = make("canvas", { width: times * image.naturalWidth, height: times * image.naturalHeight });
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL();
};

/** The frame in which a picture is asked, first why it is one class.
 * @param {HTMLElement} card @param {number} target @param {(event: KeyboardEvent) => void} onKey what keys do that the
 * page does not take @returns {Promise<HTMLIFrameElement>} */
export const frameOf = async (card, target, onKey) => {
  const { page, content } = explorer(), picture = { ...JSON.parse(card.dataset.asked), image: await addressOf(card) };
  const parts = { content: asData({ ...content, start: { target, contrast: null }, photos: [picture.path] }),
    first: `<script type="application/json" id="photo-0">${asData(picture)}<\/script>` };
  const frame = make("iframe", { title: `Explorer of ${picture.path}` });
  frame.addEventListener("load", () => {
    frame.contentDocument.addEventListener("keydown", onKey);
    frame.focus();
  });
  frame.srcdoc = page.replace(/\{\{(content|first)\}\}/g, (_, name) => parts[name]);
  return frame;
};
