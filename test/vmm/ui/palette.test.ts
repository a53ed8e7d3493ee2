// The page's colours, by its own style sheet: text stands out from what is behind it (WCAG 2.2 §1.4.3: 4.5 to 1; §1.4.11: 3 to 1 for marks), and what
// colour tells apart is told apart by people who lack one kind of cone (Machado, Oliveira and Fernandes 2009, severity 1.0).

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const css = readFileSync(new URL("../../../vmm/ui/page/style.css", import.meta.url), "utf8");

function palette(selector: string): Record<string, readonly number[]> {
  const block = css.slice(css.indexOf(selector)).split("}")[0]!;
  return Object.fromEntries(
    [...block.matchAll(/--([\w-]+): #([0-9a-f]{6});/g)].map(([, name, hex]) => [
      name!,
      [0, 2, 4].map((at) => linear(Number.parseInt(hex!.slice(at, at + 2), 16) / 255)),
    ]),
  );
}
const linear = (value: number): number => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]: readonly number[]): number => 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
function contrast(one: readonly number[], other: readonly number[]): number {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light! + 0.05) / (dark! + 0.05);
}

/** In linear RGB. */
const SEEN_BY: Readonly<Record<string, readonly (readonly number[])[]>> = {
  "without red cones": [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  "without green cones": [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.01182, 0.04294, 0.968881],
  ],
  "without blue cones": [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.3039],
  ],
};
/** CIE L*a*b* (D65). */
function lab([r, g, b]: readonly number[]): readonly number[] {
  const xyz = [
    (0.4124564 * r! + 0.3575761 * g! + 0.1804375 * b!) / 0.95047,
    0.2126729 * r! + 0.7151522 * g! + 0.072175 * b!,
    (0.0193339 * r! + 0.119192 * g! + 0.9503041 * b!) / 1.08883,
  ].map((value) => (value > 216 / 24389 ? Math.cbrt(value) : ((24389 / 27) * Math.max(0, value) + 16) / 116));
  return [116 * xyz[1]! - 16, 500 * (xyz[0]! - xyz[1]!), 200 * (xyz[1]! - xyz[2]!)];
}
const apart = (one: readonly number[], other: readonly number[]): number =>
  Math.hypot(...lab(one).map((value, n) => value - lab(other)[n]!));
const seen = (matrix: readonly (readonly number[])[], colour: readonly number[]): readonly number[] =>
  matrix.map((row) =>
    Math.min(
      1,
      Math.max(
        0,
        row.reduce((sum, part, n) => sum + part * colour[n]!, 0),
      ),
    ),
  );

const TEXTS: readonly (readonly [text: string, ...behind: string[]])[] = [
  ["ink", "page", "card", "accent-soft", "bad-soft", "good-soft", "line"],
  ["ink-2", "page", "card", "accent-soft", "bad-soft"],
  ["ink-3", "page", "card"],
  ["accent", "page", "card", "accent-soft"],
  ["bad", "page", "card", "bad-soft"],
  ["good", "card", "good-soft"],
  // Buttons that are pressed, badges: the card's colour on the accent or what failed.
  ["card", "accent", "bad"],
];

describe.each([
  ["light", ":root {"],
  ["dark", ':root[data-theme="dark"] {'],
])("in the %s theme", (_theme, selector) => {
  const colours = palette(selector);

  it.each(TEXTS.flatMap(([text, ...behind]) => behind.map((ground) => [text, ground] as const)))(
    "%s on %s can be read",
    (text, ground) => {
      expect(contrast(colours[text]!, colours[ground]!)).toBeGreaterThanOrEqual(4.5);
    },
  );

  it.each(Object.keys(SEEN_BY))("what failed is told from what did not %s", (eyes) => {
    const [bad, accent, good] = ["bad", "accent", "good"].map((name) => seen(SEEN_BY[eyes]!, colours[name]!));
    // 10 is a difference that is seen at a glance.
    expect(apart(bad!, accent!)).toBeGreaterThan(20);
    expect(apart(bad!, good!)).toBeGreaterThan(10);
    expect(contrast(colours.bad!, colours.card!)).toBeGreaterThanOrEqual(3);
  });
});
