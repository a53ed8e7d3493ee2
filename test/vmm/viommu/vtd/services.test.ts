// PASIDs, ATS, page requests and interrupts of the guest-visible VT-d unit: what it asks of its host, what of device models, and what it tells its guest.

import { describe, expect, it } from "vitest";
import {
  ATS_SUCCESS,
  ATS_UNSUPPORTED_REQUEST,
  type AtsTarget,
  DMA_ABORTED,
  DMA_OK,
} from "../../../../host/devices/ports.ts";
import { iommuHwptVtdS1 } from "../../../../host/uapi/vtd-nesting.ts";
import type { HostEvent } from "../../../../vmm/viommu/host-port.ts";
import type { Stage1 } from "../../../../vmm/viommu/vtd/guest/stage1.ts";
import { build, type Unit } from "./guest.ts";

const ALL = (1n << 64n) - 1n;

function prepared(configuration = {}) {
  const unit = build(configuration, true);
  const driver = unit.bringUp();
  const set = (
    id: number,
    whole: Stage1 | "bypass" | null,
    pasids: [number, Stage1 | "bypass"][],
    services = false,
  ): void => driver.installTranslation(id, { whole, pasids: new Map(pasids), ats: services, pageRequests: services });
  /** What the host was told since the last question, by PASID. */
  const told = () =>
    unit.host.calls
      .splice(0)
      .filter(({ call }) => call !== "attach")
      .map(({ call, pasid, data }) => [
        ...[call, pasid],
        ...(data === undefined ? [] : [iommuHwptVtdS1.decode(data).pgtbl_addr]),
      ]);
  return { unit, driver, set, told };
}

describe("PASIDs", () => {
  it("are offered as the host has them, ten bits at most, and not where the machine says no", () => {
    const offer = (unit: Unit) => unit.bringUp().offer;
    expect(offer(build({}, true))).toEqual({ ats: true, pageRequests: true, pasidBits: 10 });
    expect(offer(build({}))).toEqual({ ats: false, pageRequests: false, pasidBits: 0 });
    expect(offer(build({ pasid: false, ats: false }, true))).toEqual({ ats: false, pageRequests: false, pasidBits: 0 });
  });

  it("are attached one by one; what changes is one call, what stays is none", () => {
    const { unit, driver, set, told } = prepared();
    unit.plug(1);
    const [a, b, c] = [5, 6, 7].map((domain) => unit.stage1(domain)) as [Stage1, Stage1, Stage1];
    set(1, a, [
      [1, b],
      [9, "bypass"],
    ]);
    expect(new Set(told())).toEqual(
      new Set([
        ["setNested", undefined, a.root],
        ["setNested", 1, b.root],
        ["setBypass", 9],
      ]),
    );
    set(1, a, [
      [1, c],
      [9, "bypass"],
    ]);
    expect(told()).toEqual([
      ["setBlocked", 1],
      ["setNested", 1, c.root],
    ]);
    driver.clear(1, 9);
    expect(told()).toEqual([["setBlocked", 9]]);
    driver.write32(0x18, driver.read32(0x1c) & 0x16ff_ffff); // TE off
    expect(told()).toEqual([
      ["setBypass", undefined],
      ["setBlocked", 1],
    ]);
  });

  it("have invalidations of their own, by domain id and PASID", () => {
    const { unit, driver, set } = prepared();
    unit.plug(1);
    const [a, b] = [unit.stage1(5), unit.stage1(6)];
    set(1, a, [
      [1, b],
      [2, b],
    ]);
    unit.host.ranges.length = 0;
    driver.descriptor("pasidIotlb", { G: 3, DID: 6, PASID: 2, ADDR: 7 });
    driver.fence();
    expect(unit.host.ranges).toEqual([{ device: 101, pasid: 2, entries: [[0x7000n, 1n, 0]] }]);
    unit.host.ranges.length = 0;
    driver.descriptor("pasidIotlb", { G: 3, DID: 5, PASID: 2, ADDR: 7 });
    driver.fence();
    expect(unit.host.ranges, "another domain's").toEqual([]);
    driver.descriptor("iotlb", { G: 2, DID: 6 });
    driver.fence();
    const everything = [[0n, ALL, 0]];
    expect(unit.host.ranges, "by domain: all that a first stage has a part in (§6.5.2.3)").toEqual([
      { device: 101, pasid: 1, entries: everything },
      { device: 101, pasid: 2, entries: everything },
    ]);
  });

  it("that the host refuses are blocked and told, with their PASID; tried again when the guest says so", () => {
    const { unit, driver, set, told } = prepared();
    unit.plug(1);
    const a = unit.stage1(5);
    set(1, a, [[9, "bypass"]]);
    unit.host.refuse = { setNested: -12 };
    set(1, a, [
      [9, "bypass"],
      [3, unit.stage1(6)],
    ]);
    expect(driver.takeFaults().map(({ reason, sourceId, pasid }) => [reason, sourceId, pasid])).toContainEqual([
      0x30, 1, 3,
    ]);
    unit.host.refuse = {};
    told();
    driver.descriptor("pasidCache", { G: 1, DID: 6, PASID: 3 });
    driver.fence();
    expect(told().map(([call, pasid]) => [call, pasid])).toContainEqual(["setNested", 3]);
  });

  it("that the host does not block are tried until it does", () => {
    const { unit, driver, set, told } = prepared();
    unit.plug(1);
    set(1, unit.stage1(5), [[3, unit.stage1(6)]]);
    unit.host.refuse = { setBlocked: -16 };
    driver.clear(1, 3);
    expect(unit.reports.join()).toContain("PASID 3 of device 00:01.0");
    told();
    unit.host.refuse = {};
    driver.descriptor("pasidCache", { G: 1, DID: 99, PASID: 77 });
    driver.fence();
    expect(told()).toEqual([["setBlocked", 3]]);
    driver.descriptor("pasidCache", { G: 3 });
    driver.fence();
    expect(told(), "once").toEqual([]);
  });

  it("are not for devices that share an iommu group, nor for those that have none", () => {
    const { unit, set, told } = prepared();
    unit.plug(1, { stream: "iommu group 3" });
    set(1, unit.stage1(5), [[3, unit.stage1(6)]]);
    expect(told().every(([, pasid]) => pasid === undefined)).toBe(true);
    const other = prepared();
    other.unit.host.pasidBits = 0;
    other.unit.plug(1);
    other.set(1, other.unit.stage1(5), [[3, other.unit.stage1(6)]]);
    expect(other.told().every(([, pasid]) => pasid === undefined)).toBe(true);
  });
});

describe("page requests of an assigned device", () => {
  const request = (more: Partial<HostEvent & { kind: "page-request" }> = {}): HostEvent => ({
    ...{ kind: "page-request", device: 101, guestId: 1, cookie: 7, pasid: null, group: 4, last: true },
    ...{ permissions: 3, address: 0x9000n },
    ...more,
  });

  it("come to the guest with PRE, and its answer goes back by the cookie", () => {
    const { unit, driver, set } = prepared();
    unit.plug(1);
    set(1, unit.stage1(5), [[2, unit.stage1(6)]], true);
    expect(unit.host.calls.filter(({ call }) => call === "setNested").every((call) => call.pageRequests === true)).toBe(
      true,
    );
    unit.host.deliver(request());
    unit.host.deliver(request({ cookie: 8, pasid: 2, group: 5, permissions: 1 }));
    unit.viommu.service();
    const found = driver.takeRequests();
    expect(
      found.map(({ deviceId, pasid, address, read, write, last }) => [deviceId, pasid, address, read, write, last]),
    ).toEqual([
      [1, null, 0x9000n, true, true, true],
      [1, 2, 0x9000n, true, false, true],
    ]);
    found[1]!.answer("invalid");
    found[0]!.answer("success");
    expect(unit.host.responses).toEqual([
      { cookie: 8, code: 1 },
      { cookie: 7, code: 0 },
    ]);
    found[0]!.answer("success");
    expect(unit.host.responses, "an answer that nobody waits for").toHaveLength(2);
  });

  it("that wait in the host are there before a wait completes", () => {
    const { unit, driver, set } = prepared();
    unit.plug(1);
    set(1, unit.stage1(5), [], true);
    unit.host.deliver(request());
    driver.descriptor("wait", { PD: 1 });
    driver.ringDoorbell();
    expect(driver.takeRequests()).toHaveLength(1);
  });

  it("without PRE are refused, with SCT.8 (47h)", () => {
    const { unit, driver, set } = prepared();
    unit.plug(1);
    set(1, unit.stage1(5), []);
    expect(unit.host.calls.findLast(({ call }) => call === "setNested")!.pageRequests).toBe(false);
    unit.host.deliver(request());
    unit.viommu.service();
    expect(unit.host.responses).toEqual([{ cookie: 7, code: 1 }]);
    expect(driver.takeFaults().map(({ reason }) => reason)).toEqual([0x47]);
  });

  it("overflow the queue: answered with success, for the device to try again (§7.4)", () => {
    const { unit, driver, set } = prepared();
    unit.plug(1);
    set(1, unit.stage1(5), [], true);
    for (let cookie = 0; cookie < 200; cookie++) unit.host.deliver(request({ cookie, group: cookie }));
    unit.viommu.service();
    expect(driver.read32(0xdc) & 2, "PRO").toBe(2);
    expect(unit.host.responses.map(({ code }) => code)).toEqual(new Array(200 - 127).fill(0));
  });

  it("are void when its context goes", () => {
    const { unit, driver, set } = prepared();
    unit.plug(1);
    set(1, unit.stage1(5), [], true);
    unit.host.deliver(request());
    unit.viommu.service();
    driver.clear(1);
    expect(unit.host.responses).toEqual([{ cookie: 7, code: 1 }]);
  });
});

describe("device TLBs", () => {
  it("of assigned devices are ranges of their first stages", () => {
    const { unit, driver, set } = prepared();
    unit.plug(1);
    set(1, unit.stage1(5), [[2, unit.stage1(6)]], true);
    unit.host.ranges.length = 0;
    driver.descriptor("deviceTlb", { SID: 1, S: 1, ADDR: 0x13 });
    driver.descriptor("pasidDeviceTlb", { SID: 1, PASID: 2, ADDR: 0x40 });
    driver.descriptor("deviceTlb", { SID: 2, ADDR: 1 });
    driver.fence();
    // S with the lowest 0 at bit 2: eight pages.
    expect(unit.host.ranges).toEqual([
      { device: 101, entries: [[0x1_0000n, 8n, 0]] },
      { device: 101, pasid: 2, entries: [[0x4_0000n, 1n, 0]] },
    ]);
    unit.host.ranges.length = 0;
    driver.descriptor("pasidDeviceTlb", { SID: 1, PASID: 2, G: 1, S: 1, ADDR: (1n << 51n) - 1n });
    driver.fence();
    expect(unit.host.ranges.map(({ pasid }) => pasid)).toEqual([undefined, 2]);
  });

  /** A model whose cache is told, and completes when the test says so. */
  function model(prompt = false) {
    const invalidated: unknown[] = [];
    const answers: unknown[] = [];
    const target: AtsTarget = {
      invalidate: (first, pages, pasid, global, itag) => {
        invalidated.push([first, pages, pasid, global, itag]);
        return prompt;
      },
      pageResponse: (pasid, group, code) => void answers.push([pasid, group, code]),
    };
    return { target, invalidated, answers };
  }

  it("of a model are waited for, and one that is silent aborts the wait (§6.5.2.10)", () => {
    const { unit, driver, set } = prepared();
    unit.plug(3, { emulated: true });
    const { target, invalidated } = model();
    const dma = unit.viommu.emulatedDma(() => 3, target);
    const stage = unit.stage1(5);
    const page = unit.ram.allocate();
    stage.map(0x4000n, page, 4096n);
    set(3, stage, [], false);
    expect(dma.ats!.translate(4, -1, false, false, false), "DTE = 0").toBe(ATS_UNSUPPORTED_REQUEST);
    expect(driver.takeFaults().map(({ reason }) => reason)).toEqual([0x44]);
    driver.descriptor("context", { G: 3, SID: 3 });
    unit.ram.write64(driver.contextAddress(3), unit.ram.read64(driver.contextAddress(3)) | 4n);
    driver.fence();
    expect(dma.ats!.translate(4, -1, false, false, false)).toBe(ATS_SUCCESS);
    expect(dma.ats!.translation).toMatchObject({ pfn: Number(page >> 12n), read: true, write: true });
    expect(dma.ats!.writeTranslated(Number(page >> 12n), 0, Uint8Array.of(9), 0, 1, -1)).toBe(DMA_OK);
    driver.descriptor("deviceTlb", { SID: 3, ADDR: 4 });
    expect(() => driver.fence(), "the wait stands").toThrow("no error");
    expect(invalidated).toEqual([[4, 1, -1, false, 0]]);
    dma.ats!.invalidationCompleted(0);
    expect(driver.read32(0x80), "IQH has passed the wait").toBe(driver.read32(0x88));
    driver.descriptor("deviceTlb", { SID: 3, ADDR: 4 });
    expect(() => driver.fence()).toThrow();
    unit.clock.advance(2_000_000);
    unit.clock.fireDue();
    expect(driver.read32(0x34) & 0x40, "ITE").toBe(0x40);
    expect(driver.read32(0xb4) & 0xffff, "IQERCD.ITESID").toBe(3);
    driver.write32(0x34, 0x40);
    driver.fence();
  });

  it("and a model's page requests are answered to it", () => {
    const { unit, driver, set } = prepared();
    unit.plug(3, { emulated: true });
    const { target, answers } = model(true);
    const dma = unit.viommu.emulatedDma(() => 3, target);
    set(3, unit.stage1(5), [[2, unit.stage1(6)]], true);
    dma.ats!.pageRequest(9, 2, 6, 1 | 4);
    const [request] = driver.takeRequests();
    expect(request).toMatchObject({ deviceId: 3, pasid: 2, address: 0x9000n, read: true, write: false });
    request!.answer("failure");
    expect(answers).toEqual([[2, 6, 15]]);
  });
});

describe("a model's interrupt requests", () => {
  it("are dword writes without PASID; whatever else goes there is refused with 29h", () => {
    const { unit, driver, set } = prepared();
    unit.plug(3, { emulated: true });
    set(3, unit.stage1(5), []);
    const dma = unit.viommu.emulatedDma(() => 3);
    const data = Uint8Array.of(55, 0, 0, 0);
    expect(dma.write(0xfee00, 0, data, 0, 4, -1)).toBe(DMA_OK);
    expect(unit.messages).toEqual([55]);
    const table = driver.remapInterrupts(8);
    const { address } = driver.writeInterruptEntry(table, 2, { V: 44 });
    expect(dma.write(address >>> 12, address & 0xfff, new Uint8Array(4), 0, 4, -1)).toBe(DMA_OK);
    expect(unit.messages).toEqual([55, 44]);
    driver.takeFaults();
    expect(dma.write(0xfee00, 0, data, 0, 2, -1)).toBe(DMA_ABORTED);
    expect(dma.read(0xfee00, 0, new Uint8Array(4), 0, 4, -1)).toBe(DMA_ABORTED);
    expect(
      driver.takeFaults().map(({ reason }) => reason),
      "one record of a source stands for both (§7.2.1)",
    ).toEqual([0x29]);
  });
});

describe("invalidation by registers", () => {
  const IOTLB = 0xf8;

  it("is refused with the queue on, and works with it off", () => {
    const { unit, driver, set } = prepared();
    unit.plug(1);
    set(1, unit.stage1(5), []);
    unit.host.ranges.length = 0;
    const global = (1n << 63n) | (1n << 60n);
    driver.write64(IOTLB, global);
    expect((driver.read64(IOTLB) >> 57n) & 3n, "IAIG 0: an error").toBe(0n);
    driver.write32(0x18, driver.read32(0x1c) & ~(1 << 26) & 0x96ff_ffff);
    driver.write64(IOTLB, global);
    expect((driver.read64(IOTLB) >> 57n) & 3n, "IAIG: global").toBe(1n);
    expect(unit.host.ranges).toEqual([{ device: 101, entries: [[0n, ALL, 0]] }]);
    driver.write64(0x28, (1n << 63n) | (1n << 61n));
    expect((driver.read64(0x28) >> 59n) & 3n, "CCMD is not for scalable mode: CAIG 0").toBe(0n);
  });
});
