// PCI functions as a guest finds and configures them through the ECAM: 4 KiB of configuration space a function, BARs placed from the
// machine's windows, MSI.

import { check } from "./console";
import {
  mmioLoad16,
  mmioLoad32,
  mmioLoad8,
  mmioStore16,
  mmioStore32,
  regionBase,
  regionSize,
  PCI_CONFIG,
  PCI_MEMORY32,
  PCI_MEMORY64,
} from "./machine";

const COMMAND: u64 = 4;
const MEMORY_SPACE: u32 = 2;
const BUS_MASTER: u32 = 4;
const INTX_DISABLE: u32 = 1 << 10;
const CAPABILITIES_POINTER: u64 = 0x34;
const CAP_MSI: u32 = 5;

let next32: u64 = 0;
let next64: u64 = 0;

export class PciDevice {
  constructor(
    /** bus << 8 | device << 3 | function: also its device id at the IOMMU. */
    readonly requesterId: u32,
  ) {}

  private get config(): u64 {
    return regionBase(PCI_CONFIG) + ((<u64>this.requesterId) << 12);
  }
  get vendor(): u32 {
    return mmioLoad16(this.config);
  }
  get device(): u32 {
    return mmioLoad16(this.config + 2);
  }

  /** "00:02.0". */
  describe(): string {
    const bus = (this.requesterId >> 8).toString(16).padStart(2, "0");
    const slot = ((this.requesterId >> 3) & 31).toString(16).padStart(2, "0");
    return bus + ":" + slot + "." + (this.requesterId & 7).toString();
  }

  /** Places memory BAR `index` in a window if firmware has not, lets the function decode and master. Returns the BAR's base. */
  enableBar(index: u32): u64 {
    const register = this.config + 0x10 + (index << 2);
    mmioStore16(this.config + COMMAND, mmioLoad16(this.config + COMMAND) & ~MEMORY_SPACE);
    const wide = (mmioLoad32(register) & 6) == 4;
    mmioStore32(register, 0xffffffff);
    let mask: u64 = 0xffffffff00000000 | (mmioLoad32(register) & ~15);
    if (wide) {
      mmioStore32(register + 4, 0xffffffff);
      mask = (mask & 0xffffffff) | ((<u64>mmioLoad32(register + 4)) << 32);
    }
    check((mask & 0xfffffff0) != 0, this.describe() + " has no memory BAR " + index.toString());
    const base = place(~mask + 1, wide);
    mmioStore32(register, <u32>base);
    if (wide) mmioStore32(register + 4, <u32>(base >> 32));
    mmioStore16(this.config + COMMAND, MEMORY_SPACE | BUS_MASTER | INTX_DISABLE);
    return base;
  }

  /** Lets the function drive its interrupt pin (MSI must be off). */
  useInterruptPin(): void {
    mmioStore16(this.config + COMMAND, mmioLoad16(this.config + COMMAND) & ~INTX_DISABLE);
  }

  /** Lets the function signal with MSI: a store of `data` to `address`. */
  enableMsi(address: u64, data: u32): void {
    const capability = this.findCapability(CAP_MSI);
    check(capability != 0, this.describe() + " has no MSI capability");
    const at = this.config + capability;
    const wide = (mmioLoad16(at + 2) & 0x80) != 0;
    mmioStore32(at + 4, <u32>address);
    if (wide) mmioStore32(at + 8, <u32>(address >> 32));
    mmioStore16(at + (wide ? 12 : 8), data);
    mmioStore16(at + 2, (mmioLoad16(at + 2) & ~0x70) | 1);
  }

  /** Configuration offset of a capability, 0 if absent. */
  findCapability(id: u32): u32 {
    let at = mmioLoad8(this.config + CAPABILITIES_POINTER) & 0xfc;
    for (let i = 0; i < 48 && at != 0; i++) {
      if (mmioLoad8(this.config + at) == id) return at;
      at = mmioLoad8(this.config + at + 1) & 0xfc;
    }
    return 0;
  }
}

/** Address of `size` bytes, naturally aligned, in the 64-bit window (if the BAR may go there) or the 32-bit one. */
function place(size: u64, wide: bool): u64 {
  if (next32 == 0) next32 = regionBase(PCI_MEMORY32);
  if (next64 == 0) next64 = regionBase(PCI_MEMORY64);
  const high = wide && next64 != 0;
  const base = ((high ? next64 : next32) + size - 1) & ~(size - 1);
  const kind = high ? PCI_MEMORY64 : PCI_MEMORY32;
  check(base + size <= regionBase(kind) + regionSize(kind), "the PCI memory window is full");
  if (high) next64 = base + size;
  else next32 = base + size;
  return base;
}

/** Every function there is, in order of its requester id. */
export function walkPci(): PciDevice[] {
  const found: PciDevice[] = [];
  const buses = <u32>(regionSize(PCI_CONFIG) >> 20);
  for (let slot: u32 = 0; slot < buses << 5; slot++) {
    for (let fn: u32 = 0; fn < 8; fn++) {
      const candidate = new PciDevice((slot << 3) | fn);
      const config = regionBase(PCI_CONFIG) + ((<u64>candidate.requesterId) << 12);
      if (mmioLoad16(config) == 0xffff) {
        if (fn == 0) break;
        continue;
      }
      found.push(candidate);
      // A device is multi-function if bit 7 of its header type says so.
      if (fn == 0 && (mmioLoad8(config + 14) & 0x80) == 0) break;
    }
  }
  return found;
}
