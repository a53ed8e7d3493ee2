// A foreign process's memory as the kernel's copies see it; here the process is this one, and what is read the program's own ELF header.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { ForeignFrames } from "../../../host/adapters/foreign-frames.ts";
import { ForeignMemory } from "../../../host/adapters/foreign-memory.ts";
import { LinuxOutside } from "../../../host/adapters/linux-outside.ts";
import { readUser } from "../../../host/kernel/iommufd/user-copy.ts";
import { EFAULT } from "../../../host/uapi/errno.ts";

describe.skipIf(process.platform !== "linux")("a foreign process's memory", () => {
  const header = (): number => {
    const line = readFileSync("/proc/self/maps", "utf8")
      .split("\n")
      .find((each) => /^\S+ r\S+ 0+ .*node/.test(each));
    return Number.parseInt(line!.split("-")[0]!, 16);
  };

  const self = () => new LinuxOutside(() => {}).process(process.pid)!;

  it("is copied from numbers and bigints alike, as much as is asked for and no more", () => {
    const memory = new ForeignMemory(self(), new ForeignFrames());
    const at = header();
    for (const va of [at, BigInt(at)]) {
      const bytes = new Uint8Array(8).fill(0xee);
      expect(readUser(memory, va, bytes, 4)).toBe(0);
      expect([...bytes]).toEqual([0x7f, 0x45, 0x4c, 0x46, 0xee, 0xee, 0xee, 0xee]);
      const doublewords = new BigUint64Array(2);
      expect(readUser(memory, va, doublewords, 4)).toBe(0);
      expect([...doublewords]).toEqual([0x464c457fn, 0n]);
    }
    memory.close();
  });

  it("is refused beyond user space, whatever the address is given as", () => {
    const memory = new ForeignMemory(self(), new ForeignFrames());
    for (const va of [2 ** 47 - 4, 2n ** 47n - 4n, (1n << 64n) - 4n]) {
      expect(readUser(memory, va, new Uint8Array(8))).toBe(-EFAULT);
    }
    memory.close();
  });
});
