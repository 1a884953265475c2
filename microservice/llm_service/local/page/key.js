/** The key that the service asks for: in this tab's session alone, so that it is gone with the tab. */

const NAME = "berth-key";
const byId = (id) => document.getElementById(id);

/** The key, or null. */
export const key = () => sessionStorage.getItem(NAME);

/** Keep a key, or none when it is empty. */
function keep(value) {
    if (value) sessionStorage.setItem(NAME, value);
    else sessionStorage.removeItem(NAME);
    show();
}

function show() {
    byId("key-state").textContent = key() ? "A key is kept in this tab." : "No key is kept.";
    byId("key-button").textContent = key() ? "Change the key" : "Enter a key";
    byId("key-forget").hidden = !key();
}

/** Open the dialog, with a sentence about what is wrong with the key of before; "" when nothing is. */
export function askForKey(sentence) {
    byId("key-problem").hidden = !sentence;
    byId("key-problem").textContent = sentence;
    byId("key").value = "";
    if (!byId("key-dialog").open) byId("key-dialog").showModal();
    byId("key").focus();
}

/** Make the dialog work; `changed` is called with every new key, and when the key is forgotten. */
export function prepareKey(changed) {
    const dialog = byId("key-dialog");
    byId("key-button").addEventListener("click", () => askForKey(""));
    byId("key-cancel").addEventListener("click", () => dialog.close());
    byId("key-forget").addEventListener("click", () => {
        dialog.close();
        keep("");
        changed();
    });
    byId("key-form").addEventListener("submit", (event) => {
        event.preventDefault();
        const value = byId("key").value.trim();
        // It becomes a header, which holds nothing else.
        if (!/^[\x21-\x7e]+$/.test(value)) return askForKey("A key is made of printable characters without blanks.");
        dialog.close();
        keep(value);
        changed();
    });
    show();
}
