// What is printed for a person: on a terminal, lines broken between words at its width, colours, and one line that says how far a long
// run has come. Into a file or a pipe everything goes as it is, a line a fact.

import pc from "picocolors";

/** Columns of a terminal that does not say how many it has. */
const USUAL_WIDTH = 80;
/** ms between two updates of a progress line. */
const PROGRESS_INTERVAL = 100;

const terminalColours = (stream: NodeJS.WriteStream) =>
  pc.createColors(stream.isTTY === true && process.env.NO_COLOR === undefined && process.env.TERM !== "dumb");

/** For standard output: functions that leave a text as it is where that is no terminal. */
export const colours = terminalColours(process.stdout);

/** Columns of the terminal; Infinity where there is none. */
export function widthOf(stream: NodeJS.WriteStream): number {
  return stream.isTTY === true ? stream.columns || USUAL_WIDTH : Number.POSITIVE_INFINITY;
}

/** The text with lines longer than the terminal broken between words, the rest of each indented by `hanging` more columns. */
export function fitted(text: string, hanging = 4, stream: NodeJS.WriteStream = process.stdout): string {
  const width = widthOf(stream);
  if (width === Number.POSITIVE_INFINITY) return text;
  return text
    .split("\n")
    .map((line) => wrapLine(line, width, hanging))
    .join("\n");
}

/** Breaks at spaces only: a word longer than the line stays whole. */
export function wrapLine(line: string, width: number, hanging: number): string {
  if (shownLength(line) <= width) return line;
  const indent = /^ */.exec(line)![0].length + hanging;
  const lines: string[] = [];
  let open = "";
  let isEmpty = true;
  for (const word of line.split(/(?<=\S) /)) {
    const longer = isEmpty ? open + word : `${open} ${word}`;
    if (!isEmpty && shownLength(longer) > width) {
      lines.push(open);
      open = " ".repeat(indent) + word;
    } else {
      open = longer;
    }
    isEmpty = false;
  }
  return [...lines, open].join("\n");
}

/** Columns a text takes, without its colours. */
function shownLength(text: string): number {
  let length = 0;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
  for (const _character of text.replace(/\u001b\[[0-9;]*m/g, "")) length++;
  return length;
}

/**
 * A line on standard error that is written over and over while something takes long; nothing where standard error is no terminal. Whoever
 * prints something else clears it first.
 */
export class Progress {
  readonly #stream = process.stderr;
  readonly #shown = this.#stream.isTTY === true && process.env.TERM !== "dumb";
  #length = 0;
  #last = Number.NEGATIVE_INFINITY;

  show(text: string): void {
    if (!this.#shown) return;
    const now = performance.now();
    if (now - this.#last < PROGRESS_INTERVAL) return;
    this.#last = now;
    const line = text.slice(0, widthOf(this.#stream) - 1);
    this.#stream.write(`\r${line.padEnd(this.#length)}`);
    this.#length = line.length;
  }

  clear(): void {
    if (this.#length === 0) return;
    this.#stream.write(`\r${" ".repeat(this.#length)}\r`);
    this.#length = 0;
    this.#last = Number.NEGATIVE_INFINITY;
  }
}
