// Drawing: a map over a picture, in the colours of all of contrex's pictures.
import { enlarged } from "./maps.js";

/** 511 colours from -1 to 1, the same as `ops.colour.map_rgb`.
 * @param {{stops: string[], share: number}} colours */
export const ramp = ({ stops, share }) => {
  const rgb = stops.map((stop) => [1, 3, 5].map((i) => parseInt(stop.slice(i, i + 2), 16)));
  return Array.from({ length: 511 }, (_, i) => {
    const place = (((i - 255) / 255) * share + 1) / 2 * (rgb.length - 1);
    const low = Math.min(Math.floor(place), rgb.length - 2);
    return rgb[low].map((value, channel) => value + (place - low) * (rgb[low + 1][channel] - value));
  });
};

/** The pixels of a view of a picture, as the network saw that part.
 * @param {HTMLImageElement} image @param {any} view */
export const pixelsOf = (image, view) => {
  const canvas = document.createElement("canvas");
  const width = (canvas.width = image.naturalWidth), height = (canvas.height = image.naturalHeight);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  if (view.is_flipped) pen.setTransform(-1, 0, 0, 1, width, 0);
  const [left, top] = [view.left * width, view.top * height];
  pen.drawImage(image, left, top, view.width * width, view.height * height, 0, 0, width, height);
  return pen.getImageData(0, 0, width, height);
};

/** The shares of a map's values that are seen: of the limit, without the negative ones where only those for the class are
 * asked for. @param {number} value @param {number} limit @param {boolean} isPositive */
const shareOf = (value, limit, isPositive) => {
  const share = Math.max(-1, Math.min(1, value / limit));
  return isPositive ? Math.max(share, 0) : share;
};

/** Draws a map over a picture, and returns the share of the picture that is above the threshold.
 * @param {CanvasRenderingContext2D} pen @param {ImageData} pixels
 * @param {{map: ArrayLike<number>, rows: number, columns: number, limit: number}} shown
 * @param {{opacity: number, threshold: number, isPositive: boolean}} how
 * @param {{ramp: number[][], darkest: number}} colours */
export const draw = (pen, pixels, shown, how, colours) => {
  const { width, height, data } = pixels, { opacity, threshold, isPositive } = how;
  const large = enlarged(shown.map, shown.rows, shown.columns, height, width);
  const image = pen.createImageData(width, height), out = image.data;
  let above = 0;
  for (let i = 0, at = 0; i < large.length; i++, at += 4) {
    const share = shareOf(large[i], shown.limit, isPositive), isAbove = !threshold || share >= threshold;
    above += Number(isAbove);
    const grey = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
    const light = colours.darkest + (1 - colours.darkest) * (grey / 255), colour = colours.ramp[Math.round(share * 255) + 255];
    // What is left above a threshold is the picture itself; below it there are stripes, seen without colours too.
    const stripe = 0.2 * grey + 0.8 * (((i % width) + Math.floor(i / width)) % 12 < 4 ? 200 : 235);
    for (let channel = 0; channel < 3; channel++) {
      const own = data[at + channel], over = !threshold ? light * colour[channel] : isAbove ? own : stripe;
      out[at + channel] = own + opacity * (over - own);
    }
    out[at + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
  return above / large.length;
};

/** Writes + and - on the strong cells, so that a sign is seen without its colour.
 * @param {CanvasRenderingContext2D} pen @param {any} shown @param {boolean} isPositive */
export const markSigns = (pen, shown, isPositive) => {
  const { width, height } = pen.canvas, cell = [width / shown.columns, height / shown.rows];
  const size = Math.min(...cell) * 0.3;
  if (size < 6) return;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.lineWidth = size / 6;
  pen.strokeStyle = "rgba(255, 255, 255, .75)";
  pen.fillStyle = "rgba(0, 0, 0, .75)";
  for (let i = 0; i < shown.map.length; i++) {
    const share = shareOf(shown.map[i], shown.limit, isPositive);
    if (Math.abs(share) < 0.35) continue;
    const at = [((i % shown.columns) + 0.5) * cell[0], (Math.floor(i / shown.columns) + 0.5) * cell[1]];
    pen.strokeText(share > 0 ? "+" : "−", ...at);
    pen.fillText(share > 0 ? "+" : "−", ...at);
  }
};

/** Draws the frame of a cell. @param {CanvasRenderingContext2D} pen @param {any} shown @param {number} cell */
export const markCell = (pen, shown, cell) => {
  const { width, height } = pen.canvas, size = [width / shown.columns, height / shown.rows];
  const at = [(cell % shown.columns) * size[0], Math.floor(cell / shown.columns) * size[1]];
  for (const [colour, line] of [["#000", 5], ["#ffe14d", 2.5]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = (line * width) / 400;
    pen.strokeRect(at[0] + 1, at[1] + 1, size[0] - 2, size[1] - 2);
  }
};
