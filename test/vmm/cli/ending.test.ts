// How runs end that do not end well: hosts that cannot carry the machine, guests that never let go, and what is left behind.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Program } from "../rv64-program.ts";
import { nestbox, report } from "./command-line.ts";

let folder: string;
let drive: string;
let reboots: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-test-"));
  drive = join(folder, "drive.img");
  writeFileSync(drive, new Uint8Array(65536));
  reboots = join(folder, "reboots.image");
  writeFileSync(
    reboots,
    image((program) => program.reset(1)),
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A kernel in Linux's Image format (Documentation/arch/riscv/boot-image-header.rst): a jump, the header, the program. */
function image(write: (program: Program) => void): Uint8Array {
  const program = new Program().jump(64);
  while (program.here < 64) program.emit(0);
  write(program);
  const { bytes } = program;
  new DataView(bytes.buffer).setUint32(56, 0x05435352, true);
  return bytes;
}

function hostFile(name: string, description: object): string {
  const file = join(folder, name);
  writeFileSync(file, JSON.stringify(description));
  return file;
}

const TINY = {
  name: "tiny",
  iommus: [{ name: "i", kind: "riscv" }],
  devices: [{ model: "edu", bdf: "00:01.0", iommu: "i" }],
};

describe("a host that cannot carry the machine is one line and exit 2:", () => {
  const cases: [what: string, args: () => string[], message: RegExp][] = [
    ["guest RAM is refused", () => ["--inject", "ioctl:IOMMU_IOAS_MAP=ENOMEM"], /IOMMU_IOAS_MAP of guest RAM.*ENOMEM/],
    ["there is no IOAS", () => ["--inject", "ioctl:IOMMU_IOAS_ALLOC=ENOMEM"], /IOMMU_IOAS_ALLOC: ENOMEM/],
    [
      "it has too little memory for its IOMMU's tables",
      () => ["--host", hostFile("tiny.json", { ...TINY, memory: "16K" })],
      /tiny: memory: 16K are too little: i: probing the IOMMU failed: ENOMEM/,
    ],
    [
      "it has too little memory for a process",
      () => ["--host", hostFile("tiny.json", { ...TINY, memory: "512K" }), "--assign", "00:01.0@00:01.0"],
      /memory for invalidation commands: ENOMEM/,
    ],
    [
      "it has no IOMMU, and too little memory for a process",
      () => ["--host", hostFile("tiny.json", { name: "tiny", memory: "64K" })],
      /memory for system call arguments: ENOMEM/,
    ],
    [
      "it is to fail a call there is not",
      () => ["--inject", "ioctl:IOMMU_HWPT_ALOC@2=ENOMEM"],
      /--inject: injection "ioctl:IOMMU_HWPT_ALOC@2=ENOMEM": there is no ioctl IOMMU_HWPT_ALOC; IOMMU_HWPT_ALLOC\?/,
    ],
    [
      "it would have more memory than there is",
      () => ["--host", hostFile("huge.json", { name: "huge", memory: "4000000G" })],
      /huge: memory: \d+ bytes are more/,
    ],
  ];
  for (const [what, args, message] of cases) {
    it(what, () => {
      const result = nestbox("boot", ...args());
      expect(result.errors).toMatch(message);
      expect(result.errors.trim().split("\n")).toHaveLength(1);
      expect(result.status).toBe(2);
    });
  }
});

describe("a rule of --inject that never came to anything", () => {
  it("is said at the end", () => {
    const result = nestbox("boot", "--inject", "ioctl:VFIO_GROUP_GET_STATUS=EIO");
    expect(result.errors).toBe("nestbox: --inject ioctl:VFIO_GROUP_GET_STATUS=EIO: there was no occasion for it\n");
    expect(result.status).toBe(0);
  });
});

describe("a run that fails", () => {
  it("leaves the trace up to there", () => {
    const trace = join(folder, "refused.jsonl");
    const result = nestbox("boot", "--trace", trace, "--inject", "ioctl:VFIO_DEVICE_BIND_IOMMUFD=EBUSY");
    expect(result.status).toBe(2);
    expect(readFileSync(trace, "utf8")).toContain('"VFIO_DEVICE_BIND_IOMMUFD"');
  });

  it("leaves no lock beside a drive's file: a refused assignment", () => {
    const refused = nestbox(
      "boot",
      "--kernel",
      reboots,
      "--nvme",
      drive,
      "--inject",
      "ioctl:VFIO_DEVICE_BIND_IOMMUFD=EBUSY",
    );
    expect(refused.status).toBe(2);
    expect(existsSync(`${drive}.lock`)).toBe(false);
  });

  it("leaves no lock beside a drive's file: another drive that cannot be opened", () => {
    const devices = [drive, folder].map((file, index) => ({ model: "nvme", bdf: `00:0${index}.0`, options: { file } }));
    const result = nestbox("boot", "--host", hostFile("drives.json", { name: "drives", devices }));
    expect(result.errors).toMatch(/: cannot open|not a regular file/);
    expect(result.status).toBe(2);
    expect(existsSync(`${drive}.lock`)).toBe(false);
  });
});

if (!existsSync("/dev/full")) console.warn("SKIPPED: no /dev/full here, a trace on a full disk is not tested");

describe.runIf(existsSync("/dev/full"))("a trace that cannot be written for want of space", () => {
  it("is one line and exit 2, and the guest runs to its end", () => {
    const result = nestbox("boot", "--trace", "/dev/full", "--report", "json");
    expect(result.errors.match(/^nestbox: .*$/gm)).toEqual([expect.stringMatching(/: --trace \/dev\/full: ENOSPC/)]);
    expect(report(result)).toMatchObject({ result: "failed", detail: "the trace could not be written" });
    expect(result.status).toBe(2);
  });
});

describe("scenarios whose names differ in punctuation only", () => {
  it("have traces of their own", () => {
    const file = join(folder, "alike.scenario.ts");
    const bodies = ["a b", "a-b"].map((name) => `scenario("${name}", (t) => t.expect(true, ""))`).join(", ");
    writeFileSync(file, `import { scenario } from "nestbox";\nexport default [${bodies}];\n`);
    const result = nestbox("scenario", file, "--json", "--trace", folder);
    const traces = result.output
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { trace: string }).trace);
    expect(traces).toEqual(["a-b.trace.jsonl", "a-b-2.trace.jsonl"].map((name) => join(folder, name)));
  });
});

describe("a kernel that reboots at once, for ever", () => {
  it("ends at the wall limit with 42", () => {
    const result = nestbox("boot", "--kernel", reboots, "--memory", "4M", "--wall-limit", "1s");
    expect(result.status).toBe(42);
  });
});

describe("inspect", () => {
  it("knows no parts but the machine's: not what every object has", () => {
    expect(nestbox("inspect", "vm/constructor").status).toBe(2);
  });
});
