// Numbers: out of the page's data, and into words.

/** @param {string} text base64 @returns {DataView} */
const bytesOf = (text) => new DataView(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

/** @param {string} text float32, little-endian @returns {Float32Array} */
export const floats = (text) => {
  const view = bytesOf(text);
  return Float32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
};

/** @param {string} text int16, little-endian @returns {Int16Array} */
export const shorts = (text) => {
  const view = bytesOf(text);
  return Int16Array.from({ length: view.byteLength / 2 }, (_, i) => view.getInt16(2 * i, true));
};

/** The softmax over the chosen entries, zero elsewhere.
 * @param {ArrayLike<number>} logits @param {(index: number) => boolean} chosen @returns {Float64Array} */
export const softmax = (logits, chosen) => {
  const out = new Float64Array(logits.length);
  let largest = -Infinity;
  for (let i = 0; i < logits.length; i++) if (chosen(i)) largest = Math.max(largest, logits[i]);
  let total = 0;
  for (let i = 0; i < logits.length; i++) if (chosen(i)) total += out[i] = Math.exp(logits[i] - largest);
  return out.map((value) => (total ? value / total : 0));
};

/** @param {ArrayLike<number>} logits @param {(index: number) => boolean} chosen */
export const logsumexp = (logits, chosen) => {
  const some = Array.from(logits).filter((_, index) => chosen(index));
  const largest = Math.max(...some);
  return largest + Math.log(some.reduce((sum, value) => sum + Math.exp(value - largest), 0));
};

/** @param {ArrayLike<number>} values */
export const sum = (values) => Array.prototype.reduce.call(values, (total, value) => total + value, 0);

/** The quantile between the two nearest values, as numpy's.
 * @param {ArrayLike<number>} values @param {number} share */
const quantile = (values, share) => {
  const sorted = Float64Array.from(values).sort();
  const place = share * (sorted.length - 1), low = Math.floor(place);
  return sorted[low] + (place - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
};

/** The absolute value of a map that has the full colour, as in contrex's pictures.
 * @param {ArrayLike<number>} values */
export const fullColour = (values) => {
  const sizes = Float64Array.from(values, Math.abs);
  return quantile(sizes, 0.995) || Math.max(...sizes) || 1;
};

/** The cosine of two maps; 0 where one is empty.
 * @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
export const cosine = (a, b) => {
  let ab = 0, aa = 0, bb = 0;
  for (let i = 0; i < a.length; i++) { ab += a[i] * b[i]; aa += a[i] * a[i]; bb += b[i] * b[i]; }
  return aa && bb ? ab / Math.sqrt(aa * bb) : 0;
};

/** @param {number} probability */
export const percent = (probability) => {
  if (probability < 0.001) return "<0.1%";
  if (probability === 1 || (probability >= 0.1 && probability < 0.995)) return `${Math.round(100 * probability)}%`;
  return `${(100 * Math.min(probability, 0.999)).toFixed(1)}%`;
};

/** A number with its sign, to three digits. @param {number} value */
export const signed = (value) => {
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.095 ? 3 : 4;
  const text = size && size < 1e-3 ? size.toExponential(1) : size.toFixed(digits);
  return `${value < 0 ? "−" : value > 0 ? "+" : ""}${text}`;
};
