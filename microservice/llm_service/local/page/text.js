/** A model's text as elements: code blocks, headings, paragraphs, `code` and **bold**. Never HTML from the model. */

import { copyButton } from "./copy.js";

const shown = new WeakMap();

/** Show `text` in `place`. What is already there and the same stays, so that a selection outlives the next token. */
export function show(place, text) {
    const before = shown.get(place) ?? [];
    const now = blocks(text);
    now.forEach((block, index) => {
        if (before[index] === block) return;
        const element = elementFor(block);
        if (place.children[index]) place.children[index].replaceWith(element);
        else place.append(element);
    });
    while (place.children.length > now.length) place.lastElementChild.remove();
    shown.set(place, now);
}

/** Split at empty lines, except within ``` fences. */
function blocks(text) {
    const found = [];
    let lines = [];
    let fenced = false;
    const flush = () => {
        if (lines.length) found.push(lines.join("\n"));
        lines = [];
    };
    for (const line of text.split("\n")) {
        const fence = line.trimStart().startsWith("```");
        if (fence && !fenced) flush();
        if (fenced || line.trim() !== "") lines.push(line);
        else flush();
        if (fence && fenced) flush();
        if (fence) fenced = !fenced;
    }
    flush();
    return found;
}

function elementFor(block) {
    if (block.trimStart().startsWith("```")) return codeBlock(block);
    const heading = /^#{1,6} (.*)$/.exec(block);
    const element = document.createElement("p");
    if (heading) element.className = "heading";
    element.append(...inline(heading ? heading[1] : block));
    return element;
}

function codeBlock(block) {
    const lines = block.split("\n").slice(1);
    if (lines.at(-1)?.trim().startsWith("```")) lines.pop();
    const code = document.createElement("pre");
    code.tabIndex = 0;
    code.textContent = lines.join("\n");
    const frame = document.createElement("div");
    frame.className = "code";
    frame.append(
        code,
        copyButton(() => code, "Copy this code"),
    );
    return frame;
}

function inline(text) {
    return text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/).map((part, index) => {
        if (index % 2 === 0) return document.createTextNode(part);
        const code = part.startsWith("`");
        const element = document.createElement(code ? "code" : "strong");
        element.textContent = code ? part.slice(1, -1) : part.slice(2, -2);
        return element;
    });
}
