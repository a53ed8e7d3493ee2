// What a fuzzer is. Fuzzers stand in test/fuzz, beside the oracles and machines they use; the build bundles each into dist/fuzz, which is
// where `nestbox fuzz` finds them, in the project as in the package.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { packageFile } from "../../host/adapters/package-root.ts";

/** Adds to a counter that the summary shows: what one round compared, ran or skipped. */
export type Count = (what: string, by: number) => void;

export interface Finding {
  /** What went wrong; the first line says it all, a stack or a description may follow. */
  readonly problem: string;
  /** A test that reproduces it, for `--found`. */
  readonly test?: { readonly file: string; readonly text: string };
}

/** A module in test/fuzz exports one as `fuzzer`. */
export interface Fuzzer {
  /** One line: what is driven with what, and what must hold. */
  readonly about: string;
  /**
   * Runs one seed (a whole number below 2^32); null if nothing was found. The same seed does the same, whatever ran before. What it throws is a
   * finding, too.
   */
  readonly round: (seed: number, count: Count) => Finding | null | Promise<Finding | null>;
}

const FOLDER = pathToFileURL(packageFile("dist/fuzz/"));

/** All fuzzers by name, with what each is about. */
export function knownFuzzers(): ReadonlyMap<string, string> {
  const about = JSON.parse(readFileSync(new URL("index.json", FOLDER), "utf8")) as Record<string, string>;
  return new Map(Object.entries(about));
}

/** `name`: one of knownFuzzers(). */
export async function loadFuzzer(name: string): Promise<Fuzzer> {
  return ((await import(new URL(`${name}.js`, FOLDER).href)) as { fuzzer: Fuzzer }).fuzzer;
}
