// `nestbox boot` as a user meets it: what it prints, its exit statuses, its errors.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fixture, nestbox, report } from "./command-line.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-test-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("nestbox boot of the default guest", () => {
  it("passes and reports nested domains, faults, and guest ids unlike the host's", () => {
    const result = nestbox("boot", "--report", "json");
    expect(result.errors).toMatch(/^platform: .*\n(?:[a-z]+: .*\n)+done: all steps hold\n$/);
    expect(result.status).toBe(0);
    const summary = report(result);
    expect(summary.result).toBe("pass");
    expect(summary.nestedDomains).toBeGreaterThanOrEqual(1);
    expect(summary.faults).toBeGreaterThanOrEqual(1);
    const ids = summary.ids as { guestDeviceId: number; hostDeviceId: number }[];
    expect(ids).toHaveLength(2);
    for (const { guestDeviceId, hostDeviceId } of ids) expect(guestDeviceId).not.toBe(hostDeviceId);
    for (const key of ["traps", "commands", "ioctls", "dma", "virtualNs", "wallMs"])
      expect(summary).toHaveProperty(key);
  });

  it("writes byte-identical traces for the same seed and image", () => {
    const files = ["a", "b"].map((name) => join(folder, `${name}.jsonl`));
    for (const file of files) expect(nestbox("boot", "--seed", "7", "--trace", file).status).toBe(0);
    const [first, second] = files.map((file) => readFileSync(file));
    expect(first!.length).toBeGreaterThan(100_000);
    expect(first!.equals(second!)).toBe(true);
  });

  it("exits with 3 under --fail-on-fault, for faults did reach the guest", () => {
    const result = nestbox("boot", "--fail-on-fault", "--report", "json");
    expect(result.status).toBe(3);
    expect(report(result).result).toBe("fault");
  });

  it("ends at the limit on virtual time with 42", () => {
    const result = nestbox("boot", "--time-limit", "50us", "--report", "json");
    expect(result.status).toBe(42);
    expect(report(result).virtualNs).toBeGreaterThanOrEqual(50_000);
    expect(report(result).virtualNs).toBeLessThan(60_000);
  });
});

describe("nestbox boot says in one line what is wrong with", () => {
  const cases: [what: string, args: string[], status: number, message: RegExp][] = [
    ["a file that is not there", ["no/such.wasm"], 2, /no\/such\.wasm: no such file/],
    ["a file that is no WebAssembly", ["README.md"], 2, /README\.md: /],
    ["a core module", [fixture("error-core-module")], 2, /core WebAssembly module, not a component/],
    ["a component of another world", [fixture("error-other-world")], 2, /another world.*import/],
    ["a PCI address the host has not", ["--assign", "00:1f.0@00:01.0"], 2, /no device 00:1f\.0 \(it has 0000:00:01\.0/],
    ["an assignment that is none", ["--assign", "00:01.0"], 2, /expected HOST-BDF@GUEST-BDF/],
    [
      "a device assigned twice",
      ["--assign", "00:01.0@00:01.0", "--assign", "0000:00:01.0@00:02.0"],
      2,
      /assigned already/,
    ],
    [
      "two devices at one guest address",
      ["--assign", "00:01.0@00:01.0", "--assign", "00:02.0@00:01.0"],
      2,
      /00:01\.0 is taken/,
    ],
    ["a host that is not there", ["--host", "nowhere"], 2, /no built-in host \(two-iommus, one-iommu/],
    ["a size that is none", ["--memory", "lots"], 2, /expected a size such as 64M/],
    ["more memory than a guest can have", ["--memory", "8G"], 2, /at most 2G of RAM/],
    ["a duration that is none", ["--time-limit", "soon"], 2, /expected a duration/],
    ["an option it does not know", ["--assing", "x"], 2, /unknown option '--assing'/],
  ];
  for (const [what, args, status, message] of cases) {
    it(what, () => {
      const result = nestbox("boot", ...args);
      expect(result.errors).toMatch(message);
      expect(result.status).toBe(status);
      expect(result.errors).not.toContain("    at ");
    });
  }

  it("a host description with a mistake, naming file and place", () => {
    const file = join(folder, "host.json");
    writeFileSync(
      file,
      JSON.stringify({ name: "mine", iommus: [{ name: "i", kind: "riscv", options: { counters: 99 } }] }),
    );
    const result = nestbox("boot", "--host", file);
    expect(result.errors).toMatch(/mine: i: counters must be 1 to 31/);
    expect(result.status).toBe(2);
  });
});

describe("a guest that goes wrong", () => {
  it("traps: the message and the guest's own stack are shown, exit 1", () => {
    const result = nestbox("boot", fixture("error-trap"), "--report", "json");
    expect(result.status).toBe(1);
    expect(result.errors).toMatch(/the guest trapped: .*unreachable/);
    expect(result.errors).toMatch(/ {4}at .*trap/);
    expect(report(result).result).toBe("failed");
  });

  it("reaches past RAM: the trap says how much RAM there is, exit 1", () => {
    const result = nestbox("boot", fixture("error-pointer-past-ram"));
    expect(result.status).toBe(1);
    expect(result.errors).toMatch(/out of bounds .*67108864 bytes/);
  });

  it("loops for ever: the wall limit holds, exit 42", () => {
    const result = nestbox("boot", fixture("error-endless-loop"), "--wall-limit", "300ms");
    expect(result.status).toBe(42);
    expect(result.errors).toMatch(/wall limit.*endless loop/);
  });

  it("touches an address where nothing is: it reads all ones, goes on, and the machine says so once", () => {
    const result = nestbox("boot", fixture("error-mmio-to-nothing"));
    expect(result.status).toBe(0);
    expect(result.errors).toMatch(/nothing answers the guest's \d-byte (load from|store to) 0x/);
  });

  it("sends a DMA past RAM: the device is refused, nothing is transferred, the guest goes on", () => {
    const result = nestbox("boot", fixture("error-dma-past-ram"), "--report", "json", "--assign", "00:01.0@00:02.0");
    expect(result.errors).not.toContain("nestbox:");
    expect(result.status).toBe(0);
    // One read and one write, each refused at its first burst.
    expect((report(result).dma as { aborted: number }).aborted).toBe(2);
  });

  it("exits with a status: ours is 1, the summary holds theirs", () => {
    const result = nestbox("boot", fixture("error-exit-status"), "--report", "json");
    expect(result.status).toBe(1);
    expect(report(result).detail).toMatch(/exited with status \d+/);
  });
});

describe("nestbox", () => {
  it("lists its commands and says what each does", () => {
    const { output, status } = nestbox("--help");
    expect(status).toBe(0);
    for (const command of ["boot", "scenario", "walk", "hosts", "caps", "trace"]) expect(output).toContain(command);
  });

  it("lists the built-in hosts, the default marked", () => {
    const { output, status } = nestbox("hosts");
    expect(status).toBe(0);
    expect(output).toMatch(/two-iommus \(default\)/);
    expect(nestbox("hosts", "two-iommus").output).toContain('"iommu0"');
  });
});

describe("--viommu", () => {
  it("none leaves a component guest without an IOMMU, its devices on the second stage", () => {
    const { status, output, errors } = nestbox("boot", "--viommu", "none");
    expect(output + errors).toContain("this machine has no IOMMU");
    expect(status).toBe(1);
  });

  it.each(["boot", "caps", "inspect"])("of %s names the kinds there are when it asks for another", (verb) => {
    const { status, errors } = nestbox(verb, "--viommu", "smmuv9");
    expect(errors).toMatch(/'smmuv9' is invalid\. Allowed choices are riscv/);
    expect(status).toBe(2);
  });

  it("none and a vIOMMU's name do not go together", () => {
    const { status, errors } = nestbox("boot", "--viommu", "none", "--assign", "0000:00:01.0@00:02.0/left");
    expect(errors).toContain('with --viommu none there is no vIOMMU "left"');
    expect(status).toBe(2);
  });
});
