/** Copying text. */

const SAID_MS = 2000;

/** Make `button` copy the text of the element that `source` returns. */
export function copies(button, source) {
    const words = button.textContent;
    button.addEventListener("click", async () => {
        button.textContent = (await copy(source())) ? "Copied" : "Press Ctrl+C";
        setTimeout(() => (button.textContent = words), SAID_MS);
    });
}

/** A new button that copies the text of the element that `source` returns; `label` is its full name. */
export function copyButton(source, label) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.title = label;
    copies(button, source);
    return button;
}

async function copy(element) {
    try {
        await navigator.clipboard.writeText(element.textContent);
        return true;
    } catch {
        // Over plain HTTP from another machine there is no clipboard to write to: select it, and try the old way.
        getSelection().selectAllChildren(element);
        return document.execCommand("copy");
    }
}
