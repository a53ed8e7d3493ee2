// A PCI Express root port of the VM: a type 1 header (PCI-to-PCI Bridge 1.2 §3.2; PCIe 6.0 §7.5.1.3) with one bus behind it. The guest
// chooses that bus's number, and thereby the requester ids, and so the IOMMU's device ids, of the functions on it: renumbering buses
// gives every assigned device behind the port another id.

import type { Stateful, StateRecord } from "../../host/base/state.ts";
import { ConfigSpace } from "../../host/devices/config-space.ts";
import type { BarDescription, FunctionPorts, PciFunction } from "../../host/devices/ports.ts";

const COMMAND = 0x04;
const COMMAND_MEMORY = 1 << 1;
const STATUS_CAPABILITIES = 1 << 4;
const PRIMARY_BUS = 0x18;
const SECONDARY_BUS = 0x19;
const SUBORDINATE_BUS = 0x1a;
const MEMORY_BASE = 0x20;
const PREFETCHABLE_BASE = 0x24;
const EXPRESS = 0x40;
/** PCI Express capability, version 2, root port with a slot. */
const EXPRESS_ROOT_PORT = 2 | (4 << 4) | (1 << 8);

export class RootPort implements PciFunction, Stateful {
  readonly name: string;
  readonly bars: readonly (BarDescription | null)[] = [];
  readonly #config = new ConfigSpace();

  constructor(name: string) {
    this.name = name;
    const config = this.#config;
    // No registered vendor: nothing but the port driver takes it, by its class.
    config.declare(0x00, 4, { value: 0x11e7_1234 });
    config.declare(COMMAND, 2, { writable: 0x0547 });
    config.declare(0x06, 2, { value: STATUS_CAPABILITIES, oneToClear: 0xf900 });
    config.declare(0x08, 4, { value: 0x060400_01 });
    config.declare(0x0c, 1, { writable: 0xff });
    config.declare(0x0e, 1, { value: 0x01 });
    for (const register of [PRIMARY_BUS, SECONDARY_BUS, SUBORDINATE_BUS])
      config.declare(register, 1, { writable: 0xff });
    // I/O is not forwarded: base and limit read 0. Memory windows in 1 MiB steps; the prefetchable one is 64 bits wide.
    config.declare(MEMORY_BASE, 4, { writable: 0xfff0_fff0 });
    config.declare(PREFETCHABLE_BASE, 4, { value: 0x0001_0001, writable: 0xfff0_fff0 });
    config.declare(0x28, 4, { writable: 0xffff_ffff });
    config.declare(0x2c, 4, { writable: 0xffff_ffff });
    config.declare(0x34, 1, { value: EXPRESS });
    config.declare(0x3c, 1, { writable: 0xff });
    config.declare(0x3e, 2, { writable: 0x0043 });
    config.declare(EXPRESS, 2, { value: 0x0010 });
    config.declare(EXPRESS + 2, 2, { value: EXPRESS_ROOT_PORT });
    config.reset();
  }

  /** Number of the bus behind the port; 0: the guest has given it none, so nothing behind it can be reached. */
  get secondaryBus(): number {
    return this.#config.get8(SECONDARY_BUS);
  }

  /** True if the port forwards accesses to [base, base + size). */
  forwards(base: number, size: number): boolean {
    if ((this.#config.get16(COMMAND) & COMMAND_MEMORY) === 0) return false;
    const last = base + size - 1;
    const megabyte = (register: number): number => (register & 0xfff0) * 0x1_0000;
    const low = megabyte(this.#config.get16(MEMORY_BASE));
    const high = megabyte(this.#config.get16(MEMORY_BASE + 2)) + 0xf_ffff;
    if (base >= low && last <= high) return true;
    const four = 0x1_0000_0000;
    const lowWide = megabyte(this.#config.get16(PREFETCHABLE_BASE)) + this.#config.get32(0x28) * four;
    const highWide = megabyte(this.#config.get16(PREFETCHABLE_BASE + 2)) + 0xf_ffff + this.#config.get32(0x2c) * four;
    return base >= lowWide && last <= highWide;
  }

  connect(_ports: FunctionPorts): void {}

  configRead(offset: number, size: 1 | 2 | 4): number {
    return ConfigSpace.accepts(offset, size) ? this.#config.read(offset, size) : 2 ** (8 * size) - 1;
  }

  configWrite(offset: number, size: 1 | 2 | 4, value: number): void {
    if (ConfigSpace.accepts(offset, size)) this.#config.write(offset, size, value);
  }

  barBase(_index: number): number {
    return -1;
  }

  reset(): void {
    this.#config.reset();
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["config", this.#config];
  }
}
