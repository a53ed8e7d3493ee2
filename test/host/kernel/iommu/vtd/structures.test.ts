// What the driver writes for the hardware to read: context and PASID table entries, descriptors, and the order of it all. Positions and codes are the
// specification's (VT-d §6.5.2, §9.4 to §9.6), values Linux's (drivers/iommu/intel).

import { describe, expect, it } from "vitest";
import { EINVAL, ENODEV, ENOSPC, EOPNOTSUPP } from "../../../../../host/uapi/errno.ts";
import { type Bench, bench } from "./bench.ts";

const RID = 0x0108;
const NEST_PARENT = 1;
const DIRTY = 2;
const PASID = 8;
const READ_WRITE = 3;

const P = 1n;
const FIRST_STAGE = 1n << 6n;
const SECOND_STAGE = 2n << 6n;
const NESTED = 3n << 6n;
const PASS_THROUGH = 4n << 6n;
const AW_48 = 2n << 2n;
const PWSNP = 1n << 23n;
const PGSNP = 1n << 24n;
const SSADE = 1n << 9n;

/** Types of descriptors and their granularities, "7/1" for a PASID-cache invalidation of one PASID. */
const named = (bench: Bench, unit = 0): string[] =>
  bench.hardware[unit]!.take().map(({ type, words }) => `${type}/${(words[0] >> 4n) & 3n}`);

describe("context and PASID entries", () => {
  it("a device's context leads to a PASID directory from its probing on, its services on in PCIe's order", () => {
    const b = bench();
    const device = b.device({ rid: RID, ats: true, pri: true, maxPasids: 2 ** 20 });
    const [q0, q1, q2, q3] = b.context(RID);
    // P, DTE, PASIDE, PRE, PDTS 7: 2^14 directory entries for 2^20 PASIDs.
    expect(q0! & 0xfffn).toBe(P | (1n << 2n) | (1n << 3n) | (1n << 4n) | (7n << 9n));
    expect([q1, q2, q3], "RID_PASID 0").toEqual([0n, 0n, 0n]);
    expect(device.switched).toEqual(["PASID true", "ATS true", "PRI true"]);
  });

  it("functions from device 16 on have a context table of their own", () => {
    const b = bench();
    b.device({ rid: 0x0108 });
    b.device({ rid: 0x0188 });
    const root = b.hardware[0]!.register(0x20) & ~0xfffn;
    const [lower, upper] = [b.load(root + 16n), b.load(root + 24n)];
    expect([lower & 1n, upper & 1n]).toEqual([1n, 1n]);
    expect(lower).not.toBe(upper);
    expect(b.context(0x0188)[0]! & 1n).toBe(1n);
  });

  it("the kernel's own domain is pass-through under domain id 1", () => {
    const b = bench();
    b.device({ rid: RID }).remove();
    const device = b.device({ rid: RID });
    b.core.groupOf(device.device)!.release();
    const entry = b.pasidEntry(RID)!;
    expect(entry.slice(0, 3)).toEqual([P | PASS_THROUGH | AW_48, 1n | PWSNP, 0n]);
  });

  it("blocked is an entry that is not present", () => {
    const b = bench();
    b.device({ rid: RID });
    expect(b.pasidEntry(RID)).toEqual([0n, 0n, 0n, 0n, 0n, 0n, 0n, 0n]);
  });

  it("a plain domain is a first stage of four levels, snooped", () => {
    const b = bench();
    const device = b.device({ rid: RID });
    const domain = b.paging(device);
    expect(domain.aperture.last, "the lower half of 48 bits").toBe(2n ** 47n - 1n);
    expect(device.attach(domain)).toBe(0);
    const [q0, q1, q2] = b.pasidEntry(RID)!;
    expect(q0).toBe(P | FIRST_STAGE | AW_48);
    expect(q1, "domain id 2 is the first that is somebody's").toBe(2n | PWSNP | PGSNP);
    expect(q2! & 0xfffn).toBe(0n);
    expect(q2! >> 12n).toBeGreaterThan(0n);
  });

  it("a nest parent is a second stage, which marks only while dirty state is tracked", () => {
    const b = bench();
    const device = b.device({ rid: RID });
    const domain = b.paging(device, NEST_PARENT | DIRTY);
    device.attach(domain);
    const [q0, q1, q2] = b.pasidEntry(RID)!;
    expect([q0! & 0xfffn, q1, q2]).toEqual([P | SECOND_STAGE | AW_48, 2n | PWSNP, 0n]);
    expect(domain.aperture.last).toBe(2n ** 48n - 1n);
    b.hardware[0]!.take();
    domain.dirty!.setTracking(true);
    expect(b.pasidEntry(RID)![0]! & SSADE).toBe(SSADE);
    expect(named(b), "PASID-cache, then the domain's translations").toEqual(["7/1", "2/2"]);
    domain.dirty!.setTracking(false);
    expect(b.pasidEntry(RID)![0]! & SSADE).toBe(0n);
  });

  it("a nested domain has the guest's table over the parent's, under an id of its own", () => {
    const b = bench();
    const device = b.device({ rid: RID });
    const parent = b.paging(device, NEST_PARENT);
    device.attach(parent);
    const second = b.pasidEntry(RID)![0]! >> 12n;
    expect(device.attach(b.nested(device, parent, 0x8123_4000n))).toBe(0);
    const [q0, q1, q2] = b.pasidEntry(RID)!;
    expect(q0).toBe(P | NESTED | AW_48 | (second << 12n));
    expect(q1).toBe(3n | PWSNP | PGSNP);
    expect(q2).toBe(0x8123_4000n);
  });

  it("takes nothing of pgtbl_addr but the page, so that no flag comes in past its check", () => {
    const b = bench();
    const device = b.device({ rid: RID });
    const parent = b.paging(device, NEST_PARENT);
    device.attach(b.nested(device, parent, 0x8123_4fffn));
    expect(b.pasidEntry(RID)![2]).toBe(0x8123_4000n);
  });

  it("WPE counts with SRE only; dirty tracking of the parent marks nested entries, too", () => {
    const b = bench({ SRS: true });
    const device = b.device({ rid: RID });
    const parent = b.paging(device, NEST_PARENT | DIRTY);
    device.attach(b.nested(device, parent, 0x1000n, 48, 4n));
    expect(b.pasidEntry(RID)![2]! & 0xfffn).toBe(0n);
    device.attach(b.nested(device, parent, 0x1000n, 48, 4n | 1n));
    expect(b.pasidEntry(RID)![2]! & 0xfffn).toBe((1n << 4n) | 1n);
    parent.dirty!.setTracking(true);
    expect(b.pasidEntry(RID)![0]! & SSADE).toBe(SSADE);
  });

  it("what a nested domain asks of the unit is looked at when it is attached", () => {
    const b = bench();
    const device = b.device({ rid: RID });
    const parent = b.paging(device, NEST_PARENT);
    device.attach(parent);
    const refused = (width: number, flags: bigint) => device.attach(b.nested(device, parent, 0x1000n, width, flags));
    expect(refused(47, 0n)).toBe(-EINVAL);
    expect(refused(57, 0n), "no five levels").toBe(-EINVAL);
    expect(refused(48, 1n), "no SRS").toBe(-EINVAL);
    expect(refused(48, 2n), "no EAFS").toBe(-EINVAL);
    expect(b.pasidEntry(RID)![0]! & (7n << 6n), "the parent is back").toBe(SECOND_STAGE);
    expect(refused(48, 0xf0n), "flags that there are not").toBe(0);
    const five = bench({ FS5LP: true, EAFS: true });
    const other = five.device({ rid: RID });
    const domain = five.nested(other, five.paging(other, NEST_PARENT), 0x1000n, 57, 2n);
    expect(other.attach(domain)).toBe(0);
    expect(five.pasidEntry(RID)![2]! & 0xfffn, "FSPM 1, EAFE").toBe((1n << 2n) | (1n << 7n));
  });
});

describe("domains", () => {
  it("are what the unit has: the flags decide", () => {
    const kinds = (features: Parameters<typeof bench>[0], flags: number): number | string => {
      const b = bench(features);
      const domain = b.driver.allocPaging(b.device({ rid: RID }).device, flags, null);
      return typeof domain === "number" ? domain : `stage ${(domain as unknown as { stage: number }).stage}`;
    };
    expect(kinds({}, 0)).toBe("stage 1");
    expect(kinds({}, PASID)).toBe("stage 1");
    expect(kinds({}, DIRTY)).toBe("stage 2");
    expect(kinds({}, NEST_PARENT | DIRTY | PASID)).toBe("stage 2");
    expect(kinds({}, 16)).toBe(-EOPNOTSUPP);
    expect(kinds({ FSTS: false, NEST: false }, 0)).toBe("stage 2");
    expect(kinds({ NEST: false }, NEST_PARENT)).toBe(-EOPNOTSUPP);
    expect(kinds({ SSADS: false }, DIRTY)).toBe(-EOPNOTSUPP);
    expect(kinds({ SSTS: false, NEST: false, SSADS: false }, 0)).toBe("stage 1");
    expect(kinds({ SMTS: false }, 0), "legacy mode").toBe("stage 2");
    expect(kinds({ SMTS: false }, NEST_PARENT)).toBe(-EOPNOTSUPP);
  });

  it("a nest parent takes no mapping without write permission", () => {
    const b = bench();
    const parent = b.paging(b.device({ rid: RID }), NEST_PARENT);
    expect(parent.map(0x1000n, 0x5000n, 0x1000n, 1)).toBe(-EINVAL);
    expect(parent.map(0x1000n, 0x5000n, 0x1000n, READ_WRITE)).toBe(0);
    const plain = b.paging(b.device({ rid: 0x0110 }), DIRTY);
    expect(plain.map(0x1000n, 0x5000n, 0x1000n, 1), "another second stage does").toBe(0);
    expect(plain.map(0x2000n, 0x5000n, 0x1000n, 2), "write only").toBe(0);
    expect(plain.iovaToPhys(0x2123n)).toBe(0x5123n);
    expect(plain.map(0x2000n, 0x6000n, 0x1000n, READ_WRITE), "mapped already").toBe(-98);
    expect(plain.unmap(0x2000n, 0x1000n), "found though it cannot be read").toBe(0x1000n);
  });

  it("have an id on a unit while something there is on them, and no longer", () => {
    const b = bench({ ND: 0 });
    // 2^4 ids, of which 0 and 1 are nobody's.
    const devices = Array.from({ length: 15 }, (_, i) => b.device({ rid: 0x100 + 8 * i }));
    const results = devices.map((device) => device.attach(b.paging(device)));
    expect(results).toEqual([...new Array(14).fill(0), -ENOSPC]);
    devices[3]!.detach();
    expect(devices[14]!.attach(b.paging(devices[14]!))).toBe(0);
    expect(b.pasidEntry(0x100 + 8 * 14)![1]! & 0xffffn, "the one that was given back").toBe(5n);
  });

  it("two devices on one domain share its id on their unit; another unit has its own", () => {
    const b = bench({}, { units: 2 });
    const [first, second] = [b.device({ rid: RID }), b.device({ rid: 0x0110 })];
    const third = b.device({ rid: 0x0118 }, 1);
    const domain = b.paging(first);
    for (const device of [first, second, third]) expect(device.attach(domain)).toBe(0);
    expect([RID, 0x0110].map((rid) => b.pasidEntry(rid)![1]! & 0xffffn)).toEqual([2n, 2n]);
    for (const hardware of b.hardware) hardware.take();
    domain.map(0x1000n, 0x5000n, 0x1000n, READ_WRITE);
    domain.unmap(0x1000n, 0x1000n);
    domain.sync(0x1000n, 0x1000n);
    expect(named(b), "once for the two").toEqual(["6/3"]);
    expect(named(b, 1)).toEqual(["6/3"]);
    expect(second.attach(b.paging(second))).toBe(0);
    first.detach();
    third.detach();
    domain.free();
    expect(b.live.entries().find(([kind]) => kind === "paging domain")).toEqual(["paging domain", 1]);
  });

  it("page requests of a device that sends none are not to be had", () => {
    const b = bench();
    const device = b.device({ rid: RID });
    expect(device.attach(b.paging(device), () => 0)).toBe(-ENODEV);
    const asking = b.device({ rid: 0x0110, ats: true, pri: true });
    expect(asking.attach(b.paging(asking), () => 0)).toBe(0);
  });
});

describe("changing what is present", () => {
  it("clears P, tells the hardware, and only then writes anew (§6.5.3.3)", () => {
    const b = bench();
    const device = b.device({ rid: RID });
    device.attach(b.paging(device));
    b.hardware[0]!.take();
    const seen: [number, bigint, bigint][] = [];
    b.hardware[0]!.meddle = ({ type }) => {
      if (type !== 5) seen.push([type, b.pasidEntry(RID)![0]! & P, b.pasidEntry(RID)![1]! & 0xffffn]);
      return null;
    };
    expect(device.attach(b.paging(device, NEST_PARENT))).toBe(0);
    expect(seen, "PASID-cache and PASID-IOTLB, the entry absent but still the old one").toEqual([
      [7, 0n, 2n],
      [6, 0n, 2n],
    ]);
    expect(b.pasidEntry(RID)![0]! & P).toBe(P);
  });

  it("a second stage's translations go by their domain id, a device's own, too", () => {
    const b = bench();
    const device = b.device({ rid: RID, ats: true });
    device.attach(b.paging(device, NEST_PARENT));
    b.hardware[0]!.take();
    device.detach();
    const descriptors = b.hardware[0]!.take();
    expect(descriptors.map(({ type }) => type)).toEqual([7, 2, 3]);
    const [, domain, atc] = descriptors;
    expect(domain!.words[0], "domain-selective, drained, id 2").toBe(2n | (2n << 4n) | (3n << 6n) | (2n << 16n));
    expect(atc!.words, "everything: all address bits but the highest").toEqual([
      3n | (BigInt(RID) << 32n),
      0x7fff_ffff_ffff_f000n | 1n,
    ]);
  });

  it("with caching mode what appears is told of, too", () => {
    const b = bench({ CM: true });
    const device = b.device({ rid: RID });
    device.attach(b.paging(device));
    expect(named(b)).toEqual(["7/1", "6/2"]);
    const parent = b.paging(device, NEST_PARENT);
    device.attach(parent);
    b.hardware[0]!.take();
    parent.map(0x1000n, 0x5000n, 0x1000n, READ_WRITE);
    expect(named(b), "a second stage's absent entries may be cached").toEqual(["2/3"]);
  });

  it("without caching mode neither", () => {
    const b = bench();
    const device = b.device({ rid: RID });
    const domain = b.paging(device);
    device.attach(domain);
    domain.map(0x1000n, 0x5000n, 0x1000n, READ_WRITE);
    expect(named(b)).toEqual([]);
  });
});

describe("unmaps", () => {
  it("name an aligned power of two of pages that covers the range; leaves alone where nothing above them went", () => {
    const b = bench();
    const device = b.device({ rid: RID });
    const domain = b.paging(device);
    device.attach(domain);
    domain.map(0n, 0x10_0000n, 0x10_0000n, READ_WRITE);
    b.hardware[0]!.take();
    domain.unmap(0x3000n, 0x2000n);
    domain.sync(0x3000n, 0x2000n);
    // Pages 3 and 4: only 0 to 7 holds both. AM 3, IH.
    expect(b.hardware[0]!.take().map(({ words }) => words)).toEqual([[6n | (3n << 4n) | (2n << 16n), 3n | (1n << 6n)]]);
    domain.unmap(0n, 0x10_0000n);
    domain.sync(0n, 0x10_0000n);
    expect(b.hardware[0]!.take()[0]!.words[1], "the table went, too: no IH").toBe(8n);
  });

  it("of a nest parent drop what guests made of it, and all that their devices hold", () => {
    const b = bench();
    const device = b.device({ rid: RID, ats: true });
    const parent = b.paging(device, NEST_PARENT);
    device.attach(b.nested(device, parent, 0x1000n));
    parent.map(0x8000n, 0x5000n, 0x1000n, READ_WRITE);
    b.hardware[0]!.take();
    parent.unmap(0x8000n, 0x1000n);
    parent.sync(0x8000n, 0x1000n);
    const descriptors = b.hardware[0]!.take();
    expect(descriptors[0]!.words[0], "page-selective, drained, the nested domain's id").toBe(
      2n | (3n << 4n) | (3n << 6n) | (2n << 16n),
    );
    expect(descriptors[1]!.words).toEqual([3n | (BigInt(RID) << 32n), 0x7fff_ffff_ffff_f001n]);
    expect(descriptors).toHaveLength(2);
  });

  it("of more pages than MAMV allows, or without PSI, are the whole domain's", () => {
    for (const features of [{ MAMV: 2 }, { PSI: false }]) {
      const b = bench(features);
      const device = b.device({ rid: RID });
      const domain = b.paging(device, DIRTY);
      device.attach(domain);
      domain.map(0n, 0x10_0000n, 0x10_0000n, READ_WRITE);
      b.hardware[0]!.take();
      domain.unmap(0n, 0x8000n);
      domain.sync(0n, 0x8000n);
      expect(named(b)).toEqual(["2/2"]);
    }
  });
});

describe("PASIDs", () => {
  it("have entries of their own, with the PASID in descriptors; their tables go with the last of them", () => {
    const b = bench();
    const device = b.device({ rid: RID, ats: true, maxPasids: 2 ** 20 });
    const used = b.frames.usedPages;
    const domain = b.paging(device, PASID);
    const tables = b.frames.usedPages;
    expect(device.attachPasid(domain, 0x12345)).toBe(0);
    expect(b.pasidEntry(RID, 0x12345)![0]! & 0x1c1n).toBe(P | FIRST_STAGE);
    expect(b.pasidEntry(RID)![0], "the requester id is still blocked").toBe(0n);
    domain.map(0x1000n, 0x5000n, 0x1000n, READ_WRITE);
    b.hardware[0]!.take();
    domain.unmap(0x1000n, 0x1000n);
    domain.sync(0x1000n, 0x1000n);
    const [iotlb, atc] = b.hardware[0]!.take();
    expect(iotlb!.words[0]).toBe(6n | (3n << 4n) | (2n << 16n) | (0x12345n << 32n));
    expect(atc!.words).toEqual([8n | (BigInt(RID) << 16n) | (0x12345n << 32n), 0x1000n]);
    expect(b.frames.usedPages).toBeGreaterThan(tables);
    device.detachPasid(0x12345);
    expect(b.pasidEntry(RID, 0x12345)).toBeNull();
    domain.free();
    expect(b.frames.usedPages).toBe(used);
  });

  it("are refused for a domain that tracks dirty state, and in legacy mode", () => {
    const b = bench();
    const device = b.device({ rid: RID, maxPasids: 64 });
    expect(device.attachPasid(b.paging(device, DIRTY | PASID), 3)).toBe(-EINVAL);
    const legacy = bench({ SMTS: false });
    const old = legacy.device({ rid: RID, maxPasids: 64 });
    expect(old.attachPasid(legacy.paging(old), 3)).toBe(-EOPNOTSUPP);
  });

  it("can be replaced, by a nested domain, too", () => {
    const b = bench();
    const device = b.device({ rid: RID, maxPasids: 64 });
    const parent = b.paging(device, NEST_PARENT);
    expect(device.attachPasid(b.paging(device, PASID), 3)).toBe(0);
    expect(device.attachPasid(b.nested(device, parent, 0x4000n), 3)).toBe(0);
    expect(b.pasidEntry(RID, 3)![0]! & (7n << 6n)).toBe(NESTED);
    expect(device.attachPasid(b.nested(device, parent, 0x4000n, 57), 3)).toBe(-EINVAL);
    expect(b.pasidEntry(RID, 3)![0]! & (7n << 6n), "as it was").toBe(NESTED);
  });
});
