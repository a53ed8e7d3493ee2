// Sizes as people write them.

/** Bytes of "64M", "1G", "4096" or a number; NaN if it is none of these. */
export function parseSize(text: string | number): number {
  if (typeof text === "number") return text;
  const match = /^(\d+)([KMG]?)$/i.exec(text);
  if (match === null) return Number.NaN;
  return (
    Number(match[1]) * { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[match[2]!.toUpperCase() as "" | "K" | "M" | "G"]
  );
}
