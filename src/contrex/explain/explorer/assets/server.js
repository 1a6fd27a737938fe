// Asking the server that the page came from.

const TOKEN = new URLSearchParams(location.search).get("token") ?? "";

/** Which page this is: of the changes that it asks about, the server answers the newest. */
export const PAGE = Array.from(crypto.getRandomValues(new Uint32Array(3)), (part) => part.toString(36)).join("");

/** What the server answers; what it refuses is an error in plain words.
 * @param {string} path @param {Blob | string} body @returns {Promise<any>} */
export const post = async (path, body) => {
  let reply;
  try {
    const type = typeof body === "string" ? "application/json" : "application/octet-stream";
    reply = await fetch(path, { method: "POST", body, headers: { "X-Contrex-Token": TOKEN, "Content-Type": type }, credentials: "omit", redirect: "error" });
  } catch {
    throw new Error("The server does not answer. Is contrex explore --serve still running?");
  }
  const said = await reply.json().catch(() => ({ error: `The server answered ${reply.status}.` }));
  if (!reply.ok) throw new Error(said.error);
  return said;
};
