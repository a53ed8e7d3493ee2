/** The RAM of QEMU's q35 machine as this comparison starts it; below 1 MiB lie devices and firmware. */
const RAM = 0x10_0000n;
export const RAM_MIB = 1400n;
const RAM_END = RAM_MIB << 20n;

export function inRam(address: bigint): boolean {
  return address >= RAM && address < RAM_END;
}

/** Every page of it is there, without a list of them. */
class RamPages extends Set<bigint> {
  override has(page: bigint): boolean {
    return inRam(page << 12n);
  }
}

export const RAM_PAGES: Set<bigint> = new RamPages();
