// The guest's frames out of an engine's error: names come from the image's name section (asc --debug, clang -g or no strip), the
// offset is that of the instruction in the core module. VMM and jco frames are left out. Names are the guest's to choose: they may be
// long and contain anything, so lines are taken apart without patterns that could run wild.

import { printable } from "../../../host/base/printable.ts";

/** At most this many frames are kept; a stack overflow has thousands. */
const MOST_FRAMES = 32;
const LONGEST_NAME = 120;

/** V8: "    at name (wasm://wasm/hash:wasm-function[5]:0x1a2)"; others: "name@url:wasm-function[5]:0x1a2". */
export function guestStack(error: Error): string[] {
  const frames: string[] = [];
  for (const line of (error.stack ?? "").split("\n")) {
    const at = line.lastIndexOf(":wasm-function[");
    if (at < 0) continue;
    const place = /^:wasm-function\[(\d+)\]:(0x[0-9a-f]+)/.exec(line.slice(at, at + 64));
    if (place === null) continue;
    const [, index, offset] = place;
    frames.push(`${nameIn(line.slice(0, at)) || `function ${index}`} (+${offset})`);
    if (frames.length === MOST_FRAMES) break;
  }
  return frames;
}

function nameIn(start: string): string {
  const bracket = start.lastIndexOf(" (");
  const sign = start.lastIndexOf("@");
  const end = bracket >= 0 ? bracket : sign;
  // Without a name V8 writes "at wasm://…".
  if (end < 0) return "";
  const begin = start.startsWith("    at ") ? 7 : 0;
  return printable(start.slice(begin, end), LONGEST_NAME);
}
