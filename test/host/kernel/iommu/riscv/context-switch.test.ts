// Hitless switching: between every two stores to memory that an attach makes, a device does DMA; every one of them must go through
// the old context or the new one, never through a third and never be refused.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeCapabilities, structureRules } from "../../../../../host/arch/riscv/capabilities.ts";
import { NO_PASID } from "../../../../../host/devices/ports.ts";
import { ACCESS_READ, TRANSLATED } from "../../../../../host/hw/iommu/port.ts";
import {
  type Context,
  hasSecondStage,
  INVALID_CONTEXT,
  type Phase,
  planStores,
  throughPrivateTag,
} from "../../../../../host/kernel/iommu/riscv/context-switch.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import { copyMemory, emptyMemory } from "../../../../oracle/memory.ts";
import { allowedOutcomes, allowedPageRequestOutcomes } from "../../../../oracle/riscv-iommu/allowed.ts";
import { CAPABILITY, type Capability, type Implementation } from "../../../../oracle/riscv-iommu/implementation.ts";
import type { Request } from "../../../../oracle/riscv-iommu/outcome.ts";
import { GuestRam, GuestSv39, RAM_GPA } from "../../guest.ts";
import { machine, name } from "../../machine.ts";

const RID = 0x0108;
const PDTV = 1n << 5n;
const IOVA = 0x9000_0000n;

/** A hardware that reads every context and table anew shows each store at once; one that caches shows what is kept too long. */
const NO_CACHES = { devices: 0, processes: 0, translations: 0, messages: 0, tables: 0 };

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
  return { host, rid, user, ram, iommufd, ioas, vfio, device, parent, viommu, stage1, reach, switchTo };
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
      "from bypass as the VMM makes it (a Bare process directory, which lets a process_id pass) to nested",
      ({ user, iommufd, device, viommu, stage1 }) => [
        user.nested(iommufd, device, viommu, { tc: 1n | PDTV }),
        user.nested(iommufd, device, viommu, { tc: 1n, fsc: stage1().fsc, ta: 5n << 12n }),
      ],
    ],
    [
      "from nested to that bypass",
      ({ user, iommufd, device, viommu, stage1 }) => [
        user.nested(iommufd, device, viommu, { tc: 1n, fsc: stage1().fsc, ta: 5n << 12n }),
        user.nested(iommufd, device, viommu, { tc: 1n | PDTV }),
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
      [1, true],
      [1, false],
      [2, true],
      [2, false],
      [3, true],
      [3, false],
    ] as const) {
      const parts = setUp(levels, cached);
      const [from, to] = make(parts);
      parts.user.attach(parts.vfio, from);
      const before = parts.reach();
      parts.host.record();
      const reached = parts.switchTo(to);
      const after = parts.reach();
      // Nobody else's context is invalidated on the way (§4.1.3: DV = 0 would drop everybody's).
      const invalidated = parts.host.events.flatMap((event) =>
        event.type === "command" && event.name.startsWith("IODIR") ? [event.words[0]! >> 33n] : [],
      );
      expect(invalidated.length).toBeGreaterThan(0);
      expect(new Set(invalidated)).toEqual(new Set([(BigInt(parts.rid) << 7n) | 1n]));
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

  it("between tables that have nothing in common passes through an invalid context at worst, never through a mixed one", () => {
    const parts = setUp(3, false);
    const { host, user, iommufd, ioas, device, viommu, stage1 } = parts;
    const own = user.hwpt(iommufd, device, ioas, {});
    const nested = user.nested(iommufd, device, viommu, { tc: 1n, fsc: stage1().fsc, ta: 5n << 12n });
    user.attach(parts.vfio, own);
    const before = parts.reach();
    host.record();
    const reached = parts.switchTo(nested);
    const after = parts.reach();
    expect(reached.filter((frame) => ![before, after, -1].includes(frame))).toEqual([]);
    expect(reached).toContain(-1);
    const commands = host.events.flatMap((event) => (event.type === "command" ? [event] : []));
    expect(
      commands.filter(({ name, words }) => name === "IODIR.INVAL_DDT" && ((words[0]! >> 33n) & 1n) === 0n),
    ).toEqual([]);
    user.process.exit();
  });
});

describe("the order of stores", () => {
  const offered: readonly Capability[] = ["Sv39", "Sv39x4", "AMO_HWAD", "ATS", "T2GPA", "PD8"];
  const IMPLEMENTATION: Implementation = {
    capabilities: offered.reduce((word, name) => word | (1n << CAPABILITY[name]), 0x10n | (46n << 32n)),
    be: false,
    gxl: false,
    beWritable: false,
    gxlWritable: false,
    rcidWidth: 0,
    mcidWidth: 0,
  };
  const RULES = structureRules(decodeCapabilities(IMPLEMENTATION.capabilities), { fctl: 0 });
  const [SV39, PD8] = [8n << 60n, 1n << 60n];
  const LEAF = 0b1101_1111n;

  /** Two second stages and, at guest pages that both map one to one, two first stages and two process directories that lead to them. */
  const memory = emptyMemory();
  const put = (address: bigint, value: bigint) => {
    memory.pages.add(address >> 12n);
    memory.words.set(address, value);
  };
  const TABLES = { first: [0x20n, 0x23n], directory: [0x26n, 0x27n], second: [0x30n, 0x38n], context: 0x10n } as const;
  const DATA = 0x51n;
  /** Three levels of Sv39 or Sv39x4 for pages below 512, from `root` on. */
  const table = (root: bigint, rootPages: bigint, pages: Iterable<readonly [bigint, bigint]>) => {
    put(root << 12n, ((root + rootPages) << 10n) | 1n);
    put((root + rootPages) << 12n, ((root + rootPages + 1n) << 10n) | 1n);
    for (const [page, entry] of pages) put(((root + rootPages + 1n) << 12n) + page * 8n, entry);
  };
  for (const index of [0, 1] as const) {
    // The second one's leaf has neither A nor D: who may set them?
    table(TABLES.first[index]!, 1n, [[9n, ((DATA + BigInt(index)) << 10n) | (index === 0 ? LEAF : 0b1_1111n)]]);
    put((TABLES.directory[index]! << 12n) + 0n, 1n | (1n << 12n));
    put((TABLES.directory[index]! << 12n) + 8n, SV39 | TABLES.first[index]!);
    put((TABLES.directory[index]! << 12n) + 80n, 1n | (2n << 12n));
    put((TABLES.directory[index]! << 12n) + 88n, SV39 | TABLES.first[1 - index]!);
    const oneToOne = [...Array(0x20).keys()].map(
      (n) => [0x20n + BigInt(n), ((0x20n + BigInt(n)) << 10n) | LEAF] as const,
    );
    const data = [9n, DATA, DATA + 1n].map((page) => {
      const to = 0x100n * BigInt(index + 1) + page;
      memory.pages.add(to);
      return [page, (to << 10n) | (page === DATA ? 0b1_1111n : LEAF)] as const;
    });
    table(TABLES.second[index]!, 4n, [...oneToOne, ...data]);
  }
  for (const page of [9n, DATA, DATA + 1n, TABLES.context]) memory.pages.add(page);

  const DEVICE_ID = 3n;
  const kinds: readonly Partial<Request>[] = [
    {},
    { access: "write" },
    { processId: 0n },
    { processId: 5n, access: "write" },
    { type: "translated" },
    { type: "translated", access: "write" },
    { type: "ats", noWrite: true },
    { type: "ats", noWrite: true, processId: 5n },
  ];

  /** What the oracle says of each kind of request under a context. */
  const answers = (context: Context): string[] => {
    const now = copyMemory(memory);
    for (const [word, value] of context.entries())
      now.words.set((TABLES.context << 12n) + DEVICE_ID * 32n + BigInt(word) * 8n, value);
    const ddtp = { mode: "1lvl", ppn: TABLES.context } as const;
    const said = kinds.map((kind): unknown =>
      allowedOutcomes(IMPLEMENTATION, ddtp, now, {
        deviceId: DEVICE_ID,
        processId: null,
        privileged: false,
        type: "untranslated",
        access: "read",
        noWrite: false,
        executeRequested: false,
        iova: 0x9000n,
        ...kind,
      }),
    );
    const page = {
      deviceId: DEVICE_ID,
      privileged: false,
      execute: false,
      read: true,
      write: false,
      last: true,
      group: 1n,
      address: 0n,
    };
    for (const processId of [null, 5n])
      said.push(allowedPageRequestOutcomes(IMPLEMENTATION, ddtp, now, { ...page, processId }));
    // Whether a fault is recorded is tc.DTF's, old or new, whatever the rest.
    const shown = (key: string, value: unknown) =>
      key === "record" || key === "fault" ? undefined : typeof value === "bigint" ? `${value}` : value;
    return said.map((one) => JSON.stringify(one, shown));
  };

  /** Tag and table of what is cached of a first stage under a context; null if nothing is. */
  const cached = ([tc, iohgatp, ta, fsc]: Context): string | null => {
    if ((tc & 1n) === 0n || (tc & PDTV) !== 0n || fsc >> 60n === 0n) return null;
    return `${iohgatp >> 60n === 0n ? "host" : (iohgatp >> 44n) & 0xffffn} ${ta} ${fsc}`;
  };

  const bits = (...choices: readonly bigint[]) =>
    fc.subarray([...choices]).map((set) => set.reduce((a, b) => a | b, 1n));
  const control = bits(1n << 1n, 1n << 2n, 1n << 3n, 1n << 4n, PDTV, 1n << 6n, 1n << 7n, 1n << 8n, 1n << 9n);
  const second = fc.constantFrom(
    0n,
    SV39 | (1n << 44n) | TABLES.second[0],
    SV39 | (2n << 44n) | TABLES.second[0],
    SV39 | (2n << 44n) | TABLES.second[1],
  );
  const first = fc.constantFrom(
    0n,
    SV39 | TABLES.first[0],
    SV39 | TABLES.first[1],
    PD8 | TABLES.directory[0],
    PD8 | TABLES.directory[1],
  );
  const contexts: fc.Arbitrary<Context> = fc.oneof(
    { weight: 1, arbitrary: fc.constant<Context>(INVALID_CONTEXT) },
    {
      weight: 9,
      arbitrary: fc
        .tuple(control, second, fc.constantFrom(1n << 12n, 2n << 12n), first)
        .filter((words) => !answers(words)[0]!.includes('"cause":259')),
    },
  );

  /** Every mixture that the hardware may read on the way, in whatever order the stores of a phase are seen. */
  const mixtures = (from: Context, phases: readonly Phase[]): Context[] => {
    const seen: Context[] = [];
    let now = from;
    for (const phase of phases) {
      for (let some = 0; some < 1 << phase.length; some++) {
        const mixture = [...now] as [bigint, bigint, bigint, bigint];
        for (const [n, { word, value }] of phase.entries()) if ((some & (1 << n)) !== 0) mixture[word] = value;
        seen.push(mixture);
      }
      now = seen.at(-1)!;
    }
    return [...seen, now];
  };

  it("never has a request treated in a third way, nor tables cached under a tag of others", () => {
    fc.assert(
      fc.property(contexts, contexts, (from, to) => {
        const tag = 77;
        const direct = planStores(from, to, RULES);
        const phases = direct ?? throughPrivateTag(from, to, RULES, tag);
        if (phases === null) return;
        const [before, after] = [answers(from), answers(to)];
        const seen = mixtures(from, phases);
        for (const mixture of seen) {
          for (const [kind, answer] of answers(mixture).entries())
            expect([before[kind], after[kind]]).toContain(answer);
          const underPrivateTag =
            direct === null && (hasSecondStage(to) ? (mixture[1] >> 44n) & 0xffffn : mixture[2] >> 12n) === 77n;
          if (!underPrivateTag && cached(mixture) !== null)
            expect([cached(from), cached(to)]).toContain(cached(mixture));
        }
        expect(seen.at(-1)).toEqual([...to]);
      }),
      { numRuns: 400 },
    );
  });

  it("can always make a context valid, and always take one out", () => {
    fc.assert(
      fc.property(contexts, (valid) => {
        expect(planStores(INVALID_CONTEXT, valid, RULES)).not.toBeNull();
        expect(planStores(valid, INVALID_CONTEXT, RULES)).not.toBeNull();
      }),
    );
  });

  const gatp = SV39 | (1n << 44n) | TABLES.second[0];
  const words = (phases: readonly Phase[] | null) => phases?.map((phase) => phase.map(({ word }) => word));

  it("switches by one store of fsc between bypass and a first stage, and lets a process_id go before", () => {
    const nested: Context = [1n, gatp, 1n << 12n, SV39 | TABLES.first[0]];
    expect(words(planStores([1n, gatp, 0n, 0n], nested, RULES))).toEqual([[2], [3]]);
    expect(words(planStores(nested, [1n, gatp, 0n, 0n], RULES))).toEqual([[3], [2]]);
    expect(words(planStores([1n | PDTV, gatp, 0n, 0n], nested, RULES))).toEqual([[0, 2], [3]]);
    expect(words(planStores(nested, [1n | PDTV, gatp, 0n, 0n], RULES))).toEqual([[3], [0, 2]]);
  });

  it("takes a private tag where tables and PSCID both change", () => {
    const from: Context = [1n, gatp, 1n << 12n, SV39 | TABLES.first[0]];
    const to: Context = [1n, gatp, 2n << 12n, SV39 | TABLES.first[1]];
    expect(planStores(from, to, RULES)).toBeNull();
    expect(words(throughPrivateTag(from, to, RULES, 77))).toEqual([[1], [2, 3], [1]]);
  });
});
