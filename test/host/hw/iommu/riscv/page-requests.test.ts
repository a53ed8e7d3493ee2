/**
 * Page Requests and Stop Markers on the hardware model (§3.7): what is queued, what the IOMMU answers itself and with which code, what it records. The
 * expected values are the specification's table, written out.
 */
import { describe, expect, it } from "vitest";
import { CONTEXT, DEVICE, firstStageScene, type Scene, TC } from "../../../../oracle/riscv-iommu/cases/scene.ts";
import { HardwareSubject, PAGE_REQUESTS, REGISTER } from "../../../../oracle/riscv-iommu/hardware-adapter.ts";
import type { PageRequest } from "../../../../oracle/riscv-iommu/page-request.ts";

const PLAIN: PageRequest = {
  deviceId: DEVICE,
  processId: 3n,
  privileged: true,
  execute: true,
  read: true,
  write: false,
  last: true,
  group: 0x155n,
  address: 0x1234_5000n,
};

function machine(scene: Scene = enabled()): HardwareSubject {
  return new HardwareSubject(scene.implementation, scene.ddtp, scene.memory, "default");
}

function enabled(): Scene {
  return firstStageScene().change(CONTEXT, (tc) => tc | TC.EN_PRI);
}

function send(subject: HardwareSubject, change: Partial<PageRequest> = {}) {
  const { page, records } = subject.pageRequest({ ...PLAIN, ...change });
  return { ...page, records };
}

/** A queue with room for `spare` more requests. */
function filled(subject: HardwareSubject, spare: number): HardwareSubject {
  // 256 entries hold 255 (§6.12): the tail is put there by requests that nobody takes off.
  const pqh = subject.read(REGISTER.pqt, 4);
  for (let count = 0; count < 255 - spare; count++) subject.iommu.pageRequest(Number(DEVICE), -1, count, 1, 1);
  expect(subject.read(REGISTER.pqh, 4)).toBe(pqh);
  return subject;
}

describe("a Page Request", () => {
  it("is queued with its process, privilege and payload", () => {
    const low = (DEVICE << 40n) | (0b111n << 32n) | (3n << 12n);
    const high = 0x1234_5000n | (0x155n << 3n) | 0b101n;
    expect(send(machine())).toEqual({ queued: [low, high], response: null, records: [] });
  });

  it("without PASID has neither PRIV nor EXEC in its record", () => {
    const { queued } = send(machine(), { processId: null, write: true, read: false, last: false });
    expect(queued).toEqual([DEVICE << 40n, 0x1234_5000n | (0x155n << 3n) | 0b010n]);
  });

  it("is answered Response Failure with its PASID, and recorded, where the context cannot be found (256 to 259)", () => {
    const off = enabled();
    off.ddtp = { mode: "off", ppn: 0n };
    const cases: [Scene, number][] = [
      [off, 256],
      [enabled().inject(CONTEXT, "access"), 257],
      [enabled().put(CONTEXT, 0n), 258],
      [enabled().change(CONTEXT, (tc) => tc | (1n << 12n)), 259],
    ];
    for (const [scene, cause] of cases) {
      expect(send(machine(scene))).toMatchObject({
        queued: null,
        response: { code: 15, processId: 3n, group: 0x155n },
        records: [{ cause, ttyp: 9, did: DEVICE, pv: true, pid: 3n, priv: true, iotval: 4n, iotval2: 0n }],
      });
    }
  });

  it("is answered Invalid Request, and recorded as 260, where requests are not allowed; without PASID as PRPR is 0", () => {
    const bare = enabled();
    bare.ddtp = { mode: "bare", ppn: 0n };
    for (const [scene, change] of [
      [bare, {}],
      [firstStageScene(), {}],
      [enabled(), { deviceId: 0x45n }],
    ] as const) {
      expect(send(machine(scene), change)).toMatchObject({
        queued: null,
        response: { code: 1, processId: null },
        records: [{ cause: 260, ttyp: 9, iotval: 4n }],
      });
    }
  });

  it("leaves no record of a 260 with DTF", () => {
    const scene = firstStageScene().change(CONTEXT, (tc) => tc | TC.DTF);
    expect(send(machine(scene))).toMatchObject({ response: { code: 1 }, records: [] });
  });

  it("is answered Response Failure, without a record, while the queue is off", () => {
    const subject = machine();
    subject.write(REGISTER.pqcsr, 4, 0n);
    expect(send(subject)).toEqual({ queued: null, response: { code: 15, processId: 3n, group: 0x155n }, records: [] });
  });

  it("is answered Success where the queue is full, and from then on while pqof stands", () => {
    const scene = enabled().change(CONTEXT, (tc) => tc | TC.PRPR);
    const subject = filled(machine(scene), 0);
    expect(subject.read(REGISTER.pqcsr, 4) & 0x200n).toBe(0n);
    subject.pageRequest(PLAIN);
    expect(subject.read(REGISTER.pqcsr, 4) & 0x200n).toBe(0x200n);
    // Emptied, but pqof still stands: the request is discarded all the same (§6.17).
    subject.write(REGISTER.pqh, 4, subject.read(REGISTER.pqt, 4));
    expect(send(subject)).toEqual({ queued: null, response: { code: 0, processId: 3n, group: 0x155n }, records: [] });
    subject.write(REGISTER.pqcsr, 4, 0x201n);
    expect(send(subject).queued).not.toBeNull();
  });

  it("fits a queue that has one place left", () => {
    const subject = filled(machine(), 1);
    subject.iommu.pageRequest(Number(DEVICE), -1, 9, 1, 1);
    expect(subject.read(REGISTER.pqcsr, 4) & 0x200n).toBe(0n);
    expect((subject.read(REGISTER.pqt, 4) + 1n) % 256n).toBe(subject.read(REGISTER.pqh, 4));
  });

  it("is answered Response Failure where the queue's memory faults, and pqmf is set", () => {
    const scene = enabled().inject(BigInt(PAGE_REQUESTS) << 12n, "access");
    const subject = machine(scene);
    expect(send(subject)).toEqual({ queued: null, response: { code: 15, processId: 3n, group: 0x155n }, records: [] });
    expect(subject.read(REGISTER.pqcsr, 4) & 0x100n).toBe(0x100n);
  });

  it("that is not the last of its group, or a Stop Marker, is never answered", () => {
    const subject = machine(firstStageScene());
    expect(send(subject, { last: false }).response).toBeNull();
    const marker = { read: false, write: false, privileged: false, execute: false, group: 0n, address: 0n };
    expect(send(subject, marker).response).toBeNull();
    // Where requests are allowed, a Stop Marker is queued like one: PASID, L=1, R=W=0.
    expect(send(machine(), marker).queued).toEqual([(DEVICE << 40n) | (1n << 32n) | (3n << 12n), 0b100n]);
  });
});
