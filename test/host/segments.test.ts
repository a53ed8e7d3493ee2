// Hosts with several PCI segments, and hosts with more devices than fit.

import { describe, expect, it } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import { Trace } from "../../host/base/trace.ts";
import { HostDescriptionError, parseHost } from "../../host/description.ts";
import { DMA_ABORTED, DMA_OK, NO_PASID } from "../../host/devices/ports.ts";
import { Host } from "../../host/host.ts";
import { User } from "./kernel/machine.ts";

const IOVA = 0x1_0000n;

function hostOf(bdfs: readonly string[]): Host {
  const description = parseHost(
    {
      name: "segments",
      iommus: [{ name: "iommu0", kind: "riscv" }],
      devices: bdfs.map((bdf) => ({ model: "edu", bdf, iommu: "iommu0" })),
    },
    "segments.json",
  );
  const clock = new Clock();
  return new Host(description, { clock, trace: new Trace(clock) });
}

describe("two segments behind one IOMMU", () => {
  it("give the same function number two device ids and two lives", () => {
    const host = hostOf(["0000:00:01.0", "0001:00:01.0"]);
    expect(host.deviceNames.map((name) => host.deviceIdOf(name))).toEqual([0x8, 0x1_0008]);
    const user = new User(host.createProcess());
    const vfio = user.open(host.vfioPath("0001:00:01.0"));
    const iommufd = user.iommufd();
    user.bind(vfio, iommufd);
    const ioas = user.ioas(iommufd);
    user.attach(vfio, ioas);
    user.map(iommufd, ioas, user.process.memory.allocate(4096), 4096, IOVA);
    user.enableDevice(vfio);
    const write = (name: string) => {
      host.functionOf(name).configWrite(4, 2, 6);
      return host.dmaOf(name).write(Number(IOVA / 4096n), 0, Uint8Array.of(1, 2), 0, 2, NO_PASID);
    };
    expect(write("0001:00:01.0")).toBe(DMA_OK);
    expect(write("0000:00:01.0")).toBe(DMA_ABORTED);
    host[Symbol.dispose]();
    expect(host.liveObjects).toBe(0);
  });

  it("are limited to the 256 that a 24-bit device id tells apart", () => {
    expect(() => hostOf(["0100:00:01.0"])).toThrow(/domain up to 00ff/);
  });
});

describe("a host with more devices than its address space holds", () => {
  it("is refused in one line that names the device", () => {
    const hex = (value: number) => value.toString(16).padStart(2, "0");
    const bdfs = Array.from({ length: 1025 }, (_, i) => `${hex(i >> 5)}:${hex(i & 31)}.0`);
    expect(() => hostOf(bdfs)).toThrow(HostDescriptionError);
    expect(() => hostOf(bdfs)).toThrow(/^segments: 0000:20:00\.0: no room for BAR 0$/);
  });
});
