// @ts-check
// The routes of this pack on the ComfyUI that served this page.

/**
 * Ask a route. Rejects with what is wrong.
 * @param {"open" | "pages" | "end"} name
 * @param {object} body
 * @returns {Promise<any>}
 */
export async function ask(name, body) {
  const address = new URL(`../../sweeper/${name}`, import.meta.url);
  const response = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (response.status === 404) throw new Error("ComfyUI has not loaded sweeper's extension: see its log, and restart it");
  const answer = await response.json().catch(() => ({ problem: `ComfyUI answered ${response.status}; see its log` }));
  if (!response.ok) throw new Error(answer.problem);
  return answer;
}

/**
 * The address of a page of sweeper, under the name by which the browser knows this machine here: a browser sends the
 * page's cookie within the same site only, and 127.0.0.1 and localhost are two.
 * @param {string} url
 */
export function toOwnHost(url) {
  const address = new URL(url);
  address.hostname = location.hostname;
  return address.href;
}
