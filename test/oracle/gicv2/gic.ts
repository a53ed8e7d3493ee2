// A GICv2 without security extensions and without grouping, slowly and from the specification (ARM IHI 0048B): each interrupt of each CPU is a record of its
// own, and what is signalled is found anew whenever somebody asks. Shares no code with vmm/platform/gicv2.ts.
//
// Not here, because the architecture leaves it open: GICC_HPPIR, GICC_EOIR of an interrupt that is not the one acknowledged last (§4.4.5), and partial
// accesses to registers that are accessed by words only (§4.1.4).

const SPURIOUS = 1023;

interface Interrupt {
  readonly id: number;
  enabled: boolean;
  /** Pending that is remembered: an edge, a message, a write to GICD_ISPENDR (§4.3.7). Of an SGI: the CPUs that sent it. */
  latched: boolean;
  readonly senders: Set<number>;
  input: boolean;
  active: boolean;
  priority: number;
  edge: boolean;
  targets: number;
}

interface CpuInterface {
  enabled: boolean;
  /** GICC_CTLR.EOImodeNS (§4.4.1). */
  separateDeactivation: boolean;
  mask: number;
  binaryPoint: number;
  /** Priorities of interrupts acknowledged and not yet dropped, the last one last. */
  readonly active: number[];
}

export class GicOracle {
  forwarding = false;
  readonly cpus: readonly CpuInterface[];
  readonly #private: readonly (readonly Interrupt[])[];
  readonly #shared: readonly Interrupt[];

  constructor(cpus: number, interrupts: number) {
    const make = (id: number): Interrupt => ({
      id,
      enabled: id < 16,
      latched: false,
      senders: new Set(),
      input: false,
      active: false,
      priority: 0,
      edge: id < 16,
      targets: 0,
    });
    this.cpus = Array.from({ length: cpus }, () => ({
      enabled: false,
      separateDeactivation: false,
      mask: 0,
      binaryPoint: 0,
      active: [],
    }));
    this.#private = this.cpus.map(() => Array.from({ length: 32 }, (_, id) => make(id)));
    this.#shared = Array.from({ length: interrupts - 32 }, (_, index) => make(32 + index));
  }

  /** The interrupt as a CPU knows it (§2.2.2: SGIs and PPIs are banked); undefined: not implemented. */
  interrupt(cpu: number, id: number): Interrupt | undefined {
    return id < 32 ? this.#private[cpu]![id] : this.#shared[id - 32];
  }

  /** An input changes (§3.2.4: an edge is remembered, a level is what it is). */
  input(cpu: number, id: number, level: boolean): void {
    const it = this.interrupt(cpu, id)!;
    if (it.edge && level && !it.input) it.latched = true;
    it.input = level;
  }

  message(id: number): void {
    const it = this.interrupt(0, id);
    if (it !== undefined) it.latched = true;
  }

  isPending(it: Interrupt): boolean {
    if (it.id < 16) return it.senders.size > 0;
    return it.latched || (!it.edge && it.input);
  }

  /** GICD_SGIR (§4.3.15). */
  generate(sender: number, filter: number, list: number, id: number): void {
    this.cpus.forEach((_, cpu) => {
      const meant = [(list & (1 << cpu)) !== 0, cpu !== sender, cpu === sender][filter];
      if (meant === true) this.interrupt(cpu, id)!.senders.add(sender);
    });
  }

  /** §3.3.2, §4.3.12: of what is pending, enabled, not active and this CPU's, the one of highest priority, the lowest number first. */
  #candidate(cpu: number): Interrupt | null {
    const all = [...this.#private[cpu]!, ...this.#shared].filter((it) => {
      const mine = it.id < 32 || this.cpus.length === 1 || (it.targets & (1 << cpu)) !== 0;
      return mine && it.enabled && !it.active && this.isPending(it);
    });
    all.sort((a, b) => a.priority - b.priority || a.id - b.id);
    return all[0] ?? null;
  }

  /** §3.3.3 (preemption, by group priority), §4.4.2 (mask): the candidate if it is signalled. */
  #signalled(cpu: number): Interrupt | null {
    const own = this.cpus[cpu]!;
    const it = this.forwarding && own.enabled ? this.#candidate(cpu) : null;
    if (it === null || it.priority >= own.mask) return null;
    const running = own.active.at(-1);
    if (running === undefined) return it;
    // Table 3-2 with all eight bits of priority: the group field is bits 7 to binaryPoint + 1
    const group = (priority: number): number => Math.floor(priority / 2 ** (own.binaryPoint + 1));
    return group(it.priority) < group(running) ? it : null;
  }

  /** The CPU's IRQ. */
  irq(cpu: number): boolean {
    return this.#signalled(cpu) !== null;
  }

  /** GICC_IAR (§4.4.4). */
  acknowledge(cpu: number): number {
    const it = this.#signalled(cpu);
    if (it === null) return SPURIOUS;
    this.cpus[cpu]!.active.push(it.priority);
    it.active = true;
    if (it.id >= 16) {
      it.latched = false;
      return it.id;
    }
    const sender = Math.min(...it.senders);
    it.senders.delete(sender);
    return it.id | (sender << 10);
  }

  /** GICC_EOIR of what was acknowledged last (§4.4.5). */
  endOfInterrupt(cpu: number, value: number): void {
    this.cpus[cpu]!.active.pop();
    if (!this.cpus[cpu]!.separateDeactivation) this.deactivate(cpu, value);
  }

  /** GICC_DIR (§4.4.16). */
  deactivate(cpu: number, value: number): void {
    const it = this.interrupt(cpu, value & 0x3ff);
    if (it !== undefined) it.active = false;
  }

  /** GICC_RPR (§4.4.6): the idle priority is 0xff. */
  runningPriority(cpu: number): number {
    return this.cpus[cpu]!.active.at(-1) ?? 0xff;
  }
}
