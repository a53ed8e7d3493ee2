// What RV64 brings to a kernel machine (vmm/kernel-machine.ts): the core with its interrupt files, the APLIC for wires, SBI, the device tree.
//
//   wire (UART, INTx) → APLIC → message → hart's interrupt file       device's MSI → store at the hart's IMSIC page → interrupt file

import type { GpaPfn } from "../../host/base/address.ts";
import type { PhysicalMemory } from "../../host/base/memory.ts";
import type { AccessSize, MmioPort } from "../../host/base/mmio.ts";
import type { Stateful, StateRecord } from "../../host/base/state.ts";
import type { DebuggedCpu } from "../gdb/debugged-cpu.ts";
import { Rv64Debugged } from "../gdb/riscv64.ts";
import type { KernelMachineOptions, KernelParts, KernelPartsHost, TreeRequest } from "../kernel-machine.ts";
import type { Machine } from "../machine.ts";
import { APLIC_BASE, MSI_BASE } from "../memory-map.ts";
import { Exit, Rv64Core } from "../vcpu/riscv64/core.ts";
import { ISA_EXTENSIONS } from "../vcpu/riscv64/extensions.ts";
import { Aplic } from "./aplic.ts";
import { aplicRegister, imsicRegister } from "./register-names.ts";
import { rv64DeviceTree } from "./rv64-device-tree.ts";
import { Sbi } from "./sbi.ts";

const APLIC_SOURCES = 96;
const UART_SOURCE = 10;
const INTX_SOURCE = 32;
const PLATFORM_SOURCE = 48;
const TIMEBASE_HZ = 10_000_000;
const IMSIC_IDS = 255;

export class Rv64Parts implements KernelParts {
  readonly core: Rv64Core;
  readonly exits = { wait: Exit.Wfi, firmware: Exit.Call, debugger: Exit.Break };
  readonly aplic: Aplic;
  #sbi: Sbi | null = null;
  readonly #options: KernelMachineOptions;
  readonly #host: KernelPartsHost;

  /** `module`: vmm/vcpu/riscv64/build/hart.wasm, compiled. */
  constructor(module: WebAssembly.Module, options: KernelMachineOptions, host: KernelPartsHost) {
    this.#options = options;
    this.#host = host;
    this.core = new Rv64Core({
      module,
      ramBytes: options.memoryBytes,
      harts: options.cpus,
      timebaseFrequency: TIMEBASE_HZ,
      interruptIdentities: IMSIC_IDS,
      mmio: host.bus,
      ...options.engine,
    });
    this.aplic = new Aplic(APLIC_SOURCES, (hart, eiid) => this.raiseIdentity(hart, eiid));
  }

  claim({ bus }: Machine, memory: PhysicalMemory<GpaPfn>): void {
    this.#sbi = new Sbi({ core: this.core, memory, ...this.#host });
    for (let hart = 0; hart < this.#options.cpus; hart++) {
      const page = new ImsicPage(this, hart);
      memory.addStoreTarget((MSI_BASE / 4096 + hart) as GpaPfn, page);
      bus.claim({
        name: `imsic${hart}`,
        base: MSI_BASE + hart * 4096,
        size: 4096,
        port: page,
        registerName: imsicRegister,
      });
    }
    bus.claim({ name: "aplic", base: APLIC_BASE, size: 0x4000, port: this.aplic, registerName: aplicRegister });
  }

  debugged(load: (address: bigint) => bigint | null): DebuggedCpu {
    return new Rv64Debugged(this.core, load);
  }

  get sbi(): Sbi {
    return this.#sbi!;
  }

  /** An MSI for a hart's interrupt file, from another hart, the APLIC or a device. */
  raiseIdentity(hart: number, identity: number): void {
    this.core.raiseIdentity(hart, identity);
    this.#host.woken(hart);
  }

  firmwareCall(hart: number): void {
    this.sbi.call(hart);
  }

  uartWire(asserted: boolean): void {
    this.aplic.setWire(UART_SOURCE, asserted);
  }

  setIntx(routingId: number, pin: number, asserted: boolean): void {
    const slot = (routingId >> 3) & 3;
    this.aplic.setWire(INTX_SOURCE + ((slot + pin - 1) % 4), asserted);
  }

  platformWire(wire: number, asserted: boolean): void {
    this.aplic.setWire(PLATFORM_SOURCE + wire, asserted);
  }

  deviceTree(request: TreeRequest): Uint8Array {
    return rv64DeviceTree({
      harts: this.#options.cpus,
      memoryBytes: this.#options.memoryBytes,
      timebaseHz: TIMEBASE_HZ,
      isaExtensions: ISA_EXTENSIONS,
      mmuType: "riscv,sv57",
      aplicSources: APLIC_SOURCES,
      imsicIds: IMSIC_IDS,
      uartSource: UART_SOURCE,
      intxSource: INTX_SOURCE,
      platformSource: PLATFORM_SOURCE,
      ...request,
    });
  }

  /** a0 the hart's id, a1 the tree. */
  start(entry: bigint, tree: bigint): void {
    this.core.start(0, entry, tree);
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["core", this.core];
    yield ["aplic", this.aplic];
    if (this.#sbi !== null) yield ["sbi", this.#sbi];
  }
}

/** One hart's interrupt file as a page: seteipnum_le at offset 0; reads 0 (AIA §3.5). */
class ImsicPage implements MmioPort {
  readonly high = 0;
  readonly #parts: Rv64Parts;
  readonly #hart: number;

  constructor(parts: Rv64Parts, hart: number) {
    this.#parts = parts;
    this.#hart = hart;
  }

  store32(offset: number, value: number): void {
    if (offset === 0) this.#parts.raiseIdentity(this.#hart, value);
  }

  mmioRead(): number {
    return 0;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, _hi: number): void {
    if (size === 4) this.store32(offset, lo);
  }
}
