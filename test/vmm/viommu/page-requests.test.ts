import { describe, expect, it } from "vitest";
import { decodePageRequest, type PageRequestRecord } from "../../../host/arch/riscv/page-requests.ts";
import { REG } from "../../../host/arch/riscv/registers.ts";
import type { HostEvent } from "../../../vmm/viommu/host-port.ts";
import { Guest, PLACE, SV39, TC } from "./guest.ts";
import { RecordingHost } from "./hosts.ts";

const PQMF = 1 << 8;
const PQOF = 1 << 9;
const PIP = 8;
const PRI_CONTEXT = { tc: TC.V | TC.EN_ATS | TC.EN_PRI, fsc: SV39 | (PLACE.tables >> 12n) };

function ready(): { guest: Guest; host: RecordingHost } {
  const host = new RecordingHost();
  const guest = new Guest({ host });
  for (const id of [1, 2]) guest.plug(id, { ats: true, pri: true });
  guest.enableDirectory();
  guest.enableQueues({ pageRequests: true });
  for (const id of [1, 2]) guest.installContext(id, PRI_CONTEXT);
  return { guest, host };
}

type Request = Partial<Extract<HostEvent, { kind: "page-request" }>>;

function request(guest: Guest, host: RecordingHost, more: Request): void {
  host.deliver({
    kind: "page-request",
    device: 1,
    guestId: 1,
    cookie: 1,
    pasid: null,
    group: 0,
    last: true,
    permissions: 1,
    address: 0x4000n,
    ...more,
  });
  guest.settle();
}

function records(guest: Guest): PageRequestRecord[] {
  const taken: PageRequestRecord[] = [];
  for (let head = guest.read32(REG.pqh); head !== guest.read32(REG.pqt); head = (head + 1) & 15) {
    const at = PLACE.pages + BigInt(16 * head);
    taken.push(decodePageRequest([guest.load64(at), guest.load64(at + 8n)]));
    guest.write32(REG.pqh, (head + 1) & 15);
  }
  return taken;
}

describe("page requests", () => {
  it("reach the guest's queue with its device id and set pip (§3.7)", () => {
    const { guest, host } = ready();
    request(guest, host, { pasid: 5, group: 9, permissions: 1 | 2 | 8, address: 0x1234_5000n });
    expect(records(guest)).toEqual([
      {
        deviceId: 1,
        processId: 5,
        privileged: true,
        execute: false,
        read: true,
        write: true,
        last: true,
        group: 9,
        address: 0x1234_5000n,
      },
    ]);
    expect(guest.read32(REG.ipsr) & PIP).toBe(PIP);
    expect(host.responses).toEqual([]);
  });

  it("EXEC and PRIV are 0 without a process_id (§4.3)", () => {
    const { guest, host } = ready();
    request(guest, host, { permissions: 1 | 4 | 8 });
    expect(records(guest)[0]).toMatchObject({ processId: -1, privileged: false, execute: false });
  });

  it("ATS.PRGR answers with the cookie of the group; code 0 is SUCCESS, others INVALID", () => {
    const { guest, host } = ready();
    request(guest, host, { cookie: 11, group: 3 });
    request(guest, host, { cookie: 12, group: 4 });
    guest.run(
      ["ATS.PRGR", { RID: 1, PRGI: 4, code: 15 }],
      ["ATS.PRGR", { RID: 1, PRGI: 3, code: 0 }],
      ["IOFENCE.C", {}],
    );
    expect(host.responses).toEqual([
      { cookie: 12, code: 1 },
      { cookie: 11, code: 0 },
    ]);
    expect(host.batches.flat().filter(([word]) => (word & 0x7fn) === 4n)).toEqual([]);
  });

  it("two devices with the same group index are kept apart", () => {
    const { guest, host } = ready();
    request(guest, host, { cookie: 21, device: 1, group: 7 });
    request(guest, host, { cookie: 22, device: 2, group: 7 });
    guest.run(["ATS.PRGR", { RID: 2, PRGI: 7 }]);
    expect(host.responses).toEqual([{ cookie: 22, code: 0 }]);
  });

  it("process_ids with the same group index are kept apart", () => {
    const { guest, host } = ready();
    request(guest, host, { cookie: 31, pasid: 1, group: 7 });
    request(guest, host, { cookie: 32, pasid: 2, group: 7 });
    guest.run(["ATS.PRGR", { RID: 1, PV: 1, PID: 2, PRGI: 7 }]);
    expect(host.responses).toEqual([{ cookie: 32, code: 0 }]);
  });

  it("an answer nobody asked for, or a second one, is dropped", () => {
    const { guest, host } = ready();
    request(guest, host, { cookie: 41, group: 1 });
    guest.run(
      ["ATS.PRGR", { RID: 1, PRGI: 2 }],
      ["ATS.PRGR", { RID: 9, PRGI: 1 }],
      ["ATS.PRGR", { RID: 1, PRGI: 1 }],
      ["ATS.PRGR", { RID: 1, PRGI: 1 }],
      ["IOFENCE.C", {}],
    );
    expect(host.responses).toEqual([{ cookie: 41, code: 0 }]);
    expect(guest.read32(REG.cqcsr) & 0xf00).toBe(0);
  });

  it("what stands before a response in the queue is done before the device is told", () => {
    const { guest, host } = ready();
    request(guest, host, { cookie: 51, group: 1 });
    let batchesAtResponse = -1;
    host.respond = () => {
      batchesAtResponse = host.batches.length;
      return 0;
    };
    host.batches.length = 0;
    guest.run(["IOTINVAL.VMA", {}], ["ATS.PRGR", { RID: 1, PRGI: 1 }]);
    expect(batchesAtResponse).toBe(1);
  });

  it("a full queue sets pqof; the device is told Success, so that it asks again (§3.7)", () => {
    const { guest, host } = ready();
    for (let i = 0; i < 16; i++) request(guest, host, { cookie: 100 + i, group: i });
    expect(guest.read32(REG.pqcsr) & PQOF).toBe(PQOF);
    expect(host.responses).toEqual([{ cookie: 115, code: 0 }]);
    expect(records(guest).length).toBe(15);
  });

  it("only the last request of a group that found no room is answered (§3.7)", () => {
    const { guest, host } = ready();
    for (let i = 0; i < 15; i++) request(guest, host, { cookie: 100 + i, group: i });
    request(guest, host, { cookie: 200, group: 40, last: false });
    expect(host.responses).toEqual([]);
    request(guest, host, { cookie: 200, group: 40, last: true });
    expect(host.responses).toEqual([{ cookie: 200, code: 0 }]);
  });

  it("with the queue off, or in memory that is not there, the response is a failure (§3.7)", () => {
    const { guest, host } = ready();
    guest.write32(REG.pqcsr, 0);
    request(guest, host, { cookie: 61 });
    guest.write64(REG.pqb, (0x10n << 10n) | 3n);
    guest.write32(REG.pqcsr, 3);
    request(guest, host, { cookie: 62 });
    expect(guest.read32(REG.pqcsr) & PQMF).toBe(PQMF);
    expect(host.responses).toEqual([
      { cookie: 61, code: 1 },
      { cookie: 62, code: 1 },
    ]);
    expect(guest.takeFaults()).toEqual([]);
  });

  it("without EN_PRI the answer is Invalid Request, with a record of cause 260, TTYP 9, message code 4 (§3.7)", () => {
    const { guest, host } = ready();
    guest.installContext(1, { tc: TC.V | TC.EN_ATS, fsc: SV39 | (PLACE.tables >> 12n) });
    request(guest, host, { cookie: 71, pasid: 3 });
    expect(host.responses).toEqual([{ cookie: 71, code: 1 }]);
    expect(guest.takeFaults()).toEqual([
      expect.objectContaining({ cause: 260, ttyp: 9, iotval: 4n, deviceId: 1, processId: 3 }),
    ]);
  });

  it("DTF keeps that record out (§4.2)", () => {
    const { guest, host } = ready();
    guest.installContext(1, { tc: TC.V | TC.DTF });
    request(guest, host, { cookie: 72 });
    expect(guest.takeFaults()).toEqual([]);
    expect(host.responses.length).toBe(1);
  });

  it("a request of a blocked device fails, with a record of the cause kept for it", () => {
    const { guest, host } = ready();
    guest.installContext(1, { tc: 0n });
    request(guest, host, { cookie: 73 });
    expect(host.responses).toEqual([{ cookie: 73, code: 1 }]);
    expect(guest.takeFaults()[0]).toMatchObject({ cause: 258, ttyp: 9, iotval: 4n });
  });

  it("a guest that never answers: unplugging the device answers for it", () => {
    const { guest, host } = ready();
    request(guest, host, { cookie: 81, group: 1 });
    request(guest, host, { cookie: 82, device: 2, group: 1 });
    guest.viommu.unplug(1);
    expect(host.responses).toEqual([{ cookie: 81, code: 1 }]);
    expect(guest.viommu.pageRequests.unanswered).toBe(1);
  });

  it("another context answers what was asked under the one before", () => {
    const { guest, host } = ready();
    request(guest, host, { cookie: 83, group: 1 });
    guest.installContext(1, { tc: 0n });
    expect(host.responses).toEqual([{ cookie: 83, code: 1 }]);
    guest.run(["ATS.PRGR", { RID: 1, PRGI: 1 }]);
    expect(host.responses.length).toBe(1);
  });

  it("a reset of the device, or of the whole IOMMU, answers too", () => {
    const { guest, host } = ready();
    request(guest, host, { cookie: 91, group: 1 });
    guest.viommu.deviceReset(1);
    request(guest, host, { cookie: 92, device: 2, group: 1 });
    guest.viommu.reset();
    expect(host.responses).toEqual([
      { cookie: 91, code: 1 },
      { cookie: 92, code: 1 },
    ]);
  });

  it("a guest that drains its queue and never answers does not make us grow", () => {
    const { guest, host } = ready();
    for (let i = 0; i < 5000; i++) {
      request(guest, host, { cookie: i, pasid: i, group: i & 511 });
      records(guest);
    }
    expect(guest.viommu.pageRequests.unanswered).toBe(4096);
    expect(host.responses.length).toBe(5000 - 4096);
    expect(host.responses.every(({ code }) => code === 1)).toBe(true);
  });

  it("a request from a device nobody knows is refused", () => {
    const { guest, host } = ready();
    request(guest, host, { cookie: 95, device: 77 });
    expect(host.responses).toEqual([{ cookie: 95, code: 1 }]);
  });
});
