// State of a kernel over SMMUv3s: saved through text, disturbed, restored in place; from there on it does what a twin does that was never
// disturbed.

import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { encodeCommand } from "../../../../../host/arch/smmuv3/commands.ts";
import { bytesOf, restoreTree, type Stateful, saveTree } from "../../../../../host/base/state.ts";
import { decodeState, encodeState } from "../../../../../host/base/state-text.ts";
import * as R from "../../../../../host/devices/edu/registers.ts";
import type { Smmuv3Options } from "../../../../../host/hw/iommu/smmuv3/options.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import * as S from "../../../../../host/uapi/smmuv3-nesting.ts";
import * as X from "../../../../../host/uapi/vfio.ts";
import { machineOf } from "../../../saved-machine.ts";
import { GuestRam, RAM_GPA } from "../../guest.ts";
import { GuestContexts, GuestStage1 } from "../../guest-smmuv3.ts";
import { eduDma, eduOutcome, machine, name } from "../../machine.ts";

const [FIRST, SPACES, NESTED, DIRTY] = [0x0108, 0x0110, 0x0118, 0x0120];
const IOVA = 0x10_0000n;

/**
 * A device with ATS on a first stage, one with spaces at PASIDs, one under a guest's stage 1 whose fault has not been taken from the event queue
 * yet, one whose writes are logged.
 */
function story(options: Smmuv3Options) {
  const host = machine({
    smmus: [options],
    ramPages: 4096,
    devices: [
      { rid: FIRST, options: { ats: true } },
      { rid: SPACES, options: { pasidBits: 20, ats: true } },
      { rid: NESTED },
      { rid: DIRTY },
    ],
  });
  host.record();
  host.assign();
  const user = host.user();
  const iommufd = user.iommufd();
  const take = (rid: number) => {
    const vfio = user.open(host.vfio.nodeOf(name(rid))!);
    const device = user.bind(vfio, iommufd);
    user.enableDevice(vfio);
    const bar = user.bar0(vfio);
    const dma = (address: bigint, pasid = 0): number => {
      bar.mmioWrite(R.PASID, 4, pasid === 0 ? 0 : (R.PASID_VALID | pasid) >>> 0, 0);
      eduDma(bar, address, 64, true);
      host.run(10_000);
      return eduOutcome(bar);
    };
    return { rid, vfio, device, bar, dma };
  };
  const [first, spaces, nested, dirty] = [take(FIRST), take(SPACES), take(NESTED), take(DIRTY)] as const;
  for (const { bar } of [first, spaces]) bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS, 0);
  const memory = user.process.memory.mapBuffer(new ArrayBuffer(64 * 4096), 0, 64 * 4096);
  const space = (device: number, flags: number, offset: bigint) => {
    const ioas = user.ioas(iommufd);
    expect(user.map(iommufd, ioas, memory + offset, 8 * 4096, IOVA)).toBe(0);
    const hwpt = user.hwpt(iommufd, device, ioas, { flags });
    expect(hwpt).toBeGreaterThan(0);
    return { ioas, hwpt };
  };
  const plain = space(first.device, 0, 0n);
  const tagged = [space(spaces.device, I.IOMMU_HWPT_ALLOC_PASID, 0x8000n), space(spaces.device, 8, 0x1_0000n)] as const;
  const logged = space(dirty.device, I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING, 0x1_8000n);
  const at = (pasid: number, pt_id: number): number =>
    user.call(spaces.vfio, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, {
      ...{ flags: X.VFIO_DEVICE_ATTACH_PASID, pasid, pt_id },
    }).result;
  const detachAt = (pasid: number): number =>
    user.call(spaces.vfio, X.VFIO_DEVICE_DETACH_IOMMUFD_PT, X.vfioDeviceDetachIommufdPt, {
      ...{ flags: X.VFIO_DEVICE_DETACH_PASID, pasid },
    }).result;
  for (const { vfio, hwpt } of [
    { vfio: first.vfio, hwpt: plain.hwpt },
    { vfio: dirty.vfio, hwpt: logged.hwpt },
  ]) {
    expect(user.attach(vfio, hwpt)).toBe(hwpt);
  }
  expect([at(5, tagged[0].hwpt), at(0x9_0000, tagged[1].hwpt)]).toEqual([0, 0]);
  user.must(iommufd, I.IOMMU_HWPT_SET_DIRTY_TRACKING, I.iommuHwptSetDirtyTracking, { flags: 1, hwpt_id: logged.hwpt });
  const ram = new GuestRam();
  const ramVa = user.process.memory.mapBuffer(ram.buffer, 0, ram.buffer.byteLength);
  const guest = user.ioas(iommufd);
  user.map(iommufd, guest, ramVa, ram.buffer.byteLength, RAM_GPA);
  const parent = user.hwpt(iommufd, nested.device, guest, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT });
  const viommu = user.viommu(iommufd, nested.device, parent, S.IOMMU_VIOMMU_TYPE_ARM_SMMUV3);
  user.vdevice(iommufd, viommu, nested.device, 0x10n);
  const [, veventq] = user.veventq(iommufd, viommu, 64, S.IOMMU_VEVENTQ_TYPE_ARM_SMMUV3);
  const stage = new GuestStage1(ram);
  const contexts = new GuestContexts(ram);
  contexts.set(0, stage);
  stage.map(IOVA, ram.page());
  const data = S.iommuHwptArmSmmuv3.encode({ ste0: contexts.streamEntry(), ste1: 0n });
  const stage1 = user.hwpt(iommufd, nested.device, viommu, { type: S.IOMMU_HWPT_DATA_ARM_SMMUV3, data });
  expect(user.attach(nested.vfio, stage1)).toBe(stage1);
  for (const outcome of [
    first.dma(IOVA),
    spaces.dma(IOVA, 5),
    spaces.dma(IOVA, 0x9_0000),
    nested.dma(IOVA),
    dirty.dma(IOVA),
  ]) {
    expect(outcome).toBe(R.OUTCOME_DONE);
  }
  // The fault's record is in the hardware's queue, its interrupt on the clock's.
  const { dma } = host.root.slot(NESTED)!;
  dma.read(Number((IOVA + 0x5000n) >> 12n), 0, new Uint8Array(4), 0, 4, -1);
  const parts: Record<string, Stateful> = {
    trace: host.trace,
    memory: {
      saveState: () => ({ banks: host.memory.banks.map(({ bytes }) => bytesOf(bytes)) }),
      restoreState: (state) => {
        for (const [i, bytes] of state.list("banks").entries()) host.memory.banks[i]!.bytes.set(bytes as Uint8Array);
      },
    },
    "root complex": host.root,
    "interrupt files": host.interruptFiles,
    smmu: host.iommus[0] as unknown as Stateful,
    kernel: host.kernel,
  };
  const tree = machineOf(host.clock, parts);
  return {
    ...{ host, user, iommufd, first, spaces, nested, dirty, plain, tagged, logged, at, detachAt, ram, guest, parent },
    ...{ viommu, veventq, stage, stage1, memory },
    save: () => encodeState(saveTree(tree)),
    restore: (text: string) => restoreTree(tree, decodeState(text)),
  };
}

type Story = ReturnType<typeof story>;

/** What changes tables, tags, descriptors and queues, and leaves the objects what they are. */
function disturb(told: Story): void {
  const { host, user, iommufd, first, spaces, nested, plain, tagged, at, detachAt, memory } = told;
  host.run(50_000);
  expect(user.readAll(told.veventq).length).toBe(40);
  expect([detachAt(5), detachAt(0x9_0000)]).toEqual([0, 0]);
  // What comes in between has the frames that were the context table's, so that the next one is somewhere else.
  const passing = user.hwpt(iommufd, first.device, plain.ioas);
  expect([at(0x9_0000, tagged[1].hwpt), at(5, tagged[0].hwpt)]).toEqual([0, 0]);
  user.unmap(iommufd, plain.ioas, IOVA, 8n * 4096n);
  user.map(iommufd, plain.ioas, memory + 0x2_0000n, 4 * 4096, 0x5000_0000n);
  user.detach(first.vfio);
  expect(user.attach(first.vfio, plain.hwpt)).toBe(plain.hwpt);
  user.attach(nested.vfio, told.parent);
  user.attach(nested.vfio, told.stage1);
  expect(spaces.dma(IOVA, 5)).toBe(R.OUTCOME_DONE);
  user.destroy(iommufd, passing);
}

function go(told: Story): unknown[] {
  const { host, user, iommufd, first, spaces, nested, dirty, plain, tagged, logged, at, detachAt } = told;
  const seen: unknown[] = [];
  const look = (...what: unknown[]) => seen.push(...what);
  const bitmap = (): number => {
    const data = user.scratch + 8192n;
    user.process.memory.bytes(data, 1)[0] = 0;
    const values = { hwpt_id: logged.hwpt, iova: IOVA, length: 8n * 4096n, page_size: 4096n, data };
    user.must(iommufd, I.IOMMU_HWPT_GET_DIRTY_BITMAP, I.iommuHwptGetDirtyBitmap, values);
    return user.process.memory.bytes(data, 1)[0]!;
  };
  host.run(50_000);
  look(user.readAll(told.veventq));
  look(bitmap(), dirty.dma(IOVA + 0x3000n), bitmap());
  look(first.dma(IOVA), spaces.dma(IOVA, 5), spaces.dma(IOVA, 6), spaces.dma(IOVA, 0x9_0000), nested.dma(IOVA));
  look(user.unmap(iommufd, plain.ioas, IOVA, 8n * 4096n), first.dma(IOVA));
  look(user.unmap(iommufd, tagged[0].ioas, IOVA, 8n * 4096n), spaces.dma(IOVA, 5), spaces.dma(IOVA, 0x9_0000));
  told.stage.unmap(IOVA);
  const command = encodeCommand("TLBI_NH_VA", { ASID: 7, Leaf: 1, Address: IOVA >> 12n });
  look(user.invalidate(iommufd, told.viommu, [command], S.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3), nested.dma(IOVA));
  look(user.readAll(told.veventq));
  look(at(7, tagged[1].hwpt), spaces.dma(IOVA, 7), detachAt(7), detachAt(5), detachAt(0x9_0000), spaces.dma(IOVA, 7));
  look(user.hwpt(iommufd, first.device, plain.ioas), user.detach(first.vfio), user.attach(first.vfio, plain.hwpt));
  look(createHash("sha256").update(told.ram.bytes).digest("hex"), host.kernel.frames.usedPages);
  user.process.exit();
  look(host.kernel.liveKinds, host.kernel.frames.usedPages, host.clock.now);
  return seen;
}

describe.each<[string, Smmuv3Options]>([
  ["as they come", {}],
  ["with wires, at EL1, without range invalidation", { features: { MSI: false, Hyp: false, RIL: false } }],
  ["with small queues", { features: { CMDQS: 7, EVENTQS: 2 } }],
])("a saved kernel over SMMUv3s (%s)", (_name, options) => {
  it("that was disturbed and restored goes on like one that was not", () => {
    const [twin, told] = [story(options), story(options)];
    const text = told.save();
    expect(twin.save()).toBe(text);
    const recorded = told.host.events.length;
    disturb(told);
    expect(told.save()).not.toBe(text);
    told.restore(text);
    expect(told.save()).toBe(text);
    const disturbed = told.host.events.length;
    const [expected, seen] = [go(twin), go(told)];
    expect(seen).toEqual(expected);
    expect(told.host.events.slice(disturbed)).toEqual(twin.host.events.slice(recorded));
    expect(expected.at(-3)).toEqual([]);
  });

  it("is restored over and over, and nothing is seen of it", () => {
    const [twin, told] = [story(options), story(options)];
    for (let round = 0; round < 3; round++) told.restore(told.save());
    expect(go(told)).toEqual(go(twin));
    expect(told.host.events).toEqual(twin.host.events);
  });
});
