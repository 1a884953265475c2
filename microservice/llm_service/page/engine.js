/** The engine's state, asked again and again: often while it loads, seldom once it is ready. */

import { Problem, readiness } from "./api.js";

const LOADING_MS = 2000; // the service asks the engine every 1.5 s
const READY_MS = 15000;

/**
 * Look at the engine from now on. `show` is called with {state, detail, models, since} after each look, where `since`
 * is when this state was first seen; `locked` with true or false when a key is asked for: whether one was shown.
 * Returns a function that looks at once.
 */
export function watch(show, locked) {
    let timer;
    let looks = 0;
    let last = { state: "asking", since: Date.now() };

    async function look() {
        clearTimeout(timer);
        const mine = ++looks;
        const seen = await state();
        if (mine !== looks) return; // a newer look is under way
        const since = seen.state === last.state ? last.since : Date.now();
        last = { ...seen, since };
        show(last);
        if (seen.state === "locked") return locked();
        timer = setTimeout(look, seen.state === "ready" ? READY_MS : LOADING_MS);
    }

    document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
    look();
    return look;
}

async function state() {
    try {
        return await readiness();
    } catch (error) {
        if (!(error instanceof Problem)) throw error;
        return { state: error.status === 401 ? "locked" : "away", detail: error.message, models: [] };
    }
}
