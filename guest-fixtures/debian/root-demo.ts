// `npm run demo:debian -- --arch arm64 --root`: Debian's minimal system on the assigned drive. First, once, the guest unpacks and configures it there (the image is
// kept in the cache); then it is booted under systemd to its login prompt, logged in to on the console, asked what it stands on, and powered off.

import { copyFileSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { bootFixture, type FixtureRun, freshDisk } from "./boot-fixture.ts";
import { DRIVE } from "./corrupted-entry.ts";
import { nestingReport } from "./nesting-report.ts";
import { type BootedArchitecture, type DebianFixture, debianFixture } from "./recipe.ts";
import { type RootArchive, rootArchive } from "./root-archive.ts";

const DISK_BYTES = 2 ** 30;
const MEMORY = "1G";
/** Long enough for a machine that others use as well. */
const LIMIT = ["--wall-limit", "60m"];

export interface RootRun {
  /** Whole seconds of wall time to the login prompt, of the guest's clock where its kernel started init, and of the whole run. */
  readonly loginSeconds: number;
  readonly run: FixtureRun;
  /** What the shell answered, by question. */
  readonly answers: ReadonlyMap<string, string>;
  readonly dmas: number;
  readonly nested: number;
}

/** The installed image, made by the guest itself if the cache has none of this archive. Throws MissingHere as the recipes do. */
function installedDisk(fixture: DebianFixture, root: RootArchive, log: (line: string) => void): Promise<string> {
  const folder = dirname(root.archive);
  const disk = join(folder, "disk.img");
  const stamp = join(folder, "disk.json");
  const id = readFileSync(join(folder, "root.json"), "utf8");
  if (existsSync(disk) && existsSync(stamp) && readFileSync(stamp, "utf8") === id) return Promise.resolve(disk);
  return install(fixture, root, log).then((made) => {
    renameSync(made, disk);
    writeFileSync(stamp, id);
    return disk;
  });
}

async function install(fixture: DebianFixture, root: RootArchive, log: (line: string) => void): Promise<string> {
  log(`${root.packages} packages are unpacked and configured by the guest, once: some minutes`);
  const made = freshDisk(dirname(root.archive), DISK_BYTES);
  const more = ["--nvme", root.archive, ...LIMIT];
  const run = await bootFixture({
    fixture,
    words: "quiet nestbox.install",
    memory: MEMORY,
    disk: made,
    more,
    echo: true,
  });
  if (run.status !== 0 || !run.lines.some(({ text }) => text === "nestbox-root: done")) {
    throw new Error(`the guest did not install its root (exit status ${run.status})`);
  }
  return made;
}

const QUESTIONS: ReadonlyMap<string, string> = new Map([
  ["system", "systemctl is-system-running --wait"],
  ["failed units", "systemctl --failed --plain --no-legend | wc -l"],
  ["root", "findmnt -no SOURCE,FSTYPE /"],
  ["iommu group", "cat /sys/class/nvme/nvme0/device/iommu_group/type"],
  ["packages", "dpkg-query -W | wc -l"],
  ["package database", "dpkg --audit | wc -l"],
]);

/** Installs if need be, boots, logs in, asks, powers off. */
export async function bootRoot(
  architecture: BootedArchitecture,
  cpus: string,
  log: (line: string) => void,
): Promise<RootRun> {
  const fixture = debianFixture({ architecture, log });
  const installed = await installedDisk(fixture, rootArchive(architecture, log), log);
  const folder = mkdtempSync(join(tmpdir(), "nestbox-root-"));
  try {
    const disk = join(folder, "disk.img");
    copyFileSync(installed, disk);
    const trace = join(folder, "trace.jsonl");
    const answers = new Map<string, string>();
    const started = performance.now();
    let loginSeconds = Number.NaN;
    let seen = "";
    let loggedIn = false;
    const watch = (chunk: string, type: (text: string) => void): void => {
      seen = (seen + chunk).slice(-16384);
      if (Number.isNaN(loginSeconds) && / login: $/.test(seen)) {
        loginSeconds = (performance.now() - started) / 1000;
        type("root\n");
      } else if (!loggedIn && /root@\S+# $/.test(seen)) {
        loggedIn = true;
        // one line: what is typed while the shell is busy is echoed in between
        const asked = [...QUESTIONS].map(([name, command]) => `echo "answer ${name}: $(${command})"`);
        type(`stty -echo; ${asked.join("; ")}; systemctl poweroff\n`);
      }
    };
    const more = ["--trace", trace, ...LIMIT];
    const run = await bootFixture({
      fixture,
      words: "nestbox.root",
      cpus,
      memory: MEMORY,
      disk,
      more,
      echo: true,
      watch,
    });
    for (const { text } of run.lines) {
      const [, name, answer] = /(?<!")answer ([^:]+): (.*)$/.exec(text) ?? [];
      if (name !== undefined) answers.set(name, answer!);
    }
    const { dmas, refused, beforeNesting } = await nestingReport(trace, DRIVE.host, DRIVE.guestId);
    return { loginSeconds, run, answers, dmas, nested: dmas - refused - beforeNesting };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What is wrong with a run; empty: nothing. */
export function rootProblems({ run, answers, dmas, nested, loginSeconds }: RootRun): string[] {
  const wanted: readonly (readonly [string, RegExp])[] = [
    ["system", /^running$/],
    ["failed units", /^0$/],
    ["root", /^\/dev\/nvme0n1 +ext4$/],
    ["iommu group", /^DMA$/],
    ["packages", /^[1-9]\d+$/],
    ["package database", /^0$/],
  ];
  return [
    ...(Number.isNaN(loginSeconds) ? ["there was no login prompt"] : []),
    ...(run.status === 0 ? [] : [`it ended with exit status ${run.status}`]),
    ...wanted.flatMap(([name, pattern]) => {
      const answer = answers.get(name);
      return answer !== undefined && pattern.test(answer) ? [] : [`${name}: ${answer ?? "no answer"}`];
    }),
    ...(dmas > 0 && nested === dmas ? [] : [`${nested} of ${dmas} DMAs were nested`]),
  ];
}
