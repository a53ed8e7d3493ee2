import { describe, expect, it } from "vitest";
import { REG } from "../../../host/arch/riscv/registers.ts";
import { Guest, MSI_PAGE, PLACE, SV39, TC } from "./guest.ts";
import { RecordingHost } from "./hosts.ts";

const FQMF = 1 << 8;
const FQOF = 1 << 9;
const FIP = 2;
const TABLE = PLACE.tables >> 12n;

function ready(options: { faultsLog2?: number; quiet?: boolean } = {}): { guest: Guest; host: RecordingHost } {
  const host = new RecordingHost();
  const guest = new Guest({ host });
  guest.plug(1);
  guest.plug(2);
  guest.enableDirectory();
  guest.enableQueues(options);
  guest.installContext(1, { tc: TC.V, fsc: SV39 | TABLE });
  return { guest, host };
}

describe("fault queue", () => {
  it("a page fault of a nested device is the guest's record: its id, the IOVA, iotval2 0 (§4.2)", () => {
    const { guest } = ready();
    guest.hostFault({ cause: 15, deviceId: 1, ttyp: 3, iotval: 0x1234_5678n });
    expect(guest.takeFaults()).toEqual([
      { cause: 15, deviceId: 1, processId: -1, privileged: false, ttyp: 3, iotval: 0x1234_5678n, iotval2: 0n },
    ]);
  });

  it("process_id and privilege pass", () => {
    const { guest } = ready();
    guest.hostFault({ cause: 13, deviceId: 1, processId: 0xabcde, privileged: true });
    expect(guest.takeFaults()[0]).toMatchObject({ processId: 0xabcde, privileged: true });
  });

  it.each([
    [20, 1],
    [21, 5],
    [23, 7],
  ])(
    "second-stage fault %i is access fault %i: absent memory, no host address (design: faults)",
    (host, guestCause) => {
      const { guest } = ready();
      guest.hostFault({ cause: host, deviceId: 1, iotval: 0x4000n, iotval2: 0x9_8765_4000n });
      guest.hostFault({ cause: host, deviceId: 1, iotval: 0x4000n, iotval2: 0x9_8765_4001n });
      for (const record of guest.takeFaults()) {
        expect(record).toMatchObject({ cause: guestCause, iotval: 0x4000n, iotval2: 0n });
      }
    },
  );

  it("a second-stage fault on an entry of the process directory is 265 (§3.3.2)", () => {
    const { guest } = ready();
    // PD20 whose level-2 table is in memory and whose entry for process 0x20000 points outside it.
    guest.store64(PLACE.tables + 8n, (0x5_0000n << 10n) | 1n);
    guest.installContext(1, { tc: TC.V | TC.PDTV, fsc: (3n << 60n) | TABLE });
    const entry = 0x5000_0000n;
    guest.hostFault({ cause: 21, deviceId: 1, processId: 0x2_0000, iotval: 0x4000n, iotval2: entry | 1n });
    // The same address of another process_id's request is not on its way.
    guest.hostFault({ cause: 21, deviceId: 1, processId: 0x4_0000, iotval: 0x4000n, iotval2: entry | 1n });
    // Nor is one next to the entry.
    guest.hostFault({ cause: 21, deviceId: 1, processId: 0x2_0000, iotval: 0x4000n, iotval2: (entry + 8n) | 1n });
    // Nor an explicit access to that page.
    guest.hostFault({ cause: 21, deviceId: 1, processId: 0x2_0000, iotval: 0x4000n, iotval2: entry });
    expect(guest.takeFaults().map(({ cause, iotval2 }) => [cause, iotval2])).toEqual([
      [265, 0n],
      [5, 0n],
      [5, 0n],
      [5, 0n],
    ]);
  });

  it("a request without process_id looks process 0 up under DPE (§3.3 step 7)", () => {
    const { guest } = ready();
    guest.installContext(1, { tc: TC.V | TC.PDTV | TC.DPE, fsc: (1n << 60n) | 0x5_0000n });
    guest.hostFault({ cause: 21, deviceId: 1, iotval: 0x4000n, iotval2: 0x5000_0001n });
    expect(guest.takeFaults()[0]!.cause).toBe(265);
  });

  it.each([257, 268, 261, 262, 263, 264, 270, 271])(
    "cause %i speaks of the host's own tables: the guest sees an internal error (272)",
    (cause) => {
      const { guest } = ready();
      guest.hostFault({ cause, deviceId: 1, iotval: 0x4000n, iotval2: 0x1000n });
      expect(guest.takeFaults()[0]).toMatchObject({ cause: 272, iotval2: 0n });
    },
  );

  it.each([1, 5, 7, 12, 13, 15, 260, 265, 266, 267, 269, 274])("cause %i passes as it is", (cause) => {
    const { guest } = ready();
    guest.hostFault({ cause, deviceId: 1, iotval: 0x4000n });
    expect(guest.takeFaults()[0]).toMatchObject({ cause, iotval: 0x4000n });
  });

  it("a record for a device that is not here is dropped and reported", () => {
    const { guest } = ready();
    guest.hostFault({ cause: 13, deviceId: 77 });
    expect(guest.takeFaults()).toEqual([]);
    expect(guest.reports.length).toBe(1);
  });

  it("messages about such records end after a while", () => {
    const { guest } = ready();
    for (let i = 0; i < 1000; i++) guest.hostFault({ cause: 13, deviceId: 77 });
    expect(guest.reports.length).toBe(201);
    expect(guest.reports.at(-1)).toMatch(/not shown/);
  });

  it("a host event that is no record does no harm", () => {
    const { guest, host } = ready();
    host.deliver({ kind: "fault", record: new Uint8Array(3) });
    guest.settle();
    expect(guest.takeFaults()).toEqual([]);
  });

  it("a full queue sets fqof; records are discarded until it is cleared (§6.16)", () => {
    const { guest } = ready({ faultsLog2: 2 });
    for (let i = 0; i < 5; i++) guest.hostFault({ deviceId: 1, iotval: BigInt(i) << 12n });
    expect(guest.read32(REG.fqcsr) & FQOF).toBe(FQOF);
    // Capacity is entries - 1.
    expect(guest.takeFaults().map(({ iotval }) => iotval)).toEqual([0n, 0x1000n, 0x2000n]);
    guest.hostFault({ deviceId: 1 });
    expect(guest.takeFaults()).toEqual([]);
    guest.write32(REG.fqcsr, FQOF | 3);
    guest.hostFault({ deviceId: 1, iotval: 0x9000n });
    expect(guest.takeFaults().length).toBe(1);
  });

  it("a queue in memory that is not there sets fqmf and discards", () => {
    const { guest } = ready();
    guest.write32(REG.fqcsr, 0);
    guest.write64(REG.fqb, (0x10n << 10n) | 3n);
    guest.write32(REG.fqcsr, 3);
    guest.hostFault({ deviceId: 1 });
    expect(guest.read32(REG.fqcsr) & FQMF).toBe(FQMF);
    expect(guest.read32(REG.fqt)).toBe(0);
    expect(guest.viommu.faults.discarded).toBe(1);
  });

  it("with the queue off records are discarded silently", () => {
    const { guest } = ready();
    guest.write32(REG.fqcsr, 0);
    guest.hostFault({ deviceId: 1 });
    expect(guest.read32(REG.fqcsr)).toBe(0);
    expect(guest.read32(REG.ipsr) & FIP).toBe(0);
  });

  it("events the host lost show as fqof, after the records that did come", () => {
    const { guest, host } = ready();
    host.waiting.push({ kind: "lost", count: 3 });
    guest.hostFault({ deviceId: 1, iotval: 0x7000n });
    expect(guest.takeFaults().map(({ iotval }) => iotval)).toEqual([0x7000n]);
    expect(guest.read32(REG.fqcsr) & FQOF).toBe(FQOF);
    expect(guest.read32(REG.ipsr) & FIP).toBe(FIP);
  });

  it("what the host had to report before a fence is in the queue when the fence completes", () => {
    const { guest, host } = ready();
    const [word] = [new Uint8Array(32)];
    new DataView(word!.buffer).setBigUint64(0, 13n | (1n << 40n), true);
    host.deliver({ kind: "fault", record: word! });
    guest.run(["IOFENCE.C", {}]);
    expect(guest.takeFaults().length).toBe(1);
    expect(guest.viommu.flagged).toBe(false);
  });

  it("a host that reports without end does not hang the VM", () => {
    const { guest, host } = ready();
    const record = new Uint8Array(32);
    host.events = () =>
      ({
        length: Number.MAX_SAFE_INTEGER,
        *[Symbol.iterator]() {
          for (;;) yield { kind: "fault", record } as const;
        },
      }) as never;
    host.onEvents?.();
    guest.settle();
    expect(guest.read32(REG.fqcsr) & FQOF).toBe(FQOF);
  });

  it("a fault record is a guest event in the trace, with the guest's ids", () => {
    const { guest } = ready();
    const events: unknown[] = [];
    guest.trace.addSink({ event: (event) => events.push(event) });
    guest.hostFault({ cause: 13, deviceId: 1, iotval: 0x4000n });
    expect(events).toContainEqual(
      expect.objectContaining({ type: "fault", where: "guest", faultCause: 13, deviceId: 1, iotval: 0x4000n }),
    );
  });
});

describe("interrupts", () => {
  const programMessage = (guest: Guest, vector: number, address: bigint, data: number, mask = 0) => {
    guest.write64(REG.msi_cfg_tbl + 16 * vector, address);
    guest.write32(REG.msi_cfg_tbl + 16 * vector + 8, data);
    guest.write32(REG.msi_cfg_tbl + 16 * vector + 12, mask);
  };

  it("a fault record sends the message of icvec.fiv once while fip stays set (§6.18)", () => {
    const { guest } = ready();
    guest.write64(REG.icvec, 0x10n);
    programMessage(guest, 1, MSI_PAGE + 4n, 42);
    guest.hostFault({ deviceId: 1 });
    guest.hostFault({ deviceId: 1 });
    expect(guest.messages).toEqual([[4, 42]]);
    guest.write32(REG.ipsr, FIP);
    expect(guest.read32(REG.ipsr)).toBe(0);
    guest.hostFault({ deviceId: 1 });
    expect(guest.messages.length).toBe(2);
  });

  it("a masked message is held and sent when the mask goes (§6.29)", () => {
    const { guest } = ready();
    programMessage(guest, 0, MSI_PAGE, 7, 1);
    guest.hostFault({ deviceId: 1 });
    expect(guest.messages).toEqual([]);
    guest.write32(REG.msi_cfg_tbl + 12, 0);
    expect(guest.messages).toEqual([[0, 7]]);
    guest.write32(REG.msi_cfg_tbl + 12, 0);
    expect(guest.messages.length).toBe(1);
  });

  it("while the condition holds, clearing the ipsr bit sets it again and sends again (§6.18)", () => {
    const { guest } = ready({ faultsLog2: 1 });
    programMessage(guest, 0, MSI_PAGE, 7);
    guest.hostFault({ deviceId: 1 });
    guest.hostFault({ deviceId: 1 });
    expect(guest.read32(REG.fqcsr) & FQOF).toBe(FQOF);
    guest.write32(REG.ipsr, FIP);
    expect(guest.read32(REG.ipsr)).toBe(FIP);
    expect(guest.messages.length).toBe(2);
  });

  it("a message that meets nothing is a record of cause 273 with its address, and no storm (§6.29)", () => {
    const { guest } = ready();
    programMessage(guest, 0, 0x1_0000n, 7);
    guest.hostFault({ deviceId: 1, cause: 13 });
    expect(guest.takeFaults().map(({ cause, iotval, ttyp }) => [cause, iotval, ttyp])).toEqual([
      [13, 0n, 2],
      [273, 0x1_0000n, 0],
    ]);
  });

  it("with WSI wires follow ipsr as levels, shared vectors as an OR (§6.18)", () => {
    const host = new RecordingHost();
    const guest = new Guest({ host, configuration: { interrupts: "wired" } });
    guest.plug(1);
    guest.enableDirectory();
    guest.enableQueues();
    guest.write64(REG.icvec, 0x11n);
    guest.run(["IOFENCE.C", { WSI: 1 }]);
    expect(guest.wires.get(1)).toBe(true);
    guest.hostFault({ deviceId: 1 });
    guest.write32(REG.cqcsr, (1 << 11) | 3);
    guest.write32(REG.ipsr, 1);
    expect(guest.wires.get(1)).toBe(true);
    guest.write32(REG.ipsr, 2);
    expect(guest.wires.get(1)).toBe(false);
    expect(guest.wireChanges).toEqual([
      [1, true],
      [1, false],
    ]);
    expect(guest.messages).toEqual([]);
  });

  it("a wire moves with icvec (§6.28)", () => {
    const host = new RecordingHost();
    const guest = new Guest({ host, configuration: { interrupts: "wired" } });
    guest.plug(1);
    guest.enableDirectory();
    guest.enableQueues();
    guest.hostFault({ deviceId: 1 });
    guest.write64(REG.icvec, 0x30n);
    expect([guest.wires.get(0), guest.wires.get(3)]).toEqual([false, true]);
  });

  it("an illegal command raises cip, and so does enabling the interrupt afterwards (§6.18)", () => {
    const host = new RecordingHost();
    const guest = new Guest({ host });
    guest.enableQueues({ quiet: true });
    programMessage(guest, 0, MSI_PAGE, 9);
    guest.writeRaw([0n, 0n]);
    guest.ringDoorbell();
    expect(guest.messages).toEqual([]);
    guest.write32(REG.cqcsr, 3);
    expect(guest.messages).toEqual([[0, 9]]);
  });

  it("reset lowers every wire", () => {
    const guest = new Guest({ configuration: { interrupts: "wired" } });
    guest.enableQueues();
    guest.run(["IOFENCE.C", { WSI: 1 }]);
    expect(guest.wires.get(0)).toBe(true);
    guest.viommu.reset();
    expect(guest.wires.get(0)).toBe(false);
  });
});
