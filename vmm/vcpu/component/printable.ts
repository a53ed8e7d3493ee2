// Text out of a guest image (names, engine messages that quote them) made fit for one line of a terminal: no control characters, which
// could move the cursor or end the line, and no more than `most` characters.

export function printable(text: string, most = 300): string {
  const short = text.length > most ? `${text.slice(0, most)}…` : text;
  // C0, DEL, C1 (0x9b starts a terminal sequence), line and paragraph separators, direction overrides.
  return short.replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu, "\ufffd");
}
