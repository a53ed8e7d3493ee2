// Anything a process may do, in any order, over the real driver and hardware: nothing throws, no device's DMA reaches memory that is
// not mapped for it, and when the process has gone nothing is left.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NO_PASID } from "../../../host/devices/ports.ts";
import { ACCESS_READ, TRANSLATED } from "../../../host/hw/iommu/port.ts";
import * as I from "../../../host/uapi/iommufd.ts";
import * as X from "../../../host/uapi/vfio.ts";
import * as C from "../../../host/uapi/vfio-container.ts";
import { type EduPlace, machine, name, type User } from "./machine.ts";

const RIDS = [0x0108, 0x0110, 0x8108];
const PLACES: EduPlace[] = [
  { rid: 0x0108, options: { pasidBits: 8, ats: true, pri: true } },
  { rid: 0x0110 },
  { rid: 0x8108, iommu: 1, options: { pasidBits: 20 } },
];

type Pool =
  | "iommufd"
  | "vfio"
  | "group"
  | "container"
  | "events"
  | "device"
  | "ioas"
  | "parent"
  | "plain"
  | "pasid"
  | "nested"
  | "viommu"
  | "vdevice"
  | "fault";

interface State {
  readonly host: ReturnType<typeof machine>;
  readonly user: User;
  /** Descriptors and object ids by what they were made as, stale ones included. */
  readonly pools: Map<Pool, number[]>;
  readonly va: bigint;
}

type Operation = readonly [kind: number, a: number, b: number, c: number];

/** One of a pool; every eleventh time one of any pool, as a confused program would. */
function pick({ pools }: State, pool: Pool, index: number): number {
  const list = index % 11 === 10 ? [...pools.values()].flat() : (pools.get(pool) ?? []);
  return list[index % Math.max(1, list.length)] ?? 0;
}

function note({ pools }: State, pool: Pool, value: number): void {
  if (value < 0 || (value === 0 && pool !== "iommufd")) return;
  const list = pools.get(pool) ?? [];
  list.push(value);
  pools.set(pool, list);
}

const HWPTS: Pool[] = ["parent", "plain", "pasid", "nested", "ioas"];
const IDS: Pool[] = ["vdevice", "nested", "viommu", "parent", "plain", "pasid", "ioas", "fault", "device"];
const FDS: Pool[] = ["vfio", "group", "container", "events", "iommufd"];

const OPERATIONS: ((state: State, a: number, b: number, c: number) => void)[] = [
  (s, a) => note(s, "iommufd", a % 4 === 0 ? s.user.open("/dev/iommu") : -1),
  (s, a) => note(s, "vfio", s.user.open(s.host.vfio.nodeOf(name(RIDS[a % 3]!)) ?? "/dev/null")),
  (s, a) => note(s, "group", s.user.open(s.host.vfio.groupNodeOf(name(RIDS[a % 3]!)) ?? "/dev/null")),
  (s) => note(s, "container", s.user.open("/dev/vfio/vfio")),
  (s, a, b) => note(s, "device", s.user.bind(pick(s, "vfio", a), pick(s, "iommufd", b))),
  (s, a) => {
    const reply = s.user.call(pick(s, "iommufd", a), I.IOMMU_IOAS_ALLOC, I.iommuIoasAlloc, {});
    if (reply.result === 0) note(s, "ioas", reply.out_ioas_id);
  },
  (s, a, b, c) => {
    const va = s.va + BigInt(c % 4) * 4096n;
    s.user.map(pick(s, "iommufd", 0), pick(s, "ioas", a), va, 4096 * (1 + (c % 3)), BigInt(b % 8) * 0x1000n);
  },
  (s, a, b, c) => {
    const iova = BigInt(c % 8) * 0x1000n;
    s.user.unmap(pick(s, "iommufd", 0), pick(s, "ioas", a), iova, 0x1000n * BigInt(1 + (b % 3)));
  },
  (s, a, b, c) => {
    const [flags, pool] = (
      [
        [0, "plain"],
        [1, "parent"],
        [2, "plain"],
        [3, "parent"],
        [8, "pasid"],
      ] as const
    )[c % 5]!;
    note(s, pool, s.user.hwpt(pick(s, "iommufd", 0), pick(s, "device", a), pick(s, "ioas", b), { flags }));
  },
  (s, a, b) => note(s, "viommu", s.user.viommu(pick(s, "iommufd", 0), pick(s, "device", a), pick(s, "parent", b))),
  (s, a, b, c) => {
    const viommu = pick(s, "viommu", a);
    note(s, "vdevice", s.user.vdevice(pick(s, "iommufd", 0), viommu, pick(s, "device", b), BigInt(c)));
  },
  (s, a, b, c) => {
    // Blocked, bypass, and a first stage in memory that is no table.
    const words = { tc: [0n, 1n, 1n, 17n, 7n][c % 5]!, fsc: c % 2 === 0 ? 0n : 8n << 60n };
    const fault = c % 3 === 0 ? pick(s, "fault", a) : undefined;
    note(s, "nested", s.user.nested(pick(s, "iommufd", 0), pick(s, "device", a), pick(s, "viommu", b), words, fault));
  },
  (s, a, b, c) => void s.user.attach(pick(s, "vfio", a), pick(s, HWPTS[c % HWPTS.length]!, b)),
  (s, a, b, c) => void s.user.attach(pick(s, "vfio", a), pick(s, HWPTS[c % HWPTS.length]!, b)),
  (s, a) => void s.user.detach(pick(s, "vfio", a)),
  (s, a, b, c) => {
    const values = { flags: X.VFIO_DEVICE_ATTACH_PASID, pasid: c % 5, pt_id: pick(s, "pasid", b) };
    s.user.call(pick(s, "vfio", a), X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, values);
  },
  (s, a, _b, c) => {
    const values = { flags: X.VFIO_DEVICE_DETACH_PASID, pasid: c % 5 };
    s.user.call(pick(s, "vfio", a), X.VFIO_DEVICE_DETACH_IOMMUFD_PT, X.vfioDeviceDetachIommufdPt, values);
  },
  (s, a, _b, c) => void s.user.destroy(pick(s, "iommufd", 0), pick(s, IDS[c % IDS.length]!, a)),
  (s, a, b, c) => {
    // Closing the one iommufd that everything stands on would leave little to try.
    if (b % 6 === 0) s.user.process.close(pick(s, FDS[c % FDS.length]!, a));
  },
  (s, a, _b, c) => void s.user.irq(pick(s, "vfio", a), c % 5),
  (s, a) => void s.user.process.ioctl(pick(s, "vfio", a), X.VFIO_DEVICE_RESET, 0n),
  (s, a, b, c) => void s.user.setContainer(pick(s, "group", a), pick(s, c % 2 === 0 ? "container" : "iommufd", b)),
  (s, a, _b, c) => void s.user.process.ioctl(pick(s, "container", a), C.VFIO_SET_IOMMU, BigInt([1, 3][c % 2]!)),
  (s, a, b) => note(s, "vfio", s.user.deviceFd(pick(s, "group", a), name(RIDS[b % 3]!))),
  (s, a, b) => void s.user.mapDma(pick(s, "container", a), s.va, BigInt(b % 8) * 0x1000n, 0x1000n),
  (s, a, b) => {
    if (b % 4 === 0) s.host.kernel.pci.unbind(name(RIDS[a % 3]!));
  },
  (s, a, _b, c) => void s.host.kernel.pci.bind(name(RIDS[a % 3]!), c % 4 === 0 ? "pci-stub" : "vfio-pci"),
  (s) => s.host.run(5_000),
  (s, a) => {
    const values = { viommu_id: pick(s, "viommu", a), type: 0xf0520005, veventq_depth: 2 };
    const reply = s.user.call(pick(s, "iommufd", 0), I.IOMMU_VEVENTQ_ALLOC, I.iommuVeventqAlloc, values);
    if (reply.result === 0) note(s, "events", reply.out_veventq_fd);
  },
  (s, a) => void s.user.process.ioctl(pick(s, "group", a), C.VFIO_GROUP_UNSET_CONTAINER, 0n),
  (s, a) => {
    const reply = s.user.call(pick(s, "iommufd", a), I.IOMMU_FAULT_QUEUE_ALLOC, I.iommuFaultAlloc, {});
    if (reply.result !== 0) return;
    note(s, "fault", reply.out_fault_id);
    note(s, "events", reply.out_fault_fd);
  },
  (s, a) => {
    // A device that asks for a page, and one that is refused.
    const place = PLACES[a % 3]!;
    const hardware = s.host.iommus[place.iommu ?? 0]!;
    hardware.pageRequest(place.rid, NO_PASID, 5, a % 512, 5);
    hardware.translate(place.rid, NO_PASID, false, ACCESS_READ, 0x9999, 0, false, 0);
  },
  (s, a) => {
    const events = pick(s, "events", a);
    s.user.process.read(events, s.user.scratch, 4000, -1n);
    s.user.process.write(events, s.user.scratch, 8, -1n);
  },
];

/** Frames that some device reaches now, at the addresses the operations map. */
function reached({ host }: State): number[] {
  const frames: number[] = [];
  for (const { rid, iommu } of PLACES) {
    const hardware = host.iommus[iommu ?? 0]!;
    for (const pasid of [NO_PASID, 1, 2, 3, 4]) {
      for (let page = 0; page < 10; page++) {
        const status = hardware.translate(rid, pasid, false, ACCESS_READ, page, 0, false, 0);
        if (status === TRANSLATED) frames.push(hardware.resultPfn);
      }
    }
  }
  return frames;
}

describe("a process that does anything", () => {
  it("breaks nothing and leaves nothing", () => {
    const operation: fc.Arbitrary<Operation> = fc.tuple(
      fc.nat(OPERATIONS.length - 1),
      fc.nat(40),
      fc.nat(40),
      fc.nat(40),
    );
    fc.assert(
      fc.property(
        fc.array(operation, { minLength: 20, maxLength: 120, size: "max" }),
        fc.boolean(),
        (operations, byGroup) => {
          const host = machine({ iommus: [{}, {}], devices: PLACES, ramPages: 4096 });
          host.assign();
          const user = host.user();
          const va = user.process.memory.mapBuffer(new ArrayBuffer(8 * 4096), 0, 8 * 4096);
          const state: State = { host, user, pools: new Map(), va };
          const iommufd = user.iommufd();
          note(state, "iommufd", iommufd);
          if (!byGroup) {
            for (const rid of RIDS) {
              const vfio = user.open(host.vfio.nodeOf(name(rid))!);
              note(state, "vfio", vfio);
              note(state, "device", user.bind(vfio, iommufd));
            }
            const ioas = user.ioas(iommufd);
            note(state, "ioas", ioas);
            user.map(iommufd, ioas, va, 8 * 4096, 0n);
            const device = state.pools.get("device")![0]!;
            const parent = user.hwpt(iommufd, device, ioas, { flags: 1 });
            note(state, "parent", parent);
            const viommu = user.viommu(iommufd, device, parent);
            note(state, "viommu", viommu);
            note(state, "vdevice", user.vdevice(iommufd, viommu, device, 0x10n));
            note(state, "nested", user.nested(iommufd, device, viommu, { tc: 1n }));
            note(state, "nested", user.nested(iommufd, device, viommu, { tc: 7n, fsc: 8n << 60n }));
            note(state, "pasid", user.hwpt(iommufd, device, ioas, { flags: 8 }));
          }
          for (const [kind, x, y, z] of operations) OPERATIONS[kind]!(state, x, y, z);
          // A frame that a device of user space's reaches is pinned (or is a default domain's, where nothing is translated).
          for (const frame of reached(state)) {
            const identity = frame < 16;
            expect(identity || host.kernel.frames.pins.countOf(frame) > 0).toBe(true);
          }
          user.process.exit();
          host.run(1_000_000);
          expect(host.kernel.liveKinds).toEqual([]);
          for (const iommu of host.iommus) expect(iommu.registers.mmioRead(72, 4) & 0x700).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
  });
});
