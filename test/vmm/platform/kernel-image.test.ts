// Kernel files as hostile input (ELF-64 Object File Format: file header, program headers).

import { describe, expect, it } from "vitest";
import { KernelImageError, parseKernelImage } from "../../../vmm/platform/kernel-image.ts";

/** A RISC-V executable whose segments each load the file's first `bytes` bytes at an address. */
function elf(segments: readonly { address: bigint; bytes: bigint }[]): Uint8Array {
  const file = new Uint8Array(64 + 56 * segments.length);
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 243, true);
  view.setBigUint64(24, 0x8000_0000n, true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, segments.length, true);
  segments.forEach(({ address, bytes }, index) => {
    const at = 64 + 56 * index;
    view.setUint32(at, 1, true);
    view.setBigUint64(at + 24, address, true);
    view.setBigUint64(at + 32, bytes, true);
    view.setBigUint64(at + 40, bytes, true);
  });
  return file;
}

describe("a kernel's ELF file", () => {
  it("may load segments side by side, in any order", () => {
    const segments = [0x8000_1000n, 0x8000_0000n].map((address) => ({ address, bytes: 64n }));
    expect(parseKernelImage(elf(segments)).segments.map(({ address }) => address)).toEqual([0x8000_0000, 0x8000_1000]);
  });

  it("with segments that overlap is refused: thousands of them, each the whole file, would take for ever to load", () => {
    const segments = Array.from({ length: 3 }, () => ({ address: 0x8000_0000n, bytes: 64n }));
    expect(() => parseKernelImage(elf(segments))).toThrow(KernelImageError);
  });
});
