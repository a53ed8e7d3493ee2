import { describe, expect, it } from "vitest";
import { decodePageRequest } from "../../../../../host/arch/riscv/page-requests.ts";
import { CSR_ENABLE, CSR_INTERRUPT_ENABLE, IPSR_PIP, REG } from "../../../../../host/arch/riscv/registers.ts";
import type { AtsTarget } from "../../../../../host/devices/ports.ts";
import { A, D, EXECUTE, type Fields, Machine, R, U, USER_RW, USER_RWX, V, W, WRITE, X } from "./machine.ts";

const SUCCESS = 0;
const UNSUPPORTED = 1;
const ABORT = 2;
const DEVICE = 0x108;
/** Guest-physical page of the interrupt file in tests that have one. */
const INTERRUPT_FILE = 0x70000;

/** A device with ATS behind a first stage of Sv39. */
const build = (fields = {}, options = {}) => {
  const machine = new Machine(options);
  machine.enableFaultQueue();
  machine.enableCommandQueue();
  machine.useDirectory(2);
  const root = machine.makeRoot();
  machine.setDevice(DEVICE, { EN_ATS: 1, fsc_MODE: 8, fsc_PPN: root, PSCID: 1, ...fields });
  const ask = (
    pfn: number,
    more: { pasid?: number; noWrite?: boolean; privileged?: boolean; execute?: boolean } = {},
  ) =>
    machine.iommu.translateForDevice(
      DEVICE,
      more.pasid ?? -1,
      pfn,
      more.noWrite ?? false,
      more.privileged ?? false,
      more.execute ?? false,
    );
  return { machine, root, ask };
};

describe("ATS translation requests (§3.6)", () => {
  it("grant what the page tables grant; execution only if asked for", () => {
    const { machine, root, ask } = build();
    machine.map(root, 3, 0x10, 0x80100, USER_RWX);
    expect(ask(0x10)).toBe(SUCCESS);
    expect(machine.iommu.atsTranslation).toMatchObject({
      pfn: 0x80100,
      sizeLog2: 12,
      read: true,
      write: true,
      execute: false,
      global: false,
      untranslatedOnly: false,
    });
    ask(0x10, { execute: true });
    expect(machine.iommu.atsTranslation.execute).toBe(true);
  });

  it("clear the rights that are missing", () => {
    const { machine, root, ask } = build();
    machine.map(root, 3, 0x10, 0x80100, V | R | U | A);
    expect(ask(0x10, { execute: true })).toBe(SUCCESS);
    expect(machine.iommu.atsTranslation).toMatchObject({ read: true, write: false, execute: false });
  });

  it("grant no W while D is 0 and may not be set", () => {
    const { machine, root, ask } = build();
    machine.map(root, 3, 0x10, 0x80100, V | R | W | U | A);
    expect(ask(0x10)).toBe(SUCCESS);
    expect(machine.iommu.atsTranslation).toMatchObject({ read: true, write: false });
  });

  it("set D under SADE unless No-Write is set (§3.4)", () => {
    const { machine, root, ask } = build({ SADE: 1 });
    const place = machine.map(root, 3, 0x10, 0x80100, V | R | W | U);
    ask(0x10, { noWrite: true });
    expect(machine.flagsOf(place)).toBe(V | R | W | U | A);
    expect(machine.iommu.atsTranslation.write).toBe(false);
    ask(0x10);
    expect(machine.flagsOf(place)).toBe(V | R | W | U | A | D);
    expect(machine.iommu.atsTranslation.write).toBe(true);
  });

  it("answer success without rights, and log nothing, for pages that are absent or not the requester's", () => {
    const { machine, root, ask } = build();
    machine.map(root, 3, 0x11, 0x80100, V | R | W | A | D);
    for (const pfn of [0x10, 0x11]) {
      expect(ask(pfn)).toBe(SUCCESS);
      expect(machine.iommu.atsTranslation).toMatchObject({ read: false, write: false, execute: false });
    }
    expect(machine.takeFaults()).toEqual([]);
  });

  it("are unsupported while EN_ATS is 0, the directory is off or Bare, or the context is not valid, with a record", () => {
    const off = build({ EN_ATS: 0 });
    expect(off.ask(0)).toBe(UNSUPPORTED);
    off.machine.write64(REG.ddtp, 0n);
    expect(off.ask(0)).toBe(UNSUPPORTED);
    off.machine.write64(REG.ddtp, 1n);
    expect(off.ask(0)).toBe(UNSUPPORTED);
    expect(off.machine.takeFaults().map((fault) => [fault.cause, fault.ttyp])).toEqual([
      [260, 8],
      [256, 8],
      [260, 8],
    ]);
    const invalid = build({ V: 0 });
    expect(invalid.ask(0)).toBe(UNSUPPORTED);
    expect(invalid.machine.takeFaults().map((fault) => fault.cause)).toEqual([258]);
  });

  it("abort on access faults and misconfigured process contexts, with a record", () => {
    const { machine, root, ask } = build();
    machine.store(root, 0, (0x10n << 10n) | 1n);
    expect(ask(0x10)).toBe(ABORT);
    const directory = machine.makeProcessDirectory(1);
    machine.setProcess(directory, 5, { fsc_MODE: 3 });
    machine.setDevice(DEVICE, { EN_ATS: 1, PDTV: 1, fsc_MODE: 1, fsc_PPN: directory });
    machine.command("IODIR.INVAL_DDT");
    expect(ask(0x10, { pasid: 5 })).toBe(ABORT);
    // A process context that is not valid is success without rights (cause 266).
    expect(ask(0x10, { pasid: 6 })).toBe(SUCCESS);
    expect(machine.takeFaults().map((fault) => [fault.cause, fault.processId])).toEqual([
      [5, -1],
      [267, 5],
    ]);
  });

  /** A device behind both stages, its tables mapped one to one in the second. */
  const nested = (fields: Fields = {}, interruptFile = false) => {
    const { machine } = build();
    const guest = machine.makeSecondStageRoot();
    machine.mapMemoryOneToOne(guest, 3);
    const first = machine.makeRoot();
    const table = machine.allocate();
    // M = 1, MRIF; the notice's page in the second doubleword.
    machine.store(table, 0, (BigInt(machine.allocate()) << 10n) | 0b011n);
    machine.store(table, 8, BigInt(machine.allocate()) << 10n);
    const messages = { msiptp_MODE: 1, msiptp_PPN: table, msi_addr_pattern: INTERRUPT_FILE };
    machine.setDevice(0x10b, {
      ...(interruptFile ? messages : {}),
      EN_ATS: 1,
      fsc_MODE: 8,
      fsc_PPN: first,
      iohgatp_MODE: 8,
      iohgatp_PPN: guest,
      GSCID: 4,
      ...fields,
    });
    const ask = (pfn: number, noWrite: boolean, execute: boolean) =>
      machine.iommu.translateForDevice(0x10b, -1, pfn, noWrite, false, execute);
    return { machine, guest, first, ask };
  };

  it("go on, without rights, where the first stage gives no R: an error further down is answered as an error", () => {
    const { machine, guest, first, ask } = nested();
    // An execute-only page whose second-stage table is outside of memory, and one whose second-stage page is absent.
    machine.map(first, 3, 0x10, 0x40000, V | X | U | A);
    machine.map(first, 3, 0x11, 0xc0000, V | X | U | A);
    machine.store(guest, (0x40000 >> 18) * 8, (0x10n << 10n) | 1n);
    expect(ask(0x10, true, false)).toBe(ABORT);
    expect(ask(0x11, true, false)).toBe(SUCCESS);
    expect(machine.iommu.atsTranslation).toMatchObject({ read: false, write: false, execute: false });
    expect(machine.takeFaults().map((fault) => [fault.cause, fault.ttyp])).toEqual([[5, 8]]);
  });

  it("take an entry without R, W and X where a leaf must be for no leaf: success without rights, nothing further down is looked at", () => {
    const { machine, guest, first, ask } = nested();
    machine.map(first, 3, 0x10, 0x40000, V | U | A | D);
    machine.map(first, 3, 0x10 + 512, 0x40000, V | A, { level: 1 });
    machine.store(guest, (0x40000 >> 18) * 8, (0x10n << 10n) | 1n);
    for (const pfn of [0x10, 0x10 + 512]) expect(ask(pfn, true, false)).toBe(SUCCESS);
    expect(machine.takeFaults()).toEqual([]);
  });

  it("to pages without R mark nothing, and leave nothing behind that saves a later fetch its A bit (§3.4)", () => {
    const { machine, guest, first, ask } = nested({ SADE: 1, GADE: 1 });
    const place = machine.map(first, 3, 0x10, 0x40000, V | X | U);
    const below = machine.map(guest, 3, 0x40000, 0x80100, V | R | W | X | U, { extraRootBits: 2 });
    expect(ask(0x10, false, true)).toBe(SUCCESS);
    expect(machine.iommu.atsTranslation).toMatchObject({ read: false, write: false, execute: false });
    expect([machine.flagsOf(place) & A, machine.flagsOf(below) & (A | D)]).toEqual([0, 0]);
    expect(machine.request(0x10b, 0x1_0000n, { access: EXECUTE })).toBe(0x8010_0000n);
    expect([machine.flagsOf(place) & A, machine.flagsOf(below) & (A | D)]).toEqual([A, A]);
  });

  it("with Execute Requested are reads for execute: their access faults have cause 1, as an untranslated fetch's", () => {
    const { machine, guest, first, ask } = nested();
    machine.map(first, 3, 0x10, 0x40000, USER_RWX);
    machine.store(guest, (0x40000 >> 18) * 8, (0x10n << 10n) | 1n);
    for (const noWrite of [true, false]) expect(ask(0x10, noWrite, true)).toBe(ABORT);
    expect(ask(0x10, true, false)).toBe(ABORT);
    machine.request(0x10b, 0x1_0000n, { access: EXECUTE });
    expect(machine.takeFaults().map((fault) => [fault.cause, fault.ttyp])).toEqual([
      [1, 8],
      [1, 8],
      [5, 8],
      [1, 1],
    ]);
  });

  it("to an interrupt file in memory grant what the first stage grants: its entry is a leaf with R, W, A and D (§3.3.3)", () => {
    const { machine, first, ask } = nested({ SADE: 1 }, true);
    machine.map(first, 3, 0x10, INTERRUPT_FILE, USER_RW);
    machine.map(first, 3, 0x11, INTERRUPT_FILE, V | R | U | A | D);
    const clean = machine.map(first, 3, 0x12, INTERRUPT_FILE, V | R | W | U | A);
    const granted = (pfn: number, noWrite: boolean) => {
      expect(ask(pfn, noWrite, false)).toBe(SUCCESS);
      const { read, write, untranslatedOnly } = machine.iommu.atsTranslation;
      return { read, write, untranslatedOnly };
    };
    expect(granted(0x10, false)).toEqual({ read: true, write: true, untranslatedOnly: true });
    expect(granted(0x11, false)).toEqual({ read: true, write: false, untranslatedOnly: true });
    expect(granted(0x12, true)).toEqual({ read: true, write: false, untranslatedOnly: true });
    expect(machine.flagsOf(clean) & D).toBe(0);
    expect(granted(0x12, false)).toEqual({ read: true, write: true, untranslatedOnly: true });
    expect(machine.flagsOf(clean) & D).toBe(D);
  });

  it("report superpages whole, and Bare stages as configured", () => {
    const { machine, root, ask } = build();
    machine.map(root, 3, 0x40000, 0x80000, USER_RW, { level: 2 });
    ask(0x40123);
    expect(machine.iommu.atsTranslation).toMatchObject({ pfn: 0x80000, sizeLog2: 30 });
    const bare = build({ fsc_MODE: 0 }, { bareRangeLog2: 21 });
    bare.ask(0x12345);
    expect(bare.machine.iommu.atsTranslation).toMatchObject({ pfn: 0x12200, sizeLog2: 21, read: true, write: true });
  });

  it("say Global for global first-stage pages of requests with PASID", () => {
    const { machine, root } = build();
    const directory = machine.makeProcessDirectory(1);
    machine.map(root, 3, 0x10, 0x80100, USER_RW | 32);
    machine.setProcess(directory, 5, { fsc_MODE: 8, fsc_PPN: root, PSCID: 2, ENS: 1 });
    machine.setDevice(0x109, { EN_ATS: 1, PDTV: 1, DPE: 1, fsc_MODE: 1, fsc_PPN: directory });
    machine.iommu.translateForDevice(0x109, 5, 0x10, false, false, false);
    expect(machine.iommu.atsTranslation).toMatchObject({ global: true, privileged: false });
    machine.iommu.translateForDevice(0x109, 5, 0x10, false, true, false);
    expect(machine.iommu.atsTranslation).toMatchObject({ privileged: true, read: false });
  });

  it("under T2GPA give the guest-physical address, which translated requests then go through the second stage with", () => {
    const { machine } = build({}, { caches: { translations: 64 } });
    const guest = machine.makeSecondStageRoot();
    const first = machine.makeRoot();
    for (let i = 0; i < 4096; i++) machine.map(guest, 3, 0x80000 + i, 0x80000 + i, USER_RWX, { extraRootBits: 2 });
    machine.map(guest, 3, 0x40000, 0x80777, USER_RW, { extraRootBits: 2 });
    machine.map(first, 3, 0x10, 0x40000, V | R | W | X | U | A | D);
    machine.setDevice(0x10a, {
      EN_ATS: 1,
      T2GPA: 1,
      fsc_MODE: 8,
      fsc_PPN: first,
      iohgatp_MODE: 8,
      iohgatp_PPN: guest,
      GSCID: 4,
    });
    for (let round = 0; round < 2; round++) {
      expect(machine.iommu.translateForDevice(0x10a, -1, 0x10, false, false, true)).toBe(SUCCESS);
      expect(machine.iommu.atsTranslation).toMatchObject({ pfn: 0x40000, read: true, write: true, execute: false });
    }
    expect(machine.request(0x10a, 0x4000_0010n, { translated: true, access: WRITE })).toBe(0x8077_7010n);
    expect(machine.request(0x10a, 0x5000_0010n, { translated: true, access: WRITE })).toBeNull();
    expect(machine.takeFaults().map((fault) => [fault.cause, fault.ttyp, fault.iotval2])).toEqual([
      [23, 7, 0x5000_0010n],
    ]);
  });

  it("without T2GPA translated requests pass unchanged", () => {
    const { machine } = build();
    expect(machine.request(DEVICE, 0x1234_5678n, { translated: true, access: WRITE })).toBe(0x1234_5678n);
  });
});

describe("ATS invalidations (§4.1.4)", () => {
  const withTarget = (completes: boolean, options = {}) => {
    const parts = build({}, options);
    const seen: unknown[] = [];
    const target: AtsTarget = {
      invalidate: (...request) => {
        seen.push(request);
        return completes;
      },
      pageResponse: (...response) => seen.push(response),
    };
    parts.machine.iommu.findTarget = (deviceId) => (deviceId === DEVICE ? target : undefined);
    return { ...parts, seen };
  };

  it("reach the function with address, size and PASID", () => {
    const { machine, seen } = withTarget(true);
    machine.command("ATS.INVAL", { RID: DEVICE, ADDR: 0x1234 });
    machine.command("ATS.INVAL", { RID: DEVICE, ADDR: 0x1203, S: 1, PV: 1, PID: 9, G: 1 });
    machine.command("ATS.INVAL", { RID: DEVICE, ADDR: (1n << 52n) - 1n, S: 1 });
    expect(seen).toEqual([
      [0x1234, 1, -1, false, 0],
      [0x1200, 8, 9, true, 0],
      [0, Number.POSITIVE_INFINITY, -1, false, 0],
    ]);
  });

  it("an IOFENCE waits for the completion of the invalidation before it, other commands do not", () => {
    const { machine } = withTarget(false);
    machine.queue("ATS.INVAL", { RID: DEVICE });
    machine.queue("IOTINVAL.VMA");
    machine.queue("IOFENCE.C");
    machine.iommu.drain();
    expect(machine.read32(REG.cqh)).toBe(2);
    expect(machine.iommu.step()).toBe(false);
    machine.iommu.invalidationCompleted(DEVICE, 1);
    machine.iommu.invalidationCompleted(7, 0);
    machine.iommu.drain();
    expect(machine.read32(REG.cqh)).toBe(2);
    machine.iommu.invalidationCompleted(DEVICE, 0);
    machine.iommu.drain();
    expect(machine.read32(REG.cqh)).toBe(3);
  });

  it("one that times out is reported by the next IOFENCE as cmd_to, which completes once that is cleared", () => {
    const { machine } = withTarget(false, { atsTimeoutNs: 1_000_000 });
    machine.queue("ATS.INVAL", { RID: DEVICE });
    machine.queue("IOFENCE.C");
    machine.iommu.drain();
    machine.clock.advance(1_000_000);
    machine.iommu.drain();
    expect(machine.read32(REG.cqcsr) & 0x200).toBe(0x200);
    expect(machine.read32(REG.cqh)).toBe(1);
    machine.write32(REG.cqcsr, CSR_ENABLE | 0x200);
    machine.iommu.drain();
    expect(machine.read32(REG.cqh)).toBe(2);
  });

  it("one to nobody times out", () => {
    const { machine } = withTarget(true, { atsTimeoutNs: 1000 });
    machine.queue("ATS.INVAL", { RID: 0x999 });
    machine.queue("IOFENCE.C");
    machine.iommu.drain();
    machine.clock.advance(1000);
    machine.iommu.drain();
    expect(machine.read32(REG.cqcsr) & 0x200).toBe(0x200);
  });

  it("with every tag in use the next one waits", () => {
    const { machine, seen } = withTarget(false, { atsTags: 2 });
    for (let i = 0; i < 3; i++) machine.queue("ATS.INVAL", { RID: DEVICE });
    machine.iommu.drain();
    expect(seen.length).toBe(2);
    expect(machine.read32(REG.cqh)).toBe(2);
    machine.iommu.invalidationCompleted(DEVICE, 1);
    machine.iommu.drain();
    expect(seen.length).toBe(3);
  });

  it("are illegal without ATS", () => {
    const machine = new Machine({ capabilities: { ATS: false, T2GPA: false } });
    machine.enableCommandQueue();
    machine.command("ATS.INVAL", { RID: 1 });
    expect(machine.read32(REG.cqcsr) & 0x400).toBe(0x400);
  });

  it("a page response reaches the function", () => {
    const { machine, seen } = withTarget(true);
    machine.command("ATS.PRGR", { RID: DEVICE, PRGI: 0x155, code: 1, PV: 1, PID: 3 });
    machine.command("ATS.PRGR", { RID: DEVICE, PRGI: 2, PID: 3 });
    expect(seen).toEqual([
      [3, 0x155, 1],
      [-1, 2, 0],
    ]);
  });
});

describe("page requests (§3.7, §4.3)", () => {
  const READ_LAST = 1 | 4;
  const withQueue = (fields = {}, interrupts = false) => {
    const parts = build({ EN_PRI: 1, ...fields });
    const { machine } = parts;
    const responses: number[][] = [];
    machine.iommu.findTarget = () => ({
      invalidate: () => true,
      pageResponse: (...response) => responses.push(response),
    });
    const ring = machine.allocate();
    machine.write64(REG.pqb, (BigInt(ring) << 10n) | 1n);
    machine.write32(REG.pqcsr, CSR_ENABLE | (interrupts ? CSR_INTERRUPT_ENABLE : 0));
    const record = (index: number) =>
      decodePageRequest([machine.load(ring, index * 16), machine.load(ring, index * 16 + 8)]);
    return { ...parts, ring, responses, record };
  };

  it("stand in the queue, with an interrupt", () => {
    const { machine, record, responses } = withQueue({}, true);
    machine.iommu.pageRequest(DEVICE, 7, 0xabcde, 0x1ff, 1 | 2 | 4 | 8 | 16);
    expect(machine.read32(REG.pqt)).toBe(1);
    expect(record(0)).toEqual({
      deviceId: DEVICE,
      processId: 7,
      privileged: true,
      execute: true,
      read: true,
      write: true,
      last: true,
      group: 0x1ff,
      address: 0xabcde000n,
    });
    expect(machine.read32(REG.ipsr) & IPSR_PIP).toBe(IPSR_PIP);
    expect(responses).toEqual([]);
  });

  it("carry neither PRIV nor EXEC without PASID", () => {
    const { machine, record } = withQueue();
    machine.iommu.pageRequest(DEVICE, -1, 1, 0, 1 | 8 | 16);
    expect(record(0)).toMatchObject({ processId: -1, privileged: false, execute: false });
  });

  it("a stop marker is a message with L = 1, R = W = 0", () => {
    const { machine, record } = withQueue();
    machine.iommu.stopMarker(DEVICE, 3);
    expect(record(0)).toMatchObject({ processId: 3, last: true, read: false, write: false, address: 0n });
  });

  const refusals: readonly [string, object, (machine: Machine) => void, number, number[]][] = [
    ["ddtp Off is a response failure (256)", {}, (machine) => machine.write64(REG.ddtp, 0n), 15, [256]],
    ["ddtp Bare is an invalid request (260)", {}, (machine) => machine.write64(REG.ddtp, 1n), 1, [260]],
    ["EN_PRI = 0 is an invalid request (260)", { EN_PRI: 0 }, () => {}, 1, [260]],
    ["a context that is not valid is a response failure (258)", { V: 0 }, () => {}, 15, [258]],
    ["a misconfigured context is a response failure (259)", { DPE: 1 }, () => {}, 15, [259]],
    ["a queue that is off is a response failure, unrecorded", {}, (machine) => machine.write32(REG.pqcsr, 0), 15, []],
  ];
  for (const [name, fields, arrange, code, causes] of refusals) {
    it(name, () => {
      const { machine, responses } = withQueue(fields);
      arrange(machine);
      machine.iommu.pageRequest(DEVICE, -1, 1, 5, READ_LAST);
      machine.iommu.pageRequest(DEVICE, -1, 1, 5, 1);
      machine.iommu.stopMarker(DEVICE, 1);
      expect(responses).toEqual([[-1, 5, code]]);
      const faults = machine.takeFaults();
      expect(faults.map((fault) => [fault.cause, fault.ttyp, fault.iotval])).toEqual(
        [...causes, ...causes, ...causes].map((cause) => [cause, 9, 4n]),
      );
    });
  }

  it("are not answered with what came of another device's request", () => {
    const { machine, responses } = withQueue();
    machine.setDevice(DEVICE + 1, { V: 0 });
    machine.request(DEVICE, 0n);
    machine.request(DEVICE + 1, 0n);
    expect(machine.takeFaults().map((fault) => fault.cause)).toEqual([13, 258]);
    machine.iommu.pageRequest(DEVICE, -1, 1, 5, READ_LAST);
    expect(machine.read32(REG.pqt)).toBe(1);
    expect(responses).toEqual([]);
    expect(machine.takeFaults()).toEqual([]);
  });

  it("a full queue answers success, sets pqof, and keeps answering while it is set", () => {
    const { machine, responses } = withQueue();
    for (let group = 0; group < 5; group++) machine.iommu.pageRequest(DEVICE, -1, 1, group, READ_LAST);
    expect(machine.read32(REG.pqt)).toBe(3);
    expect(machine.read32(REG.pqcsr) & 0x200).toBe(0x200);
    expect(responses).toEqual([
      [-1, 3, 0],
      [-1, 4, 0],
    ]);
    expect(machine.takeFaults()).toEqual([]);
  });

  it("a queue that cannot be written is a response failure and sets pqmf", () => {
    const { machine, ring, responses } = withQueue();
    machine.inject(ring, 8, 1);
    machine.iommu.pageRequest(DEVICE, 3, 1, 9, READ_LAST);
    expect(machine.read32(REG.pqcsr) & 0x100).toBe(0x100);
    expect(responses).toEqual([[3, 9, 15]]);
  });

  it("own responses carry the PASID for failures, otherwise only with PRPR", () => {
    const plain = withQueue({ EN_PRI: 0 });
    plain.machine.iommu.pageRequest(DEVICE, 3, 1, 9, READ_LAST);
    expect(plain.responses).toEqual([[-1, 9, 1]]);
    const required = withQueue({ PRPR: 1 });
    for (let i = 0; i < 4; i++) required.machine.iommu.pageRequest(DEVICE, 3, 1, i, READ_LAST);
    expect(required.responses).toEqual([[3, 3, 0]]);
  });
});
