// The command line of `npm run bench`: what it does not know is refused before anything is timed.

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const MAIN = fileURLToPath(new URL("../../dist/test/bench/main.js", import.meta.url));

function bench(...words: string[]) {
  return spawnSync(process.execPath, [MAIN, ...words], { encoding: "utf8" });
}

it("bench --help names every benchmark and times none", () => {
  const { status, stdout } = bench("--help");
  expect(status).toBe(0);
  expect(stdout).toMatch(/^Usage: npm run bench/);
  expect(stdout).toMatch(/^ {2}kinds +what a guest driver waits for/m);
  expect(stdout).not.toContain("nsPerOp");
});

it.each([
  [["--nonsense"], /unknown option '--nonsense'/],
  [["nonsense"], /'nonsense' is invalid/],
  [["kinds", "--short"], /--short is no option of kinds/],
  [["debian", "--work=UNKNOWN"], /There is no work "UNKNOWN"/],
  [["qemu", "--work=iotinval,nonsense"], /There is no work "nonsense"; there are iotinval, /],
  [["debian", "--pairs=none"], /whole number/],
])("bench %j is refused in a line", (words, message) => {
  const { status, stdout, stderr } = bench(...words);
  expect(status).toBe(2);
  expect(stdout).toBe("");
  expect(stderr).toMatch(message);
  expect(stderr.trim().split("\n")).toHaveLength(1);
});
