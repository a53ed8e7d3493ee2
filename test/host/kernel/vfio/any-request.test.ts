// Whatever user space asks of VFIO, in whatever order, with whatever numbers: the answer is a result or an errno, nothing is thrown, and
// when the process is gone nothing of it is left - no claim of a group, no pinned page, no object.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as X from "../../../../host/uapi/vfio.ts";
import * as C from "../../../../host/uapi/vfio-container.ts";
import { machine, name } from "../machine.ts";
import { RichFunction } from "./rich-function.ts";

const RIDS = [0x0108, 0x0110, 0x0200];
const NUMBERS = [
  0,
  1,
  2,
  3,
  4,
  5,
  7,
  8,
  9,
  11,
  12,
  15,
  16,
  20,
  24,
  32,
  48,
  64,
  4096,
  65536,
  2 ** 20,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
];
const WORDS = [
  0n,
  1n,
  8n,
  4095n,
  4096n,
  8192n,
  0x10_0000n,
  1n << 28n,
  1n << 40n,
  1n << 63n,
  (1n << 64n) - 4096n,
  (1n << 64n) - 1n,
];
const DEVICE_REQUESTS = [...X.VFIO_DEVICE_IOCTLS.keys()];
const GROUP_REQUESTS = [...C.VFIO_GROUP_IOCTLS.keys()];
const CONTAINER_REQUESTS = [...C.VFIO_CONTAINER_IOCTLS.keys()];

/** One step: what is done, to which of the open files, and the numbers of its structure. */
const step = fc.record({
  what: fc.nat(11),
  target: fc.nat(7),
  request: fc.nat(11),
  plausible: fc.boolean(),
  numbers: fc.array(fc.nat(NUMBERS.length - 1), { minLength: 8, maxLength: 8 }),
  words: fc.array(fc.nat(WORDS.length - 1), { minLength: 4, maxLength: 4 }),
});
type Step = Parameters<Parameters<typeof step.map>[0]>[0];

function run(steps: readonly Step[]): void {
  const host = machine({
    devices: [{ rid: RIDS[0]! }, { rid: RIDS[1]!, options: { ats: true, pasidBits: 20, dmaLogging: true } }],
    groups: [[RIDS[0]!, RIDS[1]!]],
  });
  host.root.plug(RIDS[2]!, new RichFunction({ name: "rich" }), host.iommus[0]!);
  host.kernel.pci.registerDriver({ name: "kernel", managesDma: false, probe: () => 0, remove: () => true });
  for (const rid of RIDS) host.kernel.pci.bind(name(rid), "vfio-pci");
  const user = host.user();
  const { process } = user;
  const memory = process.memory.mapBuffer(new ArrayBuffer(16 * 4096), 0, 16 * 4096);
  const area = process.memory.allocate(2 * 4096);
  const devices: number[] = [];
  const groups: number[] = [];
  const containers: number[] = [];
  const iommufds = [user.iommufd()];
  const ioas = user.ioas(iommufds[0]!);
  const pick = (from: readonly number[], index: number) => from[index % Math.max(1, from.length)] ?? 0;
  const sound = (result: number) => {
    if (!Number.isInteger(result) || result < -4095) throw new Error(`not a result: ${result}`);
    return result;
  };
  const opened = (into: number[], fd: number) => {
    if (sound(fd) >= 0 && into.length < 8) into.push(fd);
    else if (fd >= 0) process.close(fd);
  };

  for (const { what, target, request, plausible, numbers, words } of steps) {
    const number = (index: number) => NUMBERS[numbers[index]!]!;
    const wide = (index: number) => WORDS[words[index]!]!;
    const rid = RIDS[target % RIDS.length]!;
    const structure = () => {
      const bytes = process.memory.bytes(area, 128).fill(0);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      for (let i = 0; i < 6; i++) view.setUint32(4 * i, number(i), true);
      if (plausible) {
        view.setUint32(0, 64, true);
        for (let i = 0; i < 4; i++) view.setBigUint64(8 + 8 * i, i === 0 ? memory : wide(i), true);
      }
      // A descriptor or an object where one may stand.
      view.setInt32(8 + 4 * (number(6) % 4), pick([...iommufds, ...containers, ioas, -1, -2], number(7)), true);
      return area;
    };
    switch (what) {
      case 0:
        opened(devices, process.open(host.vfio.nodeOf(name(rid)) ?? "/none", 2));
        break;
      case 1:
        opened(groups, process.open(host.vfio.groupNodeOf(name(rid)) ?? "/none", 2));
        break;
      case 2:
        opened(containers, process.open("/dev/vfio/vfio", 2));
        break;
      case 3: {
        const from = [devices, groups, containers, iommufds][request % 4]!;
        if (from === iommufds && from.length < 2) break;
        const fd = from.splice(target % Math.max(1, from.length), 1)[0];
        if (fd !== undefined) sound(process.close(fd));
        break;
      }
      case 4:
        sound(user.bind(pick(devices, target), pick(iommufds, request)));
        break;
      case 5:
        sound(user.setContainer(pick(groups, target), pick([...containers, ...iommufds, -1], request)));
        sound(process.ioctl(pick(containers, target), C.VFIO_SET_IOMMU, BigInt(1 + (request % 4))));
        break;
      case 6:
        opened(devices, user.deviceFd(pick(groups, target), name(rid)));
        break;
      case 7:
        sound(process.ioctl(pick(groups, target), pick(GROUP_REQUESTS, request), structure()));
        break;
      case 8:
        sound(process.ioctl(pick(containers, target), pick(CONTAINER_REQUESTS, request), structure()));
        break;
      case 9: {
        const all = pick(DEVICE_REQUESTS, request);
        sound(process.ioctl(pick(devices, target), all, plausible ? structure() : wide(0)));
        sound(process.ioctl(pick(devices, target), X.VFIO_DEVICE_SET_IRQS, structure()));
        break;
      }
      case 10: {
        const position = (BigInt(request % 9) << 40n) + BigInt(number(0) % 4200);
        const length = 1 + (number(1) % 64);
        process.memory.bytes(area, 64).fill(number(2));
        const [fd, write] = [pick(devices, target), plausible];
        sound(write ? process.write(fd, area, length, position) : process.read(fd, area, length, position));
        break;
      }
      default:
        if (request % 3 === 0) sound(host.kernel.pci.unbind(name(rid)));
        else sound(host.kernel.pci.bind(name(rid), ["vfio-pci", "kernel", "pci-stub"][request % 3]!));
    }
    host.run(1_000);
  }
  process.exit();
  expect(host.kernel.liveKinds).toEqual([]);
  expect(host.kernel.iommu.ownedGroups).toBe(0);
  expect(host.kernel.frames.pins.total).toBe(0);
}

describe("any sequence of requests", () => {
  it("is answered, and leaves nothing behind", () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 80, size: "max" }), run), {
      numRuns: Number(process.env.VFIO_RUNS ?? 60),
    });
  });
});
