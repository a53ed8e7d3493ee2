// Text from outside (names in a guest image, an engine's message that quotes them, a trace or a result file) made fit for one line of a
// terminal: no control characters, which could move the cursor or end the line, nothing that turns the writing direction.

/** C0, DEL, C1 (0x9b starts a terminal sequence), line and paragraph separators, direction overrides and isolates. */
const UNPRINTABLE = /[\p{Cc}\u2028-\u202e\u2066-\u2069]/u;
const EVERY_UNPRINTABLE = new RegExp(UNPRINTABLE, "gu");

/** Whether a text can be shown as it is. */
export function isPrintable(text: string): boolean {
  return !UNPRINTABLE.test(text);
}

/** The text without what cannot be shown, cut off after `most` characters. */
export function printable(text: string, most = Number.POSITIVE_INFINITY): string {
  const short = text.length > most ? `${text.slice(0, most)}…` : text;
  return short.replace(EVERY_UNPRINTABLE, "\ufffd");
}
