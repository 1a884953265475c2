/** The page: what its parts do together. */

import { chat, windows } from "./api.js";
import { copies } from "./copy.js";
import { watch } from "./engine.js";
import { askForKey, key, prepareKey } from "./key.js";
import { asCurl, asPython, bodyFor } from "./request.js";
import { Answer, question } from "./turn.js";

const byId = (id) => document.getElementById(id);
const draft = byId("draft");
const scroller = byId("scroller");
const wide = matchMedia("(min-width: 60rem)");
const touch = matchMedia("(pointer: coarse)");
const AT_THE_END_PX = 48;

let turns = []; // what was said, [{role, content}]
let running = null; // the AbortController of the answer that is being written
let engine = { state: "asking", detail: "", models: [], since: Date.now() };
let windowOf = new Map();

// The conversation

async function send() {
    const content = draft.value.trim();
    if (!content || running || engine.state !== "ready" || !settingsFit()) return;
    draft.value = "";
    grow();
    // What failed before may not be tried again: it is no longer the last.
    for (const again of byId("turns").querySelectorAll(".problem button")) again.remove();
    turns.push(question(byId("turns"), content));
    await answer();
}

async function answer() {
    const mine = turns;
    const body = bodyFor(mine);
    const reply = new Answer(byId("turns"), body.model);
    const control = (running = new AbortController());
    refresh();
    toTheEnd();
    try {
        for await (const chunk of chat(body, control.signal)) {
            const follow = atTheEnd();
            reply.add(chunk);
            if (follow) requestAnimationFrame(toTheEnd); // after the text, which is drawn in the same frame
        }
        say(`The answer is complete: ${reply.end()}.`);
    } catch (error) {
        const follow = atTheEnd();
        if (control.signal.aborted) say(`The answer was stopped: ${reply.end("stopped")}.`);
        else broken(error, reply, mine);
        if (follow) toTheEnd();
    }
    if (reply.content && turns === mine && !reply.failed) mine.push(reply);
    if (running === control) running = null;
    refresh();
}

function broken(error, reply, mine) {
    reply.fail(error.message, () => {
        if (running || engine.state !== "ready" || turns !== mine) return;
        reply.remove();
        answer();
    });
    look(); // the engine may be what is wrong
}

function newChat() {
    running?.abort();
    turns = [];
    byId("turns").replaceChildren();
    say("A new chat.");
    draft.focus();
    refresh();
}

const toTheEnd = () => (scroller.scrollTop = scroller.scrollHeight);
const atTheEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < AT_THE_END_PX;
const say = (words) => (byId("said").textContent = words);

// The engine

const NAMES = { asking: "asking", away: "no answer", locked: "key needed" };

function showEngine(seen) {
    const newly = seen.state === "ready" && engine.state !== "ready";
    engine = seen;
    byId("state").dataset.state = seen.state;
    byId("state-name").textContent = NAMES[seen.state] ?? seen.state;
    byId("detail").textContent = seen.detail;
    offerModels(seen.models);
    if (newly)
        windows()
            .then((found) => (windowOf = found))
            .then(refresh, () => {});
    refresh();
}

function offerModels(models) {
    const select = byId("model");
    const before = [...select.options].map((option) => option.value);
    if (!models.length || String(before) === String(models)) return;
    const chosen = select.value;
    select.replaceChildren(...models.map((name) => new Option(name)));
    if (models.includes(chosen)) select.value = chosen;
    byId("model-row").hidden = models.length < 2;
}

function showNotice() {
    const { state, detail, doing, since } = engine;
    byId("notice").hidden = state === "ready" || state === "asking";
    if (byId("doing").textContent !== detail) byId("doing").textContent = detail;
    const seconds = ["failed", "locked"].includes(state) ? 0 : Math.round((Date.now() - since) / 1000);
    byId("waited").textContent = seconds ? `${seconds} s so far.` : "";
    byId("share").hidden = typeof doing?.fraction !== "number";
    byId("share").value = doing?.fraction ?? 0;
}

const look = watch(showEngine, () => askForKey(key() ? "The service does not know this key." : ""));
prepareKey(() => look());
setInterval(showNotice, 1000);

// The settings and the request

function settingsFit() {
    if (byId("sampling").checkValidity()) return true;
    openPanel(true);
    byId("sampling").reportValidity();
    return false;
}

function openPanel(open) {
    byId("panel").hidden = !open;
    byId("panel-button").setAttribute("aria-expanded", String(open));
    document.body.classList.toggle("with-panel", open);
}

/** What would be sent now; with nothing typed, what was sent last. */
function current() {
    const content = draft.value.trim();
    const asked = content ? [...turns, { role: "user", content }] : turns.slice(0, turns.findLastIndex(isUser) + 1);
    return bodyFor(asked.length ? asked : [{ role: "user", content: "Hello" }]);
}

const isUser = (turn) => turn.role === "user";

function refresh() {
    const focused = document.activeElement;
    byId("send").hidden = Boolean(running);
    byId("stop").hidden = !running;
    if (focused === byId("send") && running) byId("stop").focus();
    if (focused === byId("stop") && !running && !touch.matches) draft.focus(); // there it would open the keyboard
    byId("send").disabled = engine.state !== "ready" || !draft.value.trim();
    byId("empty").hidden = byId("turns").children.length > 0;
    const model = byId("model").value;
    byId("model-name").textContent = model;
    const tokens = windowOf.get(model);
    byId("window").textContent =
        model && `${model}${tokens ? `, ${tokens.toLocaleString("en")} tokens of context` : ""}`;
    const write = byId("as-curl").checked ? asCurl : asPython;
    byId("request").textContent = write(current(), Boolean(key()));
    showNotice();
}

function grow() {
    draft.style.height = "auto";
    draft.style.height = `${draft.scrollHeight}px`;
}

// Keys and buttons

draft.addEventListener("keydown", (event) => {
    // While an input method composes a word, Enter belongs to it; on a phone the key is the only way to a new line.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || touch.matches) return;
    event.preventDefault();
    send();
});
draft.addEventListener("input", grow);
document.addEventListener("input", refresh);
document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || byId("key-dialog").open) return;
    if (running) running.abort();
    else if (!wide.matches && !byId("panel").hidden) {
        openPanel(false);
        byId("panel-button").focus();
    }
});
byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
});
byId("sampling").addEventListener("submit", (event) => event.preventDefault());
byId("stop").addEventListener("click", () => running?.abort());
byId("new-chat").addEventListener("click", newChat);
byId("panel-button").addEventListener("click", () => {
    openPanel(byId("panel").hidden);
    if (!byId("panel").hidden) byId("panel").focus();
});
wide.addEventListener("change", () => openPanel(wide.matches));
copies(byId("copy"), () => byId("request"));
openPanel(wide.matches);
refresh();
