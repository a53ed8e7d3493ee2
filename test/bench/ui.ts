// What the walk theatre costs in a real browser (Debian's chromium): its size, the time from nothing to the first verdict, a trace of a million events
// opened and stepped through. Wall time is the person's; CPU time is the whole browser's, and stays what it is on a busy machine.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { indexTrace } from "../../vmm/view/trace-index.ts";
import { CHROMIUM, settled, Theatre, writeMillion } from "../vmm/ui/browser.ts";
import { median, rounded } from "./beside/cpu-seconds.ts";

/** Benches run from dist/test/bench, after the build. */
const PAGE = fileURLToPath(new URL("../../ui", import.meta.url));
const VISITS = 5;
const STEPS = 200;
const INDEXINGS = 5;

export const about =
  "what the walk theatre costs in a browser: its size, its first verdict, a trace of a million events";

type Emit = (line: Record<string, unknown>) => void;

export async function bench(emit: Emit): Promise<void> {
  size(emit);
  const folder = mkdtempSync(join(tmpdir(), "nestbox-bench-"));
  const file = join(folder, "million.jsonl");
  try {
    writeMillion(file);
    indexing(emit, readFileSync(file));
    if (CHROMIUM === null) {
      emit({ bench: "ui-load", skipped: "there is no chromium here" });
      return;
    }
    const theatre = await Theatre.open(PAGE);
    try {
      await loading(emit, theatre);
      await million(emit, theatre, file);
    } finally {
      await theatre.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** All that a story can load: every part there is beside images and transpiler. */
function size(emit: Emit): void {
  const parts = readdirSync(PAGE)
    .filter((name) => /\.(html|js|css|svg|json)$/.test(name))
    .map((name) => readFileSync(join(PAGE, name)));
  const bytes = parts.reduce((sum, { length }) => sum + length, 0);
  emit({ bench: "ui-size", bytes, gzipBytes: parts.reduce((sum, part) => sum + gzipSync(part).length, 0) });
}

function indexing(emit: Emit, bytes: Uint8Array): void {
  const seconds: number[] = [];
  for (let i = 0; i < INDEXINGS; i++) {
    const before = process.cpuUsage();
    indexTrace(bytes);
    const { user, system } = process.cpuUsage(before);
    seconds.push((user + system) / 1e6);
  }
  emit({ bench: "ui-index-million", cpuSeconds: rounded(median(seconds)), bytes: bytes.length });
}

async function timed(theatre: Theatre, work: () => Promise<void>): Promise<{ wall: number; cpu: number }> {
  const cpu = await theatre.cpuSeconds();
  const began = performance.now();
  await work();
  return { wall: (performance.now() - began) / 1000, cpu: (await theatre.cpuSeconds()) - cpu };
}

/** From an empty cache to the first verdict, tables and caches asked. */
async function loading(emit: Emit, theatre: Theatre): Promise<void> {
  const visits: { wall: number; cpu: number }[] = [];
  for (let i = 0; i < VISITS; i++) {
    visits.push(
      await timed(theatre, async () => {
        const { page } = await theatre.visit();
        await settled(page);
      }),
    );
    await theatre.leave();
  }
  emit({
    bench: "ui-load",
    wallSeconds: rounded(median(visits.map(({ wall }) => wall))),
    cpuSeconds: rounded(median(visits.map(({ cpu }) => cpu))),
    visits: VISITS,
  });
}

async function million(emit: Emit, theatre: Theatre, file: string): Promise<void> {
  const { page } = await theatre.visit();
  await settled(page);
  const opened = await timed(theatre, async () => {
    await page.setInputFiles('input[type="file"]', file);
    await page.waitForFunction(() => document.querySelector(".events header .muted")?.textContent === "1000000");
  });
  emit({ bench: "ui-open-million", wallSeconds: rounded(opened.wall), cpuSeconds: rounded(opened.cpu) });
  await page.keyboard.press("End");
  let steps: number[] = [];
  const stepped = await timed(theatre, async () => {
    steps = await page.evaluate(async (count) => {
      const times: number[] = [];
      for (let i = 0; i < count; i++) {
        const began = performance.now();
        window.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
        // Until it has been drawn.
        await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
        times.push(performance.now() - began);
      }
      return times;
    }, STEPS);
  });
  emit({
    bench: "ui-step-million",
    wallMs: rounded(median(steps)),
    worstWallMs: rounded(Math.max(...steps)),
    cpuMs: rounded((stepped.cpu / STEPS) * 1000),
    steps: STEPS,
  });
}
