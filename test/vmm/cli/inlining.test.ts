import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { INLINING } from "../../../vmm/cli/inlining.ts";

// Of a flag that it does not know V8 tells the person at the terminal, in the middle of a guest's output.
describe("what V8 is asked for while a guest runs", () => {
  const known = execFileSync(process.execPath, ["--v8-options"], { encoding: "utf8" });

  it.each(Object.entries(INLINING))("--%s is a flag of its, and less by default", (flag, bytes) => {
    const usual = new RegExp(`^ +--${flag} \\(.*\\n.*default: --${flag}=(\\d+)$`, "m").exec(known)?.[1];
    expect(Number(usual)).toBeLessThan(bytes);
  });
});
