// The rules by which a host is made to fail, as host/kernel/README.md has them for people: all of those work, and what is mistyped is an
// error that says what was meant.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import { Trace } from "../../host/base/trace.ts";
import { builtInHosts } from "../../host/built-in-hosts.ts";
import { Host, InjectionSyntaxError } from "../../host/host.ts";
import { ALLOCATIONS } from "../../host/kernel/inject.ts";
import { IOCTL_NAMES } from "../../host/uapi/ioctl-names.ts";

const readme = readFileSync(new URL("../../host/kernel/README.md", import.meta.url), "utf8");
const [, section] = /\n## Failing on purpose\n(.*?)\n## /s.exec(readme)!;
const clock = new Clock();
const host = new Host(builtInHosts[0]!, { clock, trace: new Trace(clock) });

describe("a rule", () => {
  const documented = section!
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .flatMap((line) => [.../`((?:ioctl|allocation|event|erratum|device|command|entry)[^`]*)`/g[Symbol.matchAll](line)])
    .map(([, rule]) => rule!);

  it("of every form is documented", () => {
    const forms = documented.map((rule) => /^\w+/.exec(rule)![0]);
    expect(new Set(forms)).toEqual(new Set(["ioctl", "allocation", "event", "erratum", "device", "command", "entry"]));
  });
  it.each(documented)("of the documentation is understood: %s", (rule) => {
    host.inject([rule]);
  });
  it("may name every kind of object that the documentation lists, and it lists all", () => {
    const [, list] = /Kinds of objects: (.*?)\.\n/s.exec(section!)!;
    const kinds = [.../`([^`]+)`/g[Symbol.matchAll](list!)].map(([, kind]) => kind!.replace(/\s+/g, " "));
    expect(kinds).toEqual([...ALLOCATIONS]);
    for (const kind of kinds) host.inject([`allocation:${kind}@1`]);
  });
  it("may name every call of Linux's headers that the host serves", () => {
    // Linux 7.2's include/uapi/linux/iommufd.h: 0x80 to 0x94.
    expect([...IOCTL_NAMES].filter((name) => /^IOMMU_/.test(name))).toHaveLength(21);
    for (const name of IOCTL_NAMES) host.inject([`ioctl:${name}=EIO`]);
    for (const name of ["IOMMU_HWPT_ALLOC", "VFIO_DEVICE_RESET", "VFIO_IOMMU_MAP_DMA", "VFIO_GROUP_GET_DEVICE_FD"]) {
      expect(IOCTL_NAMES).toContain(name);
    }
  });
});

describe("a mistyped rule is an error:", () => {
  it.each([
    ["ioctl:IOMMU_HWPT_ALOC@2=ENOMEM", /there is no ioctl IOMMU_HWPT_ALOC; IOMMU_HWPT_ALLOC\?$/],
    ["ioctl:iommu_hwpt_alloc=ENOMEM", /there is no ioctl iommu_hwpt_alloc; /],
    ["ioctl:VFIO_IOMMU_MAPDMA=EINVAL", /; VFIO_IOMMU_MAP_DMA\?$/],
    ["ioctl:IOMMU_HWPT_ALLOC=ENOMEMORY", /there is no errno ENOMEMORY/],
    ["ioctl:IOMMU_HWPT_ALLOC", /an ioctl needs =ERRNO/],
    ["allocation:doamin@2", /there is no allocation doamin; domain\?$/],
    ["allocation:page table page", /; page-table page\?$/],
    ["event:veventqueue@1", /the queues are veventq and fault/],
    ["erratum:readonly-stage2", /the errata are read-only-stage2/],
    ["device:0000:00:01.0=deaf", /expected device:NAME=dead or/],
    ["ioctls:IOMMU_HWPT_ALLOC=ENOMEM", /expected ioctl:NAME/],
    ["", /expected ioctl:NAME/],
  ])("%s", (rule, message) => {
    expect(() => host.inject([rule])).toThrow(InjectionSyntaxError);
    expect(() => host.inject([rule])).toThrow(message);
  });

  it("a device there is not", () => {
    expect(() => host.inject(["device:0000:07:00.0=dead"])).toThrow(/has no device 0000:07:00\.0 \(it has /);
  });
});
