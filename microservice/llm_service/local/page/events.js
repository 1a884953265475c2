/** Server-sent events, read from the body of a reply to a POST, which EventSource cannot do. */

/**
 * The data of each event, in order. Comments are left out; bytes may be cut anywhere.
 * @param {ReadableStream<Uint8Array>} stream
 * @returns {AsyncGenerator<string>}
 */
export async function* events(stream) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    let held = "";
    let data = [];
    try {
        for (;;) {
            const { value, done } = await reader.read();
            if (done) return;
            const lines = (held + value).split(/\r?\n/);
            held = lines.pop();
            for (const line of lines) {
                if (line.startsWith("data:")) {
                    data.push(line.slice(line[5] === " " ? 6 : 5));
                } else if (line === "" && data.length) {
                    yield data.join("\n");
                    data = [];
                }
            }
        }
    } finally {
        reader.cancel().catch(() => {}); // whoever stops reading also stops the engine
    }
}
