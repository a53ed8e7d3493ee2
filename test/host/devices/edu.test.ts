import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Edu, type EduOptions } from "../../../host/devices/edu/edu.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import {
  ATS_COMPLETER_ABORT,
  ATS_SUCCESS,
  type AtsPort,
  type AtsStatus,
  DMA_OK,
  NO_PASID,
  noTranslation,
} from "../../../host/devices/ports.ts";
import { BenchBus } from "./bench-bus.ts";

function edu(options: EduOptions = {}): { device: Edu; bus: BenchBus } {
  const device = new Edu(options);
  const bus = new BenchBus(device);
  bus.enable();
  return { device, bus };
}

const read = (device: Edu, offset: number) => device.mmioRead(offset, 4);
const write = (device: Edu, offset: number, value: number) => device.mmioWrite(offset, 4, value, 0);
const write64 = (device: Edu, offset: number, value: bigint) =>
  device.mmioWrite(offset, 8, Number(value & 0xffffffffn), Number(value >> 32n));

/** Starts a command; `more` adds COMMAND_INTERRUPT. */
function command(device: Edu, toRam: boolean, address: bigint, count: number, more = 0, buffer = R.BUFFER): void {
  write64(device, toRam ? R.DMA_DESTINATION : R.DMA_SOURCE, address);
  write64(device, toRam ? R.DMA_SOURCE : R.DMA_DESTINATION, BigInt(buffer));
  write64(device, R.DMA_COUNT, BigInt(count));
  write64(device, R.DMA_COMMAND, BigInt(R.COMMAND_RUN | (toRam ? R.COMMAND_TO_RAM : 0) | more));
}

const running = (device: Edu) => (read(device, R.DMA_COMMAND) & R.COMMAND_RUN) !== 0;

describe("the edu device's public interface (QEMU docs/specs/edu)", () => {
  it("identifies itself and is alive", () => {
    const { device } = edu();
    expect(device.configRead(0, 4)).toBe(0x11e81234);
    expect(read(device, 0x00)).toBe(0x010000ed);
    write(device, 0x04, 0x12345678);
    expect(read(device, 0x04)).toBe(0xedcba987);
  });

  it("computes factorials, showing busy meanwhile, and interrupts if asked", () => {
    const { device, bus } = edu();
    write(device, 0x20, 0x80);
    write(device, 0x08, 10);
    expect(read(device, 0x20)).toBe(0x81);
    write(device, 0x08, 3);
    write(device, 0x20, 0x80);
    expect(read(device, 0x20)).toBe(0x81);
    bus.run(R.FACTORIAL_NS);
    expect(read(device, 0x08)).toBe(3628800);
    expect(read(device, 0x20)).toBe(0x80);
    expect(read(device, 0x24)).toBe(1);
  });

  it.each([
    [0, 1],
    [1, 1],
    [13, 1932053504],
    [33, 0x80000000],
    [34, 0],
    [0xffffffff, 0],
  ])("computes %i! modulo 2^32", (n, expected) => {
    const { device, bus } = edu();
    write(device, 0x08, n);
    bus.run(R.FACTORIAL_NS);
    expect(read(device, 0x08)).toBe(expected);
  });

  it("raises INTx while some interrupt status bit is set, and lowers it when all are acknowledged", () => {
    const { device, bus } = edu();
    write(device, 0x60, 0x5);
    expect(read(device, 0x24)).toBe(5);
    write(device, 0x64, 1);
    expect(bus.pins).toEqual([true]);
    write(device, 0x64, 4);
    expect(bus.pins).toEqual([true, false]);
  });

  it("sends an MSI instead once MSI is enabled", () => {
    const { device, bus } = edu();
    bus.enableMsi(0x33);
    write(device, 0x60, 0x2);
    expect(bus.messages).toEqual([{ address: 0xfee00000n, data: 0x33 }]);
    expect(bus.pins).toEqual([]);
  });

  it("takes 4-byte accesses only below 0x80, 4 or 8 above", () => {
    const { device } = edu();
    expect(device.mmioRead(0x00, 2)).toBe(0xffff);
    expect(device.mmioRead(0x00, 8)).toBe(0xffffffff);
    device.mmioWrite(0x04, 8, 7, 0);
    expect(read(device, 0x04)).toBe(0xffffffff);
    write64(device, 0x80, 0x1_2345_6789_abcdn);
    expect(device.mmioRead(0x80, 8)).toBe(0x6789abcd);
    expect(device.high).toBe(0x12345);
    write(device, 0x80, 0x1000);
    expect(device.mmioRead(0x80, 8)).toBe(0x1000);
    expect(device.high).toBe(0);
  });

  it("moves RAM to its buffer and back, in 64-byte bursts, one per microsecond", () => {
    const { device, bus } = edu();
    for (let i = 0; i < 4096; i++) bus.memory[0x3000 + i] = i * 7;
    command(device, false, 0x3000n, 4096);
    bus.run(63_999);
    expect(running(device)).toBe(true);
    expect(bus.transfers).toHaveLength(63);
    bus.run(1);
    expect(running(device)).toBe(false);
    expect(bus.transfers.every(({ length, write: isWrite }) => length === 64 && !isWrite)).toBe(true);
    command(device, true, 0x8000n, 4096);
    bus.run(64_000);
    expect(bus.memory.slice(0x8000, 0x9000)).toEqual(bus.memory.slice(0x3000, 0x4000));
  });

  it("never lets a burst cross a 4 KiB boundary of RAM (PCIe 6.0 §2.2.7)", () => {
    const { device, bus } = edu();
    command(device, true, 0x1fe0n, 128);
    bus.run(10_000);
    expect(bus.transfers.map(({ address, length }) => [address, length])).toEqual([
      [0x1fe0n, 32],
      [0x2000n, 64],
      [0x2040n, 32],
    ]);
  });

  it("raises interrupt 0x100 at the end if asked", () => {
    const { device, bus } = edu();
    command(device, true, 0x1000n, 64, R.COMMAND_INTERRUPT);
    bus.run(999);
    expect(read(device, 0x24)).toBe(0);
    bus.run(1);
    expect(read(device, 0x24)).toBe(0x100);
  });

  it("ends the command at a refused burst: run clears, the interrupt comes, what went before stays", () => {
    const { device, bus } = edu();
    bus.memory.fill(0xff, 0x2000, 0x3000);
    bus.refuse = (address) => address >= 0x2080n;
    command(device, true, 0x2000n, 4096, R.COMMAND_INTERRUPT);
    bus.run(3_000);
    expect(running(device)).toBe(false);
    expect(read(device, 0x24)).toBe(0x100);
    expect(read(device, R.DMA_OUTCOME)).toBe(R.OUTCOME_REFUSED);
    expect(read(device, R.DMA_MOVED)).toBe(128);
    expect(bus.memory[0x207f]).toBe(0);
    expect(bus.memory[0x2080]).toBe(0xff);
    bus.run(100_000);
    expect(bus.transfers).toHaveLength(3);
  });

  it("ignores writes to the command registers while a command runs", () => {
    const { device, bus } = edu();
    command(device, true, 0x1000n, 128);
    write64(device, R.DMA_DESTINATION, 0x5000n);
    write64(device, R.DMA_COUNT, 64n);
    bus.run(10_000);
    expect(bus.transfers.map(({ address }) => address)).toEqual([0x1000n, 0x1040n]);
  });

  it("drives only the address bits of its DMA mask", () => {
    const { device, bus } = edu({ dmaMask: 0xfff_ffffn });
    command(device, true, 0x7000_0000_1000n, 64);
    bus.run(1_000);
    expect(bus.transfers[0]?.address).toBe(0x1000n);
  });

  it("carries into the high half of a 64-bit address", () => {
    const { device, bus } = edu();
    bus.boundless = true;
    command(device, true, 0x1_ffff_ffe0n, 96);
    bus.run(2_000);
    expect(bus.transfers.map(({ address, length }) => [address, length])).toEqual([
      [0x1_ffff_ffe0n, 32],
      [0x2_0000_0000n, 64],
    ]);
  });

  it("gives up DMA at a function-level reset", () => {
    const { device, bus } = edu();
    command(device, true, 0x1000n, 4096, R.COMMAND_INTERRUPT);
    bus.run(2_000);
    const express = bus.findCapability(0x10);
    expect(device.configRead(express + 0x0a, 2) & 0x20).toBe(0x20);
    device.configWrite(express + 8, 2, 0x8000);
    expect(device.configRead(express + 0x0a, 2) & 0x20).toBe(0);
    bus.run(100_000);
    expect(bus.transfers).toHaveLength(2);
    expect(bus.clock.pending).toBe(0);
    expect(read(device, R.DMA_OUTCOME)).toBe(R.OUTCOME_RESET);
  });

  it.each([
    ["before the buffer", 0x3fff0, 64],
    ["past its end", R.BUFFER + 4000, 97],
    ["with a huge count", R.BUFFER, 0xffffffff],
    ["far away", 0xffffffff, 1],
  ])("refuses a command whose own side lies %s", (_, buffer, count) => {
    const { device, bus } = edu();
    command(device, true, 0x1000n, count, R.COMMAND_INTERRUPT, buffer);
    bus.run(1_000);
    expect(running(device)).toBe(false);
    expect(read(device, R.DMA_OUTCOME)).toBe(R.OUTCOME_OUT_OF_BUFFER);
    expect(read(device, 0x24)).toBe(0x100);
    expect(bus.transfers).toEqual([]);
  });

  it("survives any sequence of register accesses, touching RAM only through its port", () => {
    const access = fc.tuple(
      fc.oneof(fc.nat(0x1ff), fc.nat(0xfffff)),
      fc.constantFrom(1, 2, 4, 8),
      fc.nat(0xffffffff),
      fc.oneof(fc.constant(0), fc.nat(0xffffffff)),
      fc.nat(3000),
    );
    fc.assert(
      fc.property(fc.array(access, { maxLength: 80 }), (accesses) => {
        const { device, bus } = edu({ pasidBits: 20, ats: true, pri: true, misbehaviour: true });
        for (const [offset, size, lo, hi, ns] of accesses) {
          const aligned = offset - (offset % size);
          device.mmioWrite(aligned, size as 4, lo, hi);
          expect(device.mmioRead(aligned, size as 4)).toBeLessThanOrEqual(0xffffffff);
          bus.run(ns);
        }
        expect(bus.clock.pending).toBeLessThanOrEqual(2);
      }),
    );
  });
});

/** An IOMMU in a few lines: translations by page, page requests written down. */
class FakeTranslationAgent implements AtsPort {
  readonly translation = noTranslation();
  readonly pages = new Map<number, { pfn: number; write: boolean }>();
  sizeLog2 = 12;
  readonly requests: { pfn: number; pasid: number; group: number; flags: number }[] = [];
  readonly completed: number[] = [];
  readonly stopMarkers: number[] = [];
  readonly translatedPages: number[] = [];
  translations = 0;
  status: AtsStatus = ATS_SUCCESS;

  translate(pfn: number): AtsStatus {
    this.translations++;
    const page = this.pages.get(pfn);
    this.translation.pfn = page?.pfn ?? 0;
    this.translation.read = page !== undefined;
    this.translation.sizeLog2 = this.sizeLog2;
    this.translation.write = page?.write ?? false;
    return this.status;
  }

  readTranslated(pfn: number): typeof DMA_OK {
    this.translatedPages.push(pfn);
    return DMA_OK;
  }

  writeTranslated(pfn: number): typeof DMA_OK {
    this.translatedPages.push(pfn);
    return DMA_OK;
  }

  pageRequest(pfn: number, pasid: number, group: number, flags: number): void {
    this.requests.push({ pfn, pasid, group, flags });
  }

  stopMarker(pasid: number): void {
    this.stopMarkers.push(pasid);
  }

  invalidationCompleted(itag: number): void {
    this.completed.push(itag);
  }
}

function translatingEdu(mode: number, options: EduOptions = {}) {
  const { device, bus } = edu({ pasidBits: 20, ats: true, pri: true, misbehaviour: true, ...options });
  const agent = new FakeTranslationAgent();
  bus.ats = agent;
  device.configWrite(bus.findExtendedCapability(0x1b) + 6, 2, 1);
  device.configWrite(bus.findExtendedCapability(0x0f) + 6, 2, 0x8000);
  const pri = bus.findExtendedCapability(0x13);
  device.configWrite(pri + 12, 4, 8);
  device.configWrite(pri + 4, 2, 1);
  write(device, R.TRANSLATION_MODE, mode);
  return { device, bus, agent, pri };
}

describe("edu's extensions (PCIe 6.0 §10, §6.20)", () => {
  it("are announced in a vendor-specific capability", () => {
    const { device, bus } = edu({ ats: true, pasidBits: 16 });
    const at = bus.findCapability(0x09);
    expect(device.configRead(at + 2, 1)).toBe(8);
    expect(device.configRead(at + 3, 1)).toBe(R.EXTENSION_REVISION);
    expect(device.configRead(at + 4, 1)).toBe(R.FEATURE_PASID | R.FEATURE_ATS);
    expect(bus.findExtendedCapability(0x13)).toBe(0);
    expect((device.configRead(bus.findExtendedCapability(0x1b) + 4, 2) >> 8) & 0x1f).toBe(16);
  });

  it("put the PASID register's PASID on every request, and none while it is not valid", () => {
    const { device, bus } = translatingEdu(0);
    command(device, true, 0x1000n, 64);
    bus.run(1_000);
    write(device, R.PASID, (R.PASID_VALID | 0xabcde) >>> 0);
    command(device, true, 0x1000n, 64);
    bus.run(1_000);
    expect(bus.transfers.map(({ pasid }) => pasid)).toEqual([NO_PASID, 0xabcde]);
  });

  it("refuse a PASID that the capability does not have enabled", () => {
    const { device, bus } = edu({ pasidBits: 4 });
    write(device, R.PASID, (R.PASID_VALID | 3) >>> 0);
    command(device, true, 0x1000n, 64);
    bus.run(1_000);
    expect(read(device, R.DMA_OUTCOME)).toBe(R.OUTCOME_PASID_DISABLED);
    device.configWrite(bus.findExtendedCapability(0x1b) + 6, 2, 1);
    write(device, R.PASID, (R.PASID_VALID | 16) >>> 0);
    command(device, true, 0x1000n, 64);
    bus.run(1_000);
    expect(read(device, R.DMA_OUTCOME)).toBe(R.OUTCOME_PASID_DISABLED);
    expect(bus.transfers).toEqual([]);
  });

  it("translate once per page and use translated addresses after that", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS);
    agent.pages.set(1, { pfn: 0x777, write: true });
    command(device, true, 0x1000n, 256);
    bus.run(4_000);
    expect(agent.translations).toBe(1);
    expect(agent.translatedPages).toEqual([0x777, 0x777, 0x777, 0x777]);
    expect(bus.transfers).toEqual([]);
  });

  it("use a large translation for every page in it", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS);
    agent.sizeLog2 = 21;
    for (let page = 0; page < 512; page++) agent.pages.set(0x400 + page, { pfn: 0x8000, write: true });
    command(device, true, 0x405000n, 64);
    bus.run(1_000);
    command(device, true, 0x4ff000n, 64);
    bus.run(1_000);
    expect(agent.translations).toBe(1);
    expect(agent.translatedPages).toEqual([0x8005, 0x80ff]);
    device.atsTarget?.invalidate(0x5ff, 1, NO_PASID, false, 0);
    command(device, true, 0x400000n, 64);
    bus.run(1_000);
    expect(agent.translations).toBe(2);
  });

  it("share a global translation between PASIDs, and drop it with any PASID's invalidation (§10.2.3)", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS);
    agent.translation.global = true;
    agent.pages.set(1, { pfn: 0x777, write: true });
    const copyWith = (pasid: number) => {
      write(device, R.PASID, (R.PASID_VALID | pasid) >>> 0);
      command(device, true, 0x1000n, 64);
      bus.run(1_000);
    };
    copyWith(3);
    copyWith(4);
    expect(agent.translations).toBe(1);
    device.atsTarget?.invalidate(1, 1, 4, false, 0);
    copyWith(3);
    expect(agent.translations).toBe(2);
  });

  it("keep a PASID's translation when another one's is invalidated, and drop it when all are", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS);
    agent.pages.set(1, { pfn: 0x777, write: true });
    write(device, R.PASID, (R.PASID_VALID | 3) >>> 0);
    const copyAfter = (pasid: number, everyPasid: boolean) => {
      device.atsTarget?.invalidate(0, Number.POSITIVE_INFINITY, pasid, everyPasid, 0);
      command(device, true, 0x1000n, 64);
      bus.run(1_000);
      return agent.translations;
    };
    expect([copyAfter(4, false), copyAfter(4, false), copyAfter(NO_PASID, false), copyAfter(4, true)]).toEqual([
      1, 1, 1, 2,
    ]);
  });

  it("translate again after an invalidation of the page", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS);
    agent.pages.set(1, { pfn: 0x777, write: true });
    command(device, true, 0x1000n, 128);
    bus.run(1_000);
    agent.pages.set(1, { pfn: 0x888, write: true });
    expect(device.atsTarget?.invalidate(1, 1, NO_PASID, false, 3)).toBe(true);
    bus.run(1_000);
    expect(agent.translatedPages).toEqual([0x777, 0x888]);
  });

  it("complete an invalidation later when told to take time", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS);
    write(device, R.INVALIDATION_DELAY, 500);
    expect(device.atsTarget?.invalidate(1, 1, NO_PASID, false, 3)).toBe(false);
    bus.run(499);
    expect(agent.completed).toEqual([]);
    bus.run(1);
    expect(agent.completed).toEqual([3]);
  });

  it("never complete an invalidation that a reset overtook", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS);
    write(device, R.INVALIDATION_DELAY, 500);
    device.atsTarget?.invalidate(1, 1, NO_PASID, false, 3);
    device.reset();
    expect(bus.clock.pending).toBe(0);
    bus.run(1_000);
    expect(agent.completed).toEqual([]);
  });

  it("forget every translation when ATS is switched off (§10.3.3)", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS);
    agent.pages.set(1, { pfn: 0x777, write: true });
    command(device, true, 0x1000n, 128);
    bus.run(1_000);
    const ats = bus.findExtendedCapability(0x0f);
    device.configWrite(ats + 6, 2, 0);
    device.configWrite(ats + 6, 2, 0x8000);
    bus.run(1_000);
    expect(agent.translations).toBe(2);
  });

  it("end the command when the translation request is refused", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS | R.MODE_PRI);
    agent.status = ATS_COMPLETER_ABORT;
    command(device, true, 0x1000n, 64);
    bus.run(1_000);
    expect(read(device, R.DMA_OUTCOME)).toBe(R.OUTCOME_TRANSLATION_REFUSED);
    expect(agent.requests).toEqual([]);
  });

  it("ask for a missing page, wait, and go on where they stopped", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS | R.MODE_PRI);
    write(device, R.PAGE_REQUEST_GROUP, 0x1ff);
    command(device, true, 0x1000n, 64);
    bus.run(50_000);
    expect(agent.requests).toEqual([{ pfn: 1, pasid: NO_PASID, group: 0x1ff, flags: 2 | 4 }]);
    expect(running(device)).toBe(true);
    agent.pages.set(1, { pfn: 9, write: true });
    device.atsTarget?.pageResponse(NO_PASID, 0x1ff, 0);
    bus.run(1_000);
    expect(running(device)).toBe(false);
    expect(agent.translatedPages).toEqual([9]);
    expect(read(device, R.PAGE_REQUEST_GROUP)).toBe(0);
  });

  it("ask for a page that is only readable when they want to write it", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS | R.MODE_PRI);
    agent.pages.set(1, { pfn: 9, write: false });
    command(device, true, 0x1000n, 64);
    bus.run(1_000);
    expect(agent.requests[0]?.flags).toBe(2 | 4);
  });

  it("give up after as many page requests as their limit says", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS | R.MODE_PRI);
    write(device, R.PAGE_REQUEST_LIMIT, 2);
    command(device, true, 0x1000n, 64);
    for (let i = 0; i < 5; i++) {
      bus.run(1_000);
      device.atsTarget?.pageResponse(NO_PASID, i, 0);
    }
    bus.run(1_000);
    expect(agent.requests).toHaveLength(2);
    expect(read(device, R.DMA_OUTCOME)).toBe(R.OUTCOME_NO_PERMISSION);
  });

  it("count page requests anew for every burst", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS | R.MODE_PRI);
    write(device, R.PAGE_REQUEST_LIMIT, 1);
    command(device, true, 0x1fc0n, 128);
    for (const [group, pfn] of [1, 2].entries()) {
      bus.run(2_000);
      agent.pages.set(pfn, { pfn: 9, write: true });
      device.atsTarget?.pageResponse(NO_PASID, group, 0);
    }
    bus.run(2_000);
    expect(agent.requests.map(({ pfn }) => pfn)).toEqual([1, 2]);
    expect([running(device), read(device, R.DMA_OUTCOME)]).toEqual([false, R.OUTCOME_DONE]);
  });

  it.each([
    [1, 0],
    [15, 1],
  ])("end the command on response code %i, with Response Failure %i", (code, failed) => {
    const { device, bus, pri } = translatingEdu(R.MODE_ATS | R.MODE_PRI);
    command(device, true, 0x1000n, 64, R.COMMAND_INTERRUPT);
    bus.run(1_000);
    device.atsTarget?.pageResponse(NO_PASID, 0, code);
    bus.run(1_000);
    expect(read(device, R.DMA_OUTCOME)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);
    expect(read(device, 0x24)).toBe(0x100);
    expect(device.configRead(pri + 6, 2) & 1).toBe(failed);
  });

  it("flag a response nobody asked for", () => {
    const { device, bus, pri } = translatingEdu(R.MODE_ATS | R.MODE_PRI);
    command(device, true, 0x1000n, 64);
    bus.run(1_000);
    device.atsTarget?.pageResponse(NO_PASID, 17, 0);
    expect(device.configRead(pri + 6, 2) & 2).toBe(2);
    bus.run(10_000);
    expect(running(device)).toBe(true);
  });

  it("send no page request beyond the allocation", () => {
    const { device, bus, agent, pri } = translatingEdu(R.MODE_ATS | R.MODE_PRI);
    device.configWrite(pri + 12, 4, 0);
    command(device, true, 0x1000n, 64);
    bus.run(1_000);
    expect(agent.requests).toEqual([]);
    expect(read(device, R.DMA_OUTCOME)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);
  });

  it("send a Stop Marker for the PASID written, if it is enabled", () => {
    const { device, agent } = translatingEdu(R.MODE_ATS | R.MODE_PRI);
    write(device, R.STOP_MARKER, 0x123);
    expect(agent.stopMarkers).toEqual([0x123]);
    const narrow = translatingEdu(R.MODE_ATS | R.MODE_PRI, { pasidBits: 4 });
    write(narrow.device, R.STOP_MARKER, 0x123);
    expect(narrow.agent.stopMarkers).toEqual([]);
  });

  it("forget a request in flight when software resets the page request interface (§10.5.2.2)", () => {
    const { device, bus, pri } = translatingEdu(R.MODE_ATS | R.MODE_PRI);
    command(device, true, 0x1000n, 64);
    bus.run(1_000);
    device.configWrite(pri + 4, 2, 0);
    expect(device.configRead(pri + 6, 2) & 0x100).toBe(0x100);
    device.configWrite(pri + 4, 2, 2);
    expect(device.configRead(pri + 4, 2)).toBe(0);
    bus.run(1_000);
    expect(read(device, R.DMA_OUTCOME)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);
  });

  /** Runs a command that needs `requests` page requests, none of which is answered usefully. */
  function groupsOf(misbehaviour: number, requests: number): { groups: number[]; flags: number[] } {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS | R.MODE_PRI);
    write(device, R.MISBEHAVIOUR, misbehaviour);
    write(device, R.PAGE_REQUEST_LIMIT, requests);
    command(device, true, 0x1000n, 64);
    for (let i = 0; i <= requests; i++) {
      bus.run(1_000);
      const last = agent.requests.at(-1);
      if (last !== undefined) device.atsTarget?.pageResponse(NO_PASID, last.group, 0);
    }
    return { groups: agent.requests.map(({ group }) => group), flags: agent.requests.map(({ flags }) => flags) };
  }

  it("count group indexes up, unless told to reuse or to invent them", () => {
    expect(groupsOf(0, 3).groups).toEqual([0, 1, 2]);
    expect(groupsOf(R.MISBEHAVE_REUSE_GROUPS, 3).groups).toEqual([0, 0, 0]);
    const invented = groupsOf(R.MISBEHAVE_INVENT_GROUPS, 2).groups;
    expect(invented).toHaveLength(4);
    expect(new Set(invented).size).toBe(4);
  });

  it("leave the Last flag out when told to", () => {
    expect(groupsOf(0, 1).flags).toEqual([2 | 4]);
    expect(groupsOf(R.MISBEHAVE_NEVER_LAST, 1).flags).toEqual([2]);
  });

  it("keep using an invalidated translation when told to", () => {
    const { device, bus, agent } = translatingEdu(R.MODE_ATS);
    write(device, R.MISBEHAVIOUR, R.MISBEHAVE_KEEP_STALE);
    agent.pages.set(1, { pfn: 0x777, write: true });
    command(device, true, 0x1000n, 128);
    bus.run(1_000);
    agent.pages.delete(1);
    device.atsTarget?.invalidate(1, 1, NO_PASID, false, 0);
    bus.run(1_000);
    expect(agent.translatedPages).toEqual([0x777, 0x777]);
  });

  it("break the rules only where the device was made to", () => {
    const honest = translatingEdu(R.MODE_ATS, { misbehaviour: false });
    write(honest.device, R.MISBEHAVIOUR, R.MISBEHAVE_NEVER_COMPLETE);
    expect(honest.device.atsTarget?.invalidate(1, 1, NO_PASID, false, 0)).toBe(true);
    const hostile = translatingEdu(R.MODE_ATS);
    write(hostile.device, R.MISBEHAVIOUR, R.MISBEHAVE_NEVER_COMPLETE | R.MISBEHAVE_FORGE_TRANSLATED);
    expect(hostile.device.atsTarget?.invalidate(1, 1, NO_PASID, false, 0)).toBe(false);
    command(hostile.device, true, 0x1000n, 64);
    hostile.bus.run(100_000);
    expect(hostile.agent.completed).toEqual([]);
    expect(hostile.agent.translatedPages).toEqual([1]);
  });
});
