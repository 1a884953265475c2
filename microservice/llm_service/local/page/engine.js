/** The engine's state, asked again and again: often while it loads, seldom once it is ready. */

import { Problem, readiness } from "./api.js";

const LOADING_MS = 2000; // the service asks the engine every 1.5 s
const READY_MS = 15000;

const isReady = ({ state }) => state === "ready";

/**
 * Look at the engine from now on. `show` is called with what /ready says and `since`, the moment at which it became
 * ready, or ceased to be; `locked` when a key is asked for. Returns a function that looks at once.
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
        const since = isReady(seen) === isReady(last) ? last.since : Date.now();
        last = { ...seen, since };
        show(last);
        if (seen.state === "locked") return locked();
        timer = setTimeout(look, isReady(seen) ? READY_MS : LOADING_MS);
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
        if (error.status !== 401) return { state: "away", detail: error.message, models: [] };
        return { state: "locked", detail: "The service asks for a key: enter it in the settings.", models: [] };
    }
}
