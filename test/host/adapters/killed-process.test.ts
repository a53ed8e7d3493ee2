import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BlockFile } from "../../../host/adapters/block-file.ts";

const BLOCKS = 200_000;

let directory: string;
let program: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "killed-process-"));
  program = join(directory, "child.mjs");
  await build({
    entryPoints: [fileURLToPath(new URL("flushing-child.ts", import.meta.url))],
    outfile: program,
    bundle: true,
    platform: "node",
    format: "esm",
    logLevel: "error",
  });
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Runs the child on `path`, kills it after `lines` acknowledgements, and gives the last block it acknowledged. */
function runAndKill(path: string, lines: number): Promise<number> {
  const child = spawn(process.execPath, [program, path], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString();
    if (output.split("\n").length > lines) child.kill("SIGKILL");
  });
  return new Promise((resolve, reject) => {
    child.on("close", (_, signal) => {
      const acknowledged = output.slice(0, output.lastIndexOf("\n")).split("\n");
      if (signal === "SIGKILL") resolve(Number(acknowledged.at(-1)));
      else reject(new Error("the child ended by itself"));
    });
  });
}

describe("an NVMe drive on a file, in a process that is killed", () => {
  it.each([20, 300])("loses no acknowledged flush, and its lock is taken over, after %i flushes", async (lines) => {
    const path = join(directory, `disk-${lines}.img`);
    writeFileSync(path, new Uint8Array(BLOCKS * 512));
    const last = await runAndKill(path, lines);
    expect(last).toBeGreaterThanOrEqual(lines - 1);
    const store = new BlockFile({ path, onProblem: (message) => expect.unreachable(message) });
    expect(readFileSync(`${path}.lock`, "utf8")).toContain(` ${process.pid} `);
    const block = new Uint8Array(512);
    const view = new DataView(block.buffer);
    for (let i = 0; i <= last; i++) {
      store.read(i, 1, block, 0);
      expect([view.getUint32(0, true), view.getUint32(508, true)]).toEqual([i, ~i >>> 0]);
    }
    store[Symbol.dispose]();
  });
});
