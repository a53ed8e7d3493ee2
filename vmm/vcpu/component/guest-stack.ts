// The guest's frames out of an engine's error: names come from the image's name section (asc --debug, clang -g or no strip), the
// offset is that of the instruction in the core module. VMM and jco frames are left out.

/** At most this many frames are kept; a stack overflow has thousands. */
const MOST_FRAMES = 32;

/** V8: "at name (wasm://wasm/hash:wasm-function[5]:0x1a2)"; others: "name@url:wasm-function[5]:0x1a2". */
const FRAME = /^\s*(?:at )?(.*?)\s*[@(]?\(?\S*wasm-function\[(\d+)\]:(0x[0-9a-f]+)\)?/;

export function guestStack(error: Error): string[] {
  const frames: string[] = [];
  for (const line of (error.stack ?? "").split("\n")) {
    const match = FRAME.exec(line);
    if (match === null) continue;
    const [, name, index, offset] = match;
    frames.push(`${name !== undefined && name !== "" ? name : `function ${index}`} (+${offset})`);
    if (frames.length === MOST_FRAMES) break;
  }
  return frames;
}
