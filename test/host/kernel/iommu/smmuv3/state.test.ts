// The SMMUv3 driver's part of a saved kernel: a machine that was disturbed and restored goes on like its twin that was not.

import { describe, expect, it } from "vitest";
import * as R from "../../../../../host/devices/edu/registers.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import { eduDma, eduOutcome } from "../../machine.ts";
import { restoreMachine, saveMachine } from "../../saved-machine.ts";
import { A, ASID, B, BYPASS, eats, GuestMachine, IOVA, must, s1dss } from "./guest-machine.ts";

const C = 0x0118;
const STREAM = 0x200;

/**
 * A is under a guest's stage 1 with ATS and holds a translation; B has one that faulted, with an event read and one waiting; C has spaces of
 * the host's at PASIDs; a platform device is stalled twice, and user space has read of the first.
 */
function story() {
  const ats = { ats: true, pri: true, pasidBits: 4 };
  const machine = new GuestMachine({
    ramPages: 1024,
    smmus: [{ features: { SIDSIZE: 10 } }],
    devices: [{ rid: A, options: ats }, { rid: B }, { rid: C, options: { pasidBits: 4 } }],
    platform: [{ name: "edu0", deviceId: STREAM, canStall: true }],
    deviations: ["smmuv3-relay-page-requests"],
  });
  const { host, user, iommufd, ioas, a, ram } = machine;
  host.record();
  must(host.kernel.platform.bind("edu0", "vfio-platform"));
  const [b, c] = [machine.take(B), machine.take(C)];
  const vfio = must(user.open(host.vfio.nodeOf("edu0")!));
  const platform = { rid: STREAM, vfio, device: must(user.bind(vfio, iommufd)) };
  machine.vdevice(0x10n);
  const early = machine.vdevice(0x77n, b);
  machine.vdevice(0x20n, platform);
  const events = machine.listen();
  const [fault, faults] = user.faultQueue(iommufd);
  const [first, second] = [machine.stage1(), machine.stage1({ stalls: true, asid: ASID + 1 })];
  first.stage.map(IOVA, ram.page());
  const nested = [
    machine.install(first.entry, eats(1), { fault }),
    machine.install(first.contexts.streamEntry(2), s1dss(0), { device: b }),
    machine.install(second.entry, 0n, { device: platform, fault }),
  ] as const;
  // B goes on under the id that it was attached by until it is attached again.
  expect(user.destroy(iommufd, early)).toBe(0);
  machine.vdevice(0x11n, b);
  const flags = I.IOMMU_HWPT_ALLOC_PASID;
  const spaces = [0, 1].map(() => must(user.hwpt(iommufd, c.device, ioas, { flags })));
  must(user.attach(c.vfio, spaces[0]!));
  must(machine.attachPasid(5, spaces[1]!, c));

  const bars = [a, b, c, platform].map((each) => user.bar0(each.vfio));
  bars[0]!.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS | R.MODE_PRI, 0);
  const transfer = (index: number, address: bigint, toRam = false): number => {
    eduDma(bars[index]!, address, 64, toRam);
    host.run(50_000);
    return eduOutcome(bars[index]!);
  };
  expect(transfer(0, IOVA)).toBe(R.OUTCOME_DONE);
  for (let i = 0; i < 2; i++) expect(transfer(1, IOVA)).toBe(R.OUTCOME_REFUSED);
  transfer(3, IOVA);
  expect(user.readAll(faults).length).toBe(40);
  return {
    machine,
    host,
    user,
    iommufd,
    ram,
    a,
    b,
    c,
    platform,
    first,
    second,
    nested,
    spaces,
    events,
    fault,
    faults,
    bars,
    transfer,
  };
}

type Story = ReturnType<typeof story>;

function respond({ user, faults, host }: Story, cookie: number, code: number): number {
  user.process.memory.bytes(user.scratch, 8).set(I.iommuHwptPageResponse.encode({ cookie, code }));
  const written = user.process.write(faults, user.scratch, 8, -1n);
  host.run(50_000);
  return written;
}

/** What is seen of the machine from here on. */
function go(told: Story): unknown[] {
  const { machine, host, user, iommufd, ram, a, b, platform, first, second, nested, events, faults, bars, transfer } =
    told;
  const seen: unknown[] = [];
  const look = (...what: unknown[]) => seen.push(...what);
  const page = ram.page();
  look(user.readAll(events), transfer(0, IOVA), machine.command("TLBI_NH_ASID", { ASID }), transfer(0, IOVA, true));
  look(machine.command("ATC_INV", { SID: 0x10n, Size: 52 }), bars[0]!.mmioRead(R.INVALIDATIONS_TAKEN, 4));
  // The page request that only a restored switch lets through, and its answer.
  look(transfer(0, IOVA + 0x5000n), user.readAll(faults));
  first.stage.map(IOVA + 0x5000n, page);
  look(respond(told, 2, 0), eduOutcome(bars[0]!));
  second.stage.map(IOVA, page);
  look(respond(told, 1, 0), eduOutcome(bars[3]!), transfer(3, IOVA + 0x1000n), user.readAll(faults));
  look(transfer(1, IOVA), user.readAll(events));
  for (const pasid of [5, 6]) {
    bars[2]!.mmioWrite(R.PASID, 4, (R.PASID_VALID | pasid) >>> 0, 0);
    look(transfer(2, 0x8000_0000n));
  }
  look(user.attach(b.vfio, nested[0]), transfer(1, IOVA), user.detach(platform.vfio), eduOutcome(bars[3]!));
  look(user.attach(a.vfio, must(machine.nested(BYPASS))), machine.globalErrors());
  look(user.unmap(iommufd, machine.ioas, 0n, (1n << 64n) - 1n));
  user.process.exit();
  host.run(100_000);
  look(host.kernel.liveKinds, host.clock.now);
  return seen;
}

/** Moves everything on; ids stay what they were. */
function goOn(told: Story): void {
  const { machine, user, iommufd, host, a, b, c, platform, first, second, nested, spaces, fault, transfer } = told;
  transfer(1, IOVA + 0x3000n);
  respond(told, 1, 1);
  // Nested HWPTs made again with other entries, one of them without ATS; everything attached in another order.
  for (const each of [a, b, platform]) user.detach(each.vfio);
  for (const hwpt of [nested[0], nested[1]]) expect(user.destroy(iommufd, hwpt)).toBe(0);
  expect(machine.nested(first.entry, 0n, { fault })).toBe(nested[0]);
  expect(machine.nested(second.entry, 0n, { device: b })).toBe(nested[1]);
  must(user.attach(platform.vfio, nested[2]));
  must(user.attach(b.vfio, nested[1]));
  must(user.attach(a.vfio, nested[0]));
  for (const space of [spaces[0]!, spaces[1]!]) must(machine.attachPasid(5, space, c));
  machine.command("TLBI_NH_ALL");
  transfer(0, IOVA + 0x7000n);
  host.run(100_000);
}

describe("a saved machine", () => {
  it("that went on and was restored does what its twin does", () => {
    const [twin, told] = [story(), story()];
    const text = saveMachine(told.host);
    expect(saveMachine(twin.host) === text).toBe(true);
    goOn(told);
    expect(saveMachine(told.host) === text).toBe(false);
    restoreMachine(told.host, text);
    expect(saveMachine(told.host) === text).toBe(true);
    expect(go(told)).toEqual(go(twin));
  });

  it("that is ahead gives a document that one which is not takes over, and both go on alike", () => {
    const [ahead, told] = [story(), story()];
    goOn(ahead);
    const text = saveMachine(ahead.host);
    restoreMachine(told.host, text);
    expect(saveMachine(told.host) === text).toBe(true);
    expect(go(told)).toEqual(go(ahead));
  });
});
