/** One message of the conversation on the page, and how fast its tokens come. */

import { show } from "./text.js";

const make = (name, className, text = "") => {
    const element = document.createElement(name);
    element.className = className;
    element.textContent = text;
    return element;
};

/** A message of the reader: {role, content}, shown at the end of `list`. */
export function question(list, content) {
    const item = make("li", "user");
    item.append(make("h2", "unseen", "You"), make("p", "text", content));
    list.append(item);
    return { role: "user", content };
}

/** An answer that grows: {role, content}, shown at the end of `list`. */
export class Answer {
    role = "assistant";
    content = "";
    failed = false;
    #thoughts = "";
    #item = make("li", "assistant");
    #text = make("div", "text");
    #thinking = make("details", "thoughts");
    #facts = make("p", "facts quiet", "Waiting for the first token");
    #asked = performance.now();
    #first = 0;
    #last = 0;
    #pieces = 0;
    #usage = null;
    #cut = false;
    #ended = false;
    #drawing = 0;

    constructor(list, model) {
        this.#thinking.hidden = true;
        this.#thinking.append(make("summary", "", "Reasoning"), make("p", ""));
        this.#item.append(make("h2", "unseen", model), this.#thinking, this.#text, this.#facts);
        list.append(this.#item);
    }

    /** Take one chunk of OpenAI's stream. */
    add(chunk) {
        this.#usage = chunk.usage ?? this.#usage;
        const choice = chunk.choices?.[0];
        const thought = choice?.delta?.reasoning ?? choice?.delta?.reasoning_content ?? "";
        const piece = choice?.delta?.content ?? "";
        if (choice?.finish_reason === "length") this.#cut = true;
        if (thought || piece) {
            this.#last = performance.now();
            this.#first ||= this.#last;
            this.#pieces += 1;
            this.#thoughts += thought;
            this.content += piece;
        }
        this.#drawing ||= requestAnimationFrame(() => this.#draw());
    }

    /** Say how it ended; `note` is one more remark, such as that it was stopped. Returns the line below the answer. */
    end(note = "") {
        this.#ended = true;
        this.#draw();
        const notes = [
            note,
            this.#cut ? "cut at max tokens" : "",
            this.content || this.#thoughts ? "" : "nothing came",
        ];
        this.#facts.textContent = [...this.#speed(), ...notes.filter(Boolean)].join(", ");
        return this.#facts.textContent;
    }

    /** Show what went wrong, with a button that tries again. */
    fail(sentence, again) {
        this.failed = true;
        this.end();
        const button = make("button", "", "Try again");
        button.type = "button";
        button.addEventListener("click", again);
        const problem = make("p", "problem", `${sentence} `);
        problem.setAttribute("role", "alert");
        problem.append(button);
        if (!this.content) this.#facts.remove();
        this.#item.append(problem);
    }

    /** Take it off the page. */
    remove() {
        this.#item.remove();
    }

    #draw() {
        cancelAnimationFrame(this.#drawing);
        this.#drawing = 0;
        show(this.#text, this.content);
        this.#thinking.hidden = !this.#thoughts;
        this.#thinking.lastElementChild.textContent = this.#thoughts;
        if (this.#pieces) this.#facts.textContent = this.#speed().join(", ");
    }

    /** Tokens are the engine's count once it says one; until then, pieces: vLLM sends about one token in each. */
    #speed() {
        if (!this.#pieces) return [];
        const tokens = this.#usage?.completion_tokens ?? this.#pieces;
        const count = `${tokens} ${tokens === 1 ? "token" : "tokens"}`;
        const wait = seconds(this.#first - this.#asked);
        if (this.#last > this.#first)
            return [count, perSecond(tokens - 1, this.#last - this.#first), `first after ${wait}`];
        // One that came whole has no first token of its own: its rate is over all of the time.
        return this.#ended
            ? [count, perSecond(tokens, this.#last - this.#asked), `after ${wait}`]
            : [count, `after ${wait}`];
    }
}

function perSecond(tokens, ms) {
    const rate = (tokens * 1000) / ms;
    return `${rate < 10 ? rate.toFixed(1) : Math.round(rate).toLocaleString("en")} tokens/s`;
}

const seconds = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
