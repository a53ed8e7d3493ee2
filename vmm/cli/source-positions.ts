// Positions in the user's own source for the stacks of a bundle: an engine's stack names lines of the bundle, its source map says where
// they came from. Frames of anything else (nestbox, Node, packages) are left out.

import { SourceMap } from "node:module";
import { isAbsolute, relative, resolve } from "node:path";

/** "file:line:column", the file as seen from the working directory. */
export interface SourceFrame {
  readonly position: string;
  readonly file: string;
  readonly line: number;
  /** Function, "" at the top level. */
  readonly name: string;
}

/** Frames looked at: a stack is somebody else's text. */
const MOST_LINES = 200;

export class SourcePositions {
  readonly #map: SourceMap;
  readonly #url: string;
  readonly #folder: string;

  /** `map`: source map of the bundle at `url`, its sources relative to `folder`. */
  constructor(map: string, url: string, folder: string) {
    this.#map = new SourceMap(JSON.parse(map) as ConstructorParameters<typeof SourceMap>[0]);
    this.#url = url;
    this.#folder = folder;
  }

  /** The frames of a stack that lie in the user's source, innermost first. */
  frames(stack: string): SourceFrame[] {
    const frames: SourceFrame[] = [];
    for (const text of stack.split("\n", MOST_LINES)) {
      const at = text.indexOf(this.#url);
      if (at < 0) continue;
      const place = /^:(\d{1,9}):(\d{1,9})/.exec(text.slice(at + this.#url.length));
      if (place === null) continue;
      const entry = this.#map.findEntry(Number(place[1]) - 1, Number(place[2]) - 1);
      if (!("originalSource" in entry) || entry.originalSource === undefined) continue;
      const file = shownPath(resolve(this.#folder, entry.originalSource));
      const [line, column] = [entry.originalLine + 1, entry.originalColumn + 1];
      const name = /^\s*at (?:async )?(?:new )?([\w$.<>]+) \(/.exec(text)?.[1] ?? "";
      frames.push({ position: `${file}:${line}:${column}`, file, line, name });
    }
    return frames;
  }
}

/** Below the working directory relative to it, otherwise absolute. */
function shownPath(path: string): string {
  const seen = relative(process.cwd(), path);
  return seen.startsWith("..") || isAbsolute(seen) ? path : seen;
}
