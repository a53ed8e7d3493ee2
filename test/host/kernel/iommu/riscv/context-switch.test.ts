// Hitless switching: between every two stores to memory that an attach makes, a device does DMA; every one of them must go through
// the old context or the new one, never through a third and never be refused.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NO_PASID } from "../../../../../host/devices/ports.ts";
import { ACCESS_READ, TRANSLATED } from "../../../../../host/hw/iommu/port.ts";
import { type Context, planSwitch, usedBits } from "../../../../../host/kernel/iommu/riscv/context-switch.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import { GuestRam, GuestSv39, RAM_GPA } from "../../guest.ts";
import { machine, name } from "../../machine.ts";

const RID = 0x0108;
const IOVA = 0x9000_0000n;

/** A hardware that reads every context and table anew shows each store at once; one that caches shows what is kept too long. */
const NO_CACHES = { devices: 0, processes: 0, translations: 0, messages: 0 };

function setUp(directoryLevels: 1 | 2 | 3 = 3, cached = true) {
  const rid = directoryLevels === 1 ? 0x18 : RID;
  const host = machine({ iommus: [{ directoryLevels, ...(cached ? {} : { caches: NO_CACHES }) }], devices: [{ rid }] });
  host.assign();
  const user = host.user();
  const ram = new GuestRam(1 << 21);
  const va = user.process.memory.mapBuffer(ram.buffer, 0, ram.buffer.byteLength);
  const iommufd = user.iommufd();
  const ioas = user.ioas(iommufd);
  // The guest-physical RAM, and the IOVA under test as a guest-physical address too, so that bypass translates it.
  user.map(iommufd, ioas, va, ram.buffer.byteLength, RAM_GPA);
  user.map(iommufd, ioas, va, 4096, IOVA);
  const vfio = user.open(host.vfio.nodeOf(name(rid))!);
  const device = user.bind(vfio, iommufd);
  const parent = user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT });
  const viommu = user.viommu(iommufd, device, parent);
  user.vdevice(iommufd, viommu, device, 0x10n);
  const stage1 = (): GuestSv39 => {
    const stage = new GuestSv39(ram);
    stage.map(IOVA, ram.page());
    return stage;
  };
  /** Frame that a read of the IOVA reaches now, or -1 when refused. */
  const reach = () => {
    const status = host.iommus[0]!.translate(rid, NO_PASID, false, ACCESS_READ, Number(IOVA >> 12n), 0, false, 0);
    return status === TRANSLATED ? host.iommus[0]!.resultPfn : -1;
  };
  /** Attaches while the device reads between any two stores: every frame that was reached. */
  const switchTo = (id: number) => {
    const reached: number[] = [];
    let inside = false;
    const probe = () => {
      if (inside) return;
      inside = true;
      reached.push(reach());
      inside = false;
    };
    host.memory.onStore = probe;
    expect(user.attach(vfio, id)).toBe(id);
    host.memory.onStore = null;
    return reached;
  };
  return { host, user, ram, iommufd, ioas, vfio, device, parent, viommu, stage1, reach, switchTo };
}

describe("switching a live device", () => {
  const cases: [string, (parts: ReturnType<typeof setUp>) => [number, number]][] = [
    [
      "from bypass to nested",
      ({ user, iommufd, device, viommu, stage1 }) => [
        user.nested(iommufd, device, viommu, { tc: 1n }),
        user.nested(iommufd, device, viommu, { tc: 1n, fsc: stage1().fsc, ta: 5n << 12n }),
      ],
    ],
    [
      "from nested to bypass",
      ({ user, iommufd, device, viommu, stage1 }) => [
        user.nested(iommufd, device, viommu, { tc: 1n, fsc: stage1().fsc, ta: 5n << 12n }),
        user.nested(iommufd, device, viommu, { tc: 1n }),
      ],
    ],
    [
      "from one first stage to another with another PSCID",
      ({ user, iommufd, device, viommu, stage1 }) => [
        user.nested(iommufd, device, viommu, { tc: 1n, fsc: stage1().fsc, ta: 5n << 12n }),
        user.nested(iommufd, device, viommu, { tc: 1n, fsc: stage1().fsc, ta: 6n << 12n }),
      ],
    ],
    [
      "from the parent (another GSCID) to nested with other control bits",
      ({ user, iommufd, device, viommu, parent, stage1 }) => [
        parent,
        user.nested(iommufd, device, viommu, { tc: 1n | (1n << 4n), fsc: stage1().fsc, ta: 5n << 12n }),
      ],
    ],
    [
      "from nested to the parent",
      ({ user, iommufd, device, viommu, parent, stage1 }) => [
        user.nested(iommufd, device, viommu, { tc: 1n | (1n << 8n), fsc: stage1().fsc, ta: 5n << 12n }),
        parent,
      ],
    ],
  ];

  it.each(cases)("%s shows the hardware the old or the new context only", (_name, make) => {
    for (const [levels, cached] of [
      [2, true],
      [2, false],
      [3, true],
      [3, false],
    ] as const) {
      const parts = setUp(levels, cached);
      const [from, to] = make(parts);
      parts.user.attach(parts.vfio, from);
      const before = parts.reach();
      const reached = parts.switchTo(to);
      const after = parts.reach();
      expect(before).toBeGreaterThan(0);
      expect(after).toBeGreaterThan(0);
      expect(after).not.toBe(before);
      expect(reached.length).toBeGreaterThan(1);
      expect(reached.filter((frame) => frame !== before && frame !== after)).toEqual([]);
      // Once the new context has been seen the old one does not come back.
      expect(reached.lastIndexOf(before) < reached.indexOf(after) || !reached.includes(after)).toBe(true);
      // Without caches the store that switches shows at once: it is one of those between which the device read.
      if (!cached) expect(reached[reached.length - 1]).toBe(after);
      parts.user.process.exit();
      expect(parts.host.kernel.liveObjects).toBe(0);
    }
  });

  it("with a one-level directory passes through an invalid context at worst, never through a mixed one", () => {
    const parts = setUp(1, false);
    const { user, iommufd, device, viommu, parent, stage1 } = parts;
    const nested = user.nested(iommufd, device, viommu, { tc: 1n | (1n << 4n), fsc: stage1().fsc, ta: 5n << 12n });
    user.attach(parts.vfio, parent);
    const before = parts.reach();
    const reached = parts.switchTo(nested);
    const after = parts.reach();
    expect(reached.filter((frame) => ![before, after, -1].includes(frame))).toEqual([]);
    expect(reached).toContain(-1);
    user.process.exit();
  });
});

describe("the order of stores", () => {
  const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
  const mode = (value: bigint) => fc.constantFrom(0n, value).map((m) => m << 60n);
  const context: fc.Arbitrary<Context> = fc.oneof(
    fc.constant<Context>([0n, 0n, 0n, 0n]),
    fc.tuple(word, word, mode(9n), word, mode(8n), word).map(([tc, gatp, gatpMode, ta, fscMode, fsc]): Context => {
      const low = (1n << 60n) - 1n;
      return [(tc & 0xfffn) | 1n, (gatp & low) | gatpMode, ta & 0xfffff000n, (fsc & low) | fscMode];
    }),
  );

  /** What the hardware makes of a context: the bits it looks at. */
  const seen = (words: readonly bigint[]): string => {
    const used = usedBits(words as unknown as Context);
    return words.map((value, i) => (value & used[i]!).toString(16)).join(" ");
  };

  it("never shows a third context, in whatever state each phase is caught", () => {
    fc.assert(
      fc.property(context, context, (from, to) => {
        const plan = planSwitch(from, to);
        if (plan.kind === "replace") return;
        const now = [...from];
        for (const phase of plan.phases) {
          for (const store of phase) {
            now[store.word] = store.value;
            expect([seen(from), seen(to)]).toContain(seen(now));
          }
        }
        expect(now).toEqual([...to]);
      }),
      { numRuns: 500 },
    );
  });

  it("can always make a context valid, and always take one out", () => {
    fc.assert(
      fc.property(context, (valid) => {
        expect(planSwitch([0n, 0n, 0n, 0n], valid).kind).toBe("stores");
        expect(planSwitch(valid, [0n, 0n, 0n, 0n]).kind).toBe("stores");
      }),
    );
  });

  it("uses one critical store between bypass and nested", () => {
    const bypass: Context = [1n, (9n << 60n) | 5n, 0n, 0n];
    const nested: Context = [1n, (9n << 60n) | 5n, 7n << 12n, (8n << 60n) | 0x80010n];
    expect(planSwitch(bypass, nested)).toEqual({
      kind: "stores",
      phases: [[{ word: 2, value: 7n << 12n }], [{ word: 3, value: nested[3] }]],
    });
    const back = planSwitch(nested, bypass);
    expect(back.kind === "stores" && back.phases.map((phase) => phase.map(({ word }) => word))).toEqual([[3], [2]]);
  });
});
