// Devices made to fail on purpose while a process drives them (host.inject with device rules).

import { describe, expect, it } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import { Trace } from "../../host/base/trace.ts";
import { builtInHosts } from "../../host/built-in-hosts.ts";
import { HostDescriptionError } from "../../host/description.ts";
import { Edu } from "../../host/devices/edu/edu.ts";
import * as R from "../../host/devices/edu/registers.ts";
import { type AtsPort, DMA_ABORTED, DMA_OK, type DmaPort, NO_PASID } from "../../host/devices/ports.ts";
import { Host, InjectionSyntaxError } from "../../host/host.ts";
import { AilingFunction } from "../../host/hw/pci/ailing-function.ts";
import { User } from "./kernel/machine.ts";

const IOVA = 0x1_0000n;

/** A host with a device that a process has bound, mapped memory for, and switched on. */
function driven() {
  const clock = new Clock();
  const host = new Host(builtInHosts[0]!, { clock, trace: new Trace(clock) });
  const user = new User(host.createProcess());
  const name = host.deviceNames[0]!;
  const vfio = user.open(host.vfioPath(name));
  const iommufd = user.iommufd();
  user.bind(vfio, iommufd);
  const ioas = user.ioas(iommufd);
  user.attach(vfio, ioas);
  const memory = user.process.memory.allocate(4096);
  user.map(iommufd, ioas, memory, 4096, IOVA);
  user.enableDevice(vfio);
  const dma = () => host.dmaOf(name).write(Number(IOVA / 4096n), 0, Uint8Array.of(1, 2), 0, 2, NO_PASID);
  return { host, clock, user, name, vfio, bar: user.bar0(vfio), dma, memory };
}

describe("a dead device", () => {
  it("reads all ones everywhere, and nothing of it gets through", () => {
    const { host, name, bar, dma } = driven();
    const identity = bar.mmioRead(R.IDENTIFICATION, 4);
    expect(dma()).toBe(DMA_OK);
    host.inject([`device:${name}=dead`]);
    expect(bar.mmioRead(R.IDENTIFICATION, 4)).toBe(0xffff_ffff);
    bar.mmioRead(0, 8);
    expect(bar.high).toBe(0xffff_ffff);
    expect(dma()).toBe(DMA_ABORTED);
    // Told otherwise, it is what it was.
    host.inject([]);
    expect(bar.mmioRead(R.IDENTIFICATION, 4)).toBe(identity);
    expect(dma()).toBe(DMA_OK);
  });

  it("does not keep its process from ending, and the host from being clean", () => {
    const { host, user, name } = driven();
    host.inject([`device:${name}=dead`]);
    user.process.exit();
    expect(host.liveKinds).toEqual([]);
  });
});

describe("an ATS invalidation", () => {
  function withAts() {
    const clock = new Clock();
    const edu = new AilingFunction(new Edu({ name: "edu", ats: true }), (ns) => clock.advance(ns));
    const completed: number[] = [];
    const bus: DmaPort = { read: () => DMA_OK, write: () => DMA_OK };
    const ats = { invalidationCompleted: (itag: number) => completed.push(itag) } as unknown as AtsPort;
    edu.connect({ clock, interrupt: { intx: () => {} }, dma: { ...bus, ats } });
    const invalidate = (itag: number) => edu.atsTarget!.invalidate(0x10, 1, NO_PASID, false, itag);
    return { clock, edu, completed, invalidate };
  }

  it("is never completed by a dead device", () => {
    const { clock, edu, completed, invalidate } = withAts();
    expect(invalidate(1)).toBe(true);
    edu.ailment.dead = true;
    expect(invalidate(2)).toBe(false);
    clock.advance(1e9);
    clock.fireDue();
    expect(completed).toEqual([]);
  });

  it("is completed by a slow one, later", () => {
    const { clock, edu, completed, invalidate } = withAts();
    edu.ailment.delayNs = 7000;
    expect(invalidate(3)).toBe(false);
    clock.advance(6999);
    clock.fireDue();
    expect(completed).toEqual([]);
    clock.advance(1);
    clock.fireDue();
    expect(completed).toEqual([3]);
  });
});

describe("a slow device", () => {
  it("takes its time, and answers rightly", () => {
    const { host, clock, name, bar, dma } = driven();
    const identity = bar.mmioRead(R.IDENTIFICATION, 4);
    host.inject([`device:${name}=slow/5000`]);
    const before = clock.now;
    expect(bar.mmioRead(R.IDENTIFICATION, 4)).toBe(identity);
    expect(clock.now).toBe(before + 5000);
    expect(dma()).toBe(DMA_OK);
    expect(clock.now).toBe(before + 10_000);
  });
});

describe("a device rule", () => {
  it("for a device there is not is refused, as is one that says nothing known", () => {
    const { host } = driven();
    expect(() => host.inject(["device:0000:7f:00.0=dead"])).toThrow(HostDescriptionError);
    expect(() => host.inject(["device:0000:00:01.0=tired"])).toThrow(InjectionSyntaxError);
  });
});
