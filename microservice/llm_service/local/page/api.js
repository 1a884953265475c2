/** What this page asks the service, and what it says when that fails. */

import { events } from "./events.js";
import { key } from "./key.js";

/** A failure that the reader is told of in one sentence. */
export class Problem extends Error {
    /** @param {string} sentence @param {number} status of the reply; 0 when there was none */
    constructor(sentence, status = 0) {
        super(sentence);
        this.status = status;
    }
}

const address = (path) => new URL(path, document.baseURI);

/**
 * Ask for a path below this page. Throws Problem when nothing answers; an AbortError when `signal` says so.
 * @returns {Promise<Response>}
 */
async function ask(path, options = {}) {
    const headers = { ...options.headers };
    if (key()) headers.Authorization = `Bearer ${key()}`;
    try {
        return await fetch(address(path), { ...options, headers, cache: "no-store", credentials: "omit" });
    } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Problem("The service does not answer.");
    }
}

/**
 * What /ready says: {state, detail, models}, and {doing} while the engine loads.
 * Throws Problem; its status is 401 without a key.
 */
export async function readiness() {
    const response = await ask("ready");
    if (response.status !== 200 && response.status !== 503) throw await problem(response);
    const said = await response.json().catch(() => null);
    if (!said?.state) throw new Problem("What answers here is not the service.", response.status);
    return said;
}

/** How many tokens each model's context holds, by name. Empty when the engine does not say. */
export async function windows() {
    const response = await ask("v1/models");
    if (!response.ok) throw await problem(response);
    const { data } = await response.json();
    return new Map(data.map((model) => [model.id, model.max_model_len]));
}

/**
 * The chunks of an answer, in the shape of OpenAI's stream; one chunk when the answer comes whole.
 * Throws Problem; an AbortError when `signal` says so.
 */
export async function* chat(body, signal) {
    const options = {
        method: "POST",
        body: JSON.stringify(body),
        headers: { "Content-Type": "application/json" },
        signal,
    };
    const response = await ask("v1/chat/completions", options);
    if (!response.ok) throw await problem(response);
    try {
        if (!body.stream) {
            const whole = await response.json();
            yield { ...whole, choices: whole.choices.map((choice) => ({ ...choice, delta: choice.message })) };
            return;
        }
        for await (const data of events(response.body)) {
            if (data === "[DONE]") return;
            const chunk = JSON.parse(data);
            if (chunk.error) throw new Problem(chunk.error.message, chunk.error.code);
            yield chunk;
        }
    } catch (error) {
        if (error instanceof Problem || error.name === "AbortError") throw error;
        throw new Problem("The answer could not be read to its end.");
    }
    // A stream that only ends is not complete: the service ends each one with [DONE] or with an error.
    throw new Problem("The answer broke off.");
}

async function problem(response) {
    const said = await response.json().catch(() => null);
    const sentence = said?.error?.message ?? said?.detail ?? `The service answered with status ${response.status}.`;
    const seconds = Number(response.headers.get("Retry-After"));
    return new Problem(seconds > 0 ? `${sentence} Try again in ${seconds} s.` : String(sentence), response.status);
}
