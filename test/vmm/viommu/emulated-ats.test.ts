// ATS and page requests of an edu model on the VM's own bus, through the guest's tables, without any host.

import { describe, expect, it } from "vitest";
import { decodePageRequest } from "../../../host/arch/riscv/page-requests.ts";
import { REG } from "../../../host/arch/riscv/registers.ts";
import type { MmioPort } from "../../../host/base/mmio.ts";
import type { Stateful } from "../../../host/base/state.ts";
import { decodeState, encodeState } from "../../../host/base/state-text.ts";
import { Edu } from "../../../host/devices/edu/edu.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import { restoreWhole, saveWhole, type WholeMachine } from "../../../vmm/whole-machine.ts";
import { eduDma, eduOutcome } from "../../host/kernel/machine.ts";
import { Guest, PLACE, SV39, TC } from "./guest.ts";

const ID = 3;
const IOVA = 0x4000n;
const LEAF = 0xd7n;
const ATS_CONTROL = TC.V | TC.EN_ATS;
const PRI_CONTROL = ATS_CONTROL | TC.EN_PRI;

class Scene {
  readonly guest = new Guest({ host: null });
  readonly edu = new Edu({ name: "emulated", pasidBits: 20, ats: true, pri: true, misbehaviour: true });
  readonly bar: MmioPort;

  constructor() {
    const { guest, edu } = this;
    guest.plug(ID, { emulated: true, ats: true, pri: true });
    edu.connect({
      dma: guest.viommu.emulatedDma(() => ID, edu.atsTarget),
      interrupt: { intx: () => {} },
      clock: guest.clock,
    });
    edu.configWrite(4, 2, 6);
    this.#enable(0x0f, 6, 0x8000);
    // Page requests: how many may be outstanding, then on.
    this.#enable(0x13, 0x0c, 32);
    this.#enable(0x13, 4, 1);
    this.#enable(0x1b, 6, 1);
    this.bar = edu.bars[0]!.registers;
    guest.enableDirectory();
    guest.enableQueues({ quiet: true, pageRequests: true });
    const pointer = (address: bigint) => ((address >> 12n) << 10n) | 1n;
    guest.store64(PLACE.tables, pointer(PLACE.tables + 0x1000n));
    guest.store64(PLACE.tables + 0x1000n, pointer(PLACE.tables + 0x2000n));
  }

  /** Sets bits of an extended capability's control register. */
  #enable(id: number, offset: number, bits: number): void {
    for (let at = 0x100; at >= 0x100; ) {
      const header = this.edu.configRead(at, 4);
      if ((header & 0xffff) === id) this.edu.configWrite(at + offset, 2, bits);
      at = header >>> 20;
    }
  }

  map(iova: bigint, page: bigint, bits = LEAF): void {
    this.guest.store64(PLACE.tables + 0x2000n + 8n * (iova >> 12n), ((page >> 12n) << 10n) | bits);
  }

  context(tc: bigint): void {
    this.guest.installContext(ID, { tc, ta: 2n << 12n, fsc: SV39 | (PLACE.tables >> 12n) });
  }

  run(ns = 100_000): void {
    const { clock } = this.guest;
    const end = clock.now + ns;
    while (clock.nextDeadline <= end) {
      clock.advanceTo(clock.nextDeadline);
      clock.fireDue();
    }
    clock.advanceTo(end);
  }

  /** A translated DMA to its end. */
  dma(iova: bigint, toRam: boolean, mode = R.MODE_ATS): number {
    this.bar.mmioWrite(R.TRANSLATION_MODE, 4, mode, 0);
    eduDma(this.bar, iova, 64, toRam);
    this.run();
    return eduOutcome(this.bar);
  }

  /** IOMMU, device, memory and clock as text, and back; the guest's driver is the test. */
  save(): string {
    return encodeState(saveWhole(this.#world()));
  }

  restore(text: string): void {
    restoreWhole(this.#world(), decodeState(text));
  }

  #world(): WholeMachine {
    const { guest, edu } = this;
    const ram = new Uint8Array(guest.buffer);
    const machine: Stateful = {
      saveState: () => ({ ram: ram.slice() }),
      restoreState: (state) => state.memory("ram", ram),
      stateParts: () => [
        ["viommu", guest.viommu],
        ["edu", edu],
      ],
    };
    return { clock: guest.clock, trace: guest.trace, host: null, machine };
  }

  takeRequest() {
    const at = PLACE.pages + BigInt(16 * this.guest.read32(REG.pqh));
    this.guest.write32(REG.pqh, this.guest.read32(REG.pqt));
    return decodePageRequest([this.guest.load64(at), this.guest.load64(at + 8n)]);
  }
}

describe("ATS of an emulated device", () => {
  it("a translation gives the page and its rights (§3.6)", () => {
    const scene = new Scene();
    scene.map(IOVA, PLACE.free);
    scene.context(ATS_CONTROL);
    scene.guest.store64(PLACE.free, 0x77n);
    expect(scene.dma(IOVA, false)).toBe(R.OUTCOME_DONE);
    scene.guest.store64(PLACE.free, 0n);
    expect(scene.dma(IOVA, true)).toBe(R.OUTCOME_DONE);
    expect(scene.guest.load32(PLACE.free)).toBe(0x77);
    expect(scene.guest.takeFaults()).toEqual([]);
  });

  it.each([
    ["a page that is not mapped", 0n],
    ["a page that is not a user's", 0xc7n],
    ["a page not to be written", 0xd3n],
  ] as const)("%s: success without the right, and no record (§3.6)", (_name, bits) => {
    const scene = new Scene();
    if (bits !== 0n) scene.map(IOVA, PLACE.free, bits);
    scene.context(ATS_CONTROL);
    expect(scene.dma(IOVA, true)).toBe(R.OUTCOME_NO_PERMISSION);
    expect(scene.guest.takeFaults()).toEqual([]);
  });

  it.each([
    ["ATS off", TC.V, 260],
    ["a context that is not valid", 0n, 258],
  ] as const)("%s: Unsupported Request, with a record of TTYP 8 (§3.6)", (_name, tc, cause) => {
    const scene = new Scene();
    scene.context(tc);
    expect(scene.dma(IOVA, false)).toBe(R.OUTCOME_TRANSLATION_REFUSED);
    expect(scene.guest.takeFaults()).toEqual([expect.objectContaining({ cause, ttyp: 8, deviceId: ID, iotval: IOVA })]);
  });

  it("a broken table is Completer Abort, with a record", () => {
    const scene = new Scene();
    scene.guest.store64(PLACE.tables, (0x100_0000n << 10n) | 1n);
    scene.context(ATS_CONTROL);
    expect(scene.dma(IOVA, false)).toBe(R.OUTCOME_TRANSLATION_REFUSED);
    expect(scene.guest.takeFaults()).toEqual([expect.objectContaining({ cause: 5, ttyp: 8 })]);
  });

  it("ATS.INVAL makes the device forget; the fence waits until it says so (§4.1.4)", () => {
    const scene = new Scene();
    const { guest, bar } = scene;
    scene.map(IOVA, PLACE.free);
    scene.context(ATS_CONTROL);
    guest.store64(PLACE.free, 0x55n);
    scene.dma(IOVA, false);
    scene.map(IOVA, PLACE.free + 0x1000n);
    bar.mmioWrite(R.INVALIDATION_DELAY, 4, 5_000, 0);
    const before = guest.cqh;
    guest.run(
      ["ATS.INVAL", { RID: ID, ADDR: IOVA >> 12n }],
      ["IOFENCE.C", { AV: 1, ADDR: (PLACE.free + 0x8000n) >> 2n, DATA: 1 }],
    );
    expect(guest.cqh).toBe(before + 1);
    expect(guest.load32(PLACE.free + 0x8000n)).toBe(0);
    scene.run(10_000);
    expect(guest.cqh).toBe(before + 2);
    expect(guest.load32(PLACE.free + 0x8000n)).toBe(1);
    expect(scene.dma(IOVA, true)).toBe(R.OUTCOME_DONE);
    expect(guest.load32(PLACE.free + 0x1000n)).toBe(0x55);
  });

  it("a device that never completes: cmd_to at the fence, which goes on when the bit is cleared", () => {
    const scene = new Scene();
    const { guest, bar } = scene;
    scene.map(IOVA, PLACE.free);
    scene.context(ATS_CONTROL);
    scene.dma(IOVA, false);
    bar.mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_NEVER_COMPLETE, 0);
    const before = guest.cqh;
    guest.run(["ATS.INVAL", { RID: ID, ADDR: IOVA >> 12n }], ["IOFENCE.C", {}]);
    expect(guest.read32(REG.cqcsr) & 0xf00).toBe(0);
    scene.run(2_000_000);
    expect(guest.read32(REG.cqcsr) & 0xf00).toBe(1 << 9);
    expect(guest.cqh).toBe(before + 1);
    guest.write32(REG.cqcsr, (1 << 9) | 1);
    expect(guest.cqh).toBe(before + 2);
  });

  it("no more than 32 are under way, as many as ITags (PCIe 6.0 §10.3.1): the queue waits for the others, and goes on with them", () => {
    const scene = new Scene();
    const { guest, bar } = scene;
    scene.context(ATS_CONTROL);
    bar.mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_NEVER_COMPLETE, 0);
    const before = guest.cqh;
    for (let i = 0; i < 40; i++) guest.run(["ATS.INVAL", { RID: ID, ADDR: IOVA >> 12n }]);
    expect([guest.cqh, guest.clock.pending]).toEqual([before + 32, 32]);
    scene.run(1_500_000);
    expect([guest.cqh, guest.clock.pending]).toEqual([before + 40, 8]);
    bar.mmioWrite(R.MISBEHAVIOUR, 4, 0, 0);
    scene.run(1_500_000);
    expect(guest.clock.pending).toBe(0);
    guest.run(["IOFENCE.C", {}]);
    expect(guest.read32(REG.cqcsr) & 0xf00).toBe(1 << 9);
  });

  it("unplugging the device a fence waits for ends the wait", () => {
    const scene = new Scene();
    const { guest, bar } = scene;
    scene.map(IOVA, PLACE.free);
    scene.context(ATS_CONTROL);
    scene.dma(IOVA, false);
    bar.mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_NEVER_COMPLETE, 0);
    guest.run(["ATS.INVAL", { RID: ID, ADDR: IOVA >> 12n }], ["IOFENCE.C", {}]);
    guest.viommu.unplug(ID);
    expect(guest.read32(REG.cqcsr) & 0xf00).toBe(1 << 9);
  });
});

describe("page requests of an emulated device", () => {
  it("reach the guest's queue, and its answer the device", () => {
    const scene = new Scene();
    scene.context(PRI_CONTROL);
    scene.bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS | R.MODE_PRI, 0);
    eduDma(scene.bar, IOVA, 64, false);
    scene.run(20_000);
    const request = scene.takeRequest();
    expect(request).toMatchObject({ deviceId: ID, processId: -1, last: true, read: true, address: IOVA });
    scene.map(IOVA, PLACE.free);
    scene.guest.run(["ATS.PRGR", { RID: ID, PRGI: request.group, code: 0 }]);
    scene.run();
    expect(eduOutcome(scene.bar)).toBe(R.OUTCOME_DONE);
    expect(scene.guest.viommu.pageRequests.unanswered).toBe(0);
  });

  it("without EN_PRI are answered Invalid, with a record of cause 260 and TTYP 9 (§3.7)", () => {
    const scene = new Scene();
    scene.context(ATS_CONTROL);
    expect(scene.dma(IOVA, false, R.MODE_ATS | R.MODE_PRI)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);
    expect(scene.bar.mmioRead(R.LAST_RESPONSE_CODE, 4)).toBe(1);
    expect(scene.guest.takeFaults()).toEqual([expect.objectContaining({ cause: 260, ttyp: 9, iotval: 4n })]);
  });

  it("a Stop Marker is queued and wants no answer; where page requests are off it is dropped silently (§3.7)", () => {
    const scene = new Scene();
    scene.context(PRI_CONTROL | TC.PDTV);
    scene.guest.installContext(ID, { tc: PRI_CONTROL | TC.PDTV, fsc: 0n });
    scene.bar.mmioWrite(R.STOP_MARKER, 4, 5, 0);
    expect(scene.takeRequest()).toMatchObject({ processId: 5, last: true, read: false, write: false });
    expect(scene.guest.viommu.pageRequests.unanswered).toBe(0);
    scene.context(ATS_CONTROL);
    scene.bar.mmioWrite(R.STOP_MARKER, 4, 5, 0);
    expect(scene.guest.takeFaults()).toEqual([]);
  });
});

describe("what an emulated device waits for outlives saving", () => {
  const fenced = (): { scene: Scene; before: number } => {
    const scene = new Scene();
    const { guest, bar } = scene;
    scene.map(IOVA, PLACE.free);
    scene.context(ATS_CONTROL);
    scene.dma(IOVA, false);
    bar.mmioWrite(R.INVALIDATION_DELAY, 4, 5_000, 0);
    const before = guest.cqh;
    guest.run(["ATS.INVAL", { RID: ID, ADDR: IOVA >> 12n }], ["IOFENCE.C", {}]);
    expect(guest.cqh).toBe(before + 1);
    return { scene, before };
  };

  it("an invalidation completes in its time, and the fence goes on", () => {
    const { scene, before } = fenced();
    const text = scene.save();
    // Meanwhile: the guest gives the queue up, which is what is undone.
    scene.guest.viommu.reset();
    scene.restore(text);
    scene.run(4_000);
    expect(scene.guest.cqh).toBe(before + 1);
    scene.run(2_000);
    expect(scene.guest.cqh).toBe(before + 2);
    expect(scene.guest.read32(REG.cqcsr) & 0xf00).toBe(0);
  });

  it("an invalidation that never completes is given up when its time is over", () => {
    const { scene, before } = fenced();
    scene.bar.mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_NEVER_COMPLETE, 0);
    scene.run(10_000);
    scene.guest.run(["ATS.INVAL", { RID: ID, ADDR: IOVA >> 12n }], ["IOFENCE.C", {}]);
    const text = scene.save();
    scene.run(2_000_000);
    expect(scene.guest.cqh).toBe(before + 3);
    scene.restore(text);
    expect(scene.guest.read32(REG.cqcsr) & 0xf00).toBe(0);
    scene.run(900_000);
    expect(scene.guest.read32(REG.cqcsr) & 0xf00).toBe(0);
    scene.run(200_000);
    expect(scene.guest.read32(REG.cqcsr) & 0xf00).toBe(1 << 9);
  });

  it("a page request is answered after it as it would have been before", () => {
    const scene = new Scene();
    scene.context(PRI_CONTROL);
    scene.bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS | R.MODE_PRI, 0);
    eduDma(scene.bar, IOVA, 64, false);
    scene.run(20_000);
    const request = scene.takeRequest();
    const text = scene.save();
    scene.guest.viommu.deviceReset(ID);
    scene.run();
    expect(eduOutcome(scene.bar)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);
    scene.restore(text);
    expect(scene.guest.viommu.pageRequests.unanswered).toBe(1);
    scene.map(IOVA, PLACE.free);
    scene.guest.run(["ATS.PRGR", { RID: ID, PRGI: request.group, code: 0 }]);
    scene.run();
    expect(eduOutcome(scene.bar)).toBe(R.OUTCOME_DONE);
    expect(scene.guest.viommu.pageRequests.unanswered).toBe(0);
  });
});
