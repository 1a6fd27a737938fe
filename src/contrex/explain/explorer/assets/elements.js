// Elements of the page, and making them.

/** @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; texts are put in as texts, so a name can never be more than that.
 * @param {string} tag @param {Record<string, any>} [attributes] @param {(Node | string)[]} children @returns {any} */
export const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

/** A bar from zero to a share of the width, to the right for positive numbers.
 * @param {number} share from -1 to 1 */
export const bar = (share) => {
  const element = make("span", { class: "bar" }), inside = make("span", { class: share < 0 ? "against" : "for" });
  inside.style.width = `${50 * Math.min(Math.abs(share), 1)}%`;
  inside.style[share < 0 ? "right" : "left"] = "50%";
  element.append(inside);
  return element;
};
