// `npm run bench -- record [--pairs N]`: what a recording costs: a stock Debian boot with the drive test, with and without --record, in pairs one after the other;
// the median of the pairs' ratios of CPU time (user and system of the whole process), bytes of the recording, and those of them that are no drive's.

import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freshDisk } from "../../guest-fixtures/debian/boot-fixture.ts";
import { BOOTED_ARCHITECTURES, cachedFixture } from "../../guest-fixtures/debian/recipe.ts";
import { type Given, PAIRS } from "./beside/benchmark.ts";
import { cpuSeconds, median, rounded } from "./beside/cpu-seconds.ts";

const NESTBOX = fileURLToPath(new URL("../../../vmm/cli/nestbox.mjs", import.meta.url));

export const about = "what --record costs a stock Debian boot with the drive test, in CPU time and bytes";
export const onRequest = true;
export const options = [PAIRS];

export async function bench(emit: (line: Record<string, unknown>) => void, { pairs = 3 }: Given): Promise<void> {
  for (const architecture of BOOTED_ARCHITECTURES) {
    const fixture = cachedFixture(undefined, architecture);
    if (fixture === null) {
      emit({ bench: `record/${architecture}`, skipped: "no Debian fixture here (npm run fixture:debian)" });
      continue;
    }
    const folder = mkdtempSync(join(tmpdir(), "nestbox-bench-record-"));
    const recording = join(folder, "recording");
    const boot = (...more: string[]) => {
      const images = ["--kernel", fixture.kernel, "--initrd", fixture.initrd, "--nvme", freshDisk(folder)];
      const append = ["--append", "console=ttyS0 cryptomgr.notests quiet nestbox.script", "--wall-limit", "20m"];
      return cpuSeconds([process.execPath, NESTBOX, "boot", ...images, ...append, "--report", "json", ...more]);
    };
    const ratios: number[] = [];
    let virtual = 0;
    for (let pair = 0; pair < pairs; pair++) {
      const without = boot();
      const recorded = boot("--record", recording);
      const report = recorded.output.split("\n").findLast((line) => line.startsWith("{"));
      virtual = (JSON.parse(report!) as { readonly virtualNs: number }).virtualNs / 1e9;
      ratios.push(recorded.seconds / without.seconds);
    }
    const bytes = statSync(recording).size;
    emit({
      bench: `record/${architecture}`,
      unit: "CPU time of a boot with the drive test, with --record / without",
      ratio: rounded(median(ratios)),
      pairs,
      recordingBytes: bytes,
      bytesASecondOfGuestTime: Math.round(bytes / virtual),
      headerBytes: readFileSync(recording).readUInt32LE(14),
    });
    rmSync(folder, { recursive: true, force: true });
  }
}
