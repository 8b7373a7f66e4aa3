// Requests to the server. An answer stays in the browser until the server has stored it, also over a reload.

/** @typedef {{id: string, prompts: [string, string][]}} VotePair */
/** @typedef {{pair: VotePair | null, last: string | null, own: number, pairs: number, votes: number, settled: number, comparisons: number, needed: number | null}} VoteState */
/** @typedef {{voter: string | null, experiment: string, results: string, axes: string[], pairs: number, hides_ranking: boolean}} VoteStart */
/** @typedef {{value: string, share: number, low: number, high: number, won: number, tied: number, lost: number, undecided: boolean}} RankedValue */
/** @typedef {{axis: string, votes: number, words: string[], values: RankedValue[]}} Ranking */

const UNSENT = "sweeper:unsent-vote";
const NAME = "sweeper:voter";

/** @param {number} milliseconds */
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/**
 * Send a request until the server accepts or refuses it. Throws the server's reason if it refuses.
 * @param {string} path @param {object | null} body null: a GET request
 * @param {(text: string) => void} report shows why it takes long; an empty text when it does not any more
 */
export async function send(path, body, report) {
  for (let pause = 250; ; pause = Math.min(pause * 2, 4000)) {
    let response = null;
    try {
      response = await fetch(path, body === null ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    } catch {
      report("The server does not respond. Your vote is kept here and will be sent again.");
    }
    if (response?.status === 401) location.reload(); // to the login page
    if (response !== null) {
      const value = await response.json().catch(() => ({ problem: `The server responds with status ${response.status}` }));
      report(response.ok || response.status === 400 ? "" : `${value.problem}. Your vote is kept here and will be sent again.`);
      if (response.status === 400) throw new Error(value.problem);
      if (response.ok) return value;
    }
    await wait(pause);
  }
}

/** Keep an answer until `forget`. @param {{voter: string, vote: string, answer: string}} vote */
export function keep(vote) {
  localStorage.setItem(UNSENT, JSON.stringify(vote));
}

export function forget() {
  localStorage.removeItem(UNSENT);
}

/**
 * The answer of this voter that the server may not have stored.
 * @param {string} voter @returns {{voter: string, vote: string, answer: string} | null}
 */
export function readUnsent(voter) {
  const vote = JSON.parse(localStorage.getItem(UNSENT) ?? "null");
  return vote?.voter === voter ? vote : null;
}

export const readName = () => localStorage.getItem(NAME) ?? "";

/** @param {string} name */
export function keepName(name) {
  localStorage.setItem(NAME, name);
}
