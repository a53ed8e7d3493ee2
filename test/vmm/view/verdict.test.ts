// Whose fault it is: on every kind, at every table that can refuse. What is expected follows from who owns the table (a first stage and what a device's
// entry in the directory says are the guest's, a second stage and a call that failed are the host's), never from what was seen.

import { describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../host/base/trace.ts";
import type { ScenarioContext } from "../../../vmm/scenario/context.ts";
import { scenario } from "../../../vmm/scenario/scenario.ts";
import { runOneScenario } from "../../../vmm/ui/run/live.ts";
import { consequencesOf, walkAt } from "../../../vmm/view/moment.ts";
import { ObjectHistory } from "../../../vmm/view/objects.ts";
import { EVENT_TYPES, indexTrace, rowOf } from "../../../vmm/view/trace-index.ts";
import { verdictOf } from "../../../vmm/view/verdict.ts";
import { walkGrid } from "../../../vmm/view/walk-grid.ts";
import type { Walk, WalkStep } from "../../../vmm/view/walks.ts";
import { VIOMMU_KINDS, type ViommuKindName } from "../../../vmm/viommu/kinds.ts";

const KINDS = Object.keys(VIOMMU_KINDS) as ViommuKindName[];
const HOST = "0000:00:01.0";
const GUEST = "00:02.0";
const IOVA = 0x4000n;

type Vm = ReturnType<ScenarioContext["vm"]>;
interface Play {
  readonly t: ScenarioContext;
  readonly vm: Vm;
  readonly device: ReturnType<Vm["device"]>;
  readonly stage1: ReturnType<Vm["stage1"]>;
  readonly page: bigint;
}

/** The verdict on the last DMA of what is played. */
function verdictOn(kind: ViommuKindName, play: (parts: Play) => void) {
  const told = scenario("a verdict", (t) => {
    const vm = t.vm({ kind, assign: [`${HOST}@${GUEST}`] }) as unknown as Vm;
    const stage1 = vm.stage1(undefined, { msiWindow: false });
    play({ t, vm, device: vm.device(GUEST), stage1, page: vm.ram.allocate() });
  });
  const run = runOneScenario(told, 0);
  expect(run.ended).toBeNull();
  const columns = indexTrace(run.text);
  const row = columns.type.lastIndexOf(EVENT_TYPES.indexOf("dma"));
  const { walk } = walkAt(columns, row)!;
  const faultRow = walk.fault === null ? -1 : rowOf(columns, walk.fault.seq);
  const bound = [...new ObjectHistory(columns).at(row).values()].find(({ name }) => name === HOST)!;
  const consequences = faultRow < 0 ? [] : consequencesOf(columns, faultRow);
  return { verdict: verdictOf(walk, consequences, undefined, bound.refusal ?? null), grid: walkGrid(walk), walk };
}

/** The loads that a device's access would make now, asked of the host, which does not notice. */
const loadsOf = (vm: Vm, iova: bigint, write: boolean): WalkStep[] =>
  vm.host.askTranslation(HOST, iova, write)!.walk.filter((event): event is WalkStep => event.type === "walk");

function flip(vm: Vm, address: bigint, bit: number): void {
  const { memory } = vm.host;
  const [frame, offset] = [Number(address >> 12n) as Parameters<typeof memory.load64>[0], Number(address & 0xff8n)];
  expect(memory.load64(frame, offset)).toBe(0);
  const { lo, hi } = memory;
  memory.store64(
    frame,
    offset,
    (bit < 32 ? lo ^ (1 << bit) : lo) >>> 0,
    (bit < 32 ? hi : hi ^ (1 << (bit - 32))) >>> 0,
  );
}

/** Of an entry of the host's second stage: the bit that allows writing (privileged architecture §12.4.1; DDI 0487 S2AP[1]; VT-d §9.8). */
const SECOND_STAGE_WRITE: Readonly<Record<string, number>> = { riscv: 2, smmuv3: 7, vtd: 1 };
/** Of a table entry of the guest's: the bit of guest-physical address bit 34, where no guest here has memory (RISC-V: PPN at 10). */
const ADDRESS_34: Readonly<Record<string, number>> = { riscv: 32, smmuv3: 34, vtd: 34 };
/** IHI 0070 §5.2: a stream whose STE says abort records no event. */
const SILENT: ReadonlySet<string> = new Set(["smmuv3"]);

describe.each(KINDS)("on %s", (kind) => {
  it("an access that goes through is nobody's fault", () => {
    const { verdict, grid } = verdictOn(kind, ({ device, stage1, page }) => {
      stage1.map(IOVA, page, 4096n);
      device.installContext(stage1);
      device.dmaWrite(IOVA, Uint8Array.of(1));
    });
    expect(verdict).toMatchObject({ blame: "none", headline: "It went through", why: "", section: "" });
    expect(verdict.way[0]).toMatch(/^physical address 0x[0-9a-f]+, after \d+ loads$/);
    expect(grid.blame).toBeNull();
  });

  it("and says so of one that the hardware remembered", () => {
    const { verdict } = verdictOn(kind, ({ device, stage1, page }) => {
      stage1.map(IOVA, page, 4096n);
      device.installContext(stage1);
      device.dmaWrite(IOVA, Uint8Array.of(1));
      device.dmaWrite(IOVA, Uint8Array.of(2));
    });
    expect(verdict.way[0]).toMatch(/from what the hardware remembered/);
  });

  it("a device that the guest has not set up is the guest's, at the device's entry, also where nothing is recorded", () => {
    const { verdict, grid, walk } = verdictOn(kind, ({ device, page }) => device.dmaRead(page, 4));
    expect(verdict).toMatchObject({ blame: "guest", headline: "The guest's own fault" });
    expect(verdict.where).toMatch(/^at (DDT|STE|PASID)/);
    expect(verdict.why).not.toBe("");
    expect(verdict.section).toMatch(/§/);
    expect(walk.fault === null).toBe(SILENT.has(kind));
    expect(grid.rows.at(-1)!.fetch!.failing).toBe(true);
    expect(grid.blame).toMatch(/the guest's fault/);
  });

  it("a page that no first stage maps is the guest's", () => {
    const { verdict } = verdictOn(kind, ({ device, stage1, page }) => {
      stage1.map(IOVA, page, 4096n);
      device.installContext(stage1);
      device.dmaRead(0x9000n, 4);
    });
    expect(verdict).toMatchObject({ blame: "guest", where: expect.stringMatching(/^at stage 1 level/) });
  });

  it("a right that the first stage lacks is the guest's", () => {
    const { verdict } = verdictOn(kind, ({ device, stage1, page }) => {
      stage1.map(IOVA, page, 4096n, { write: false });
      device.installContext(stage1);
      device.dmaWrite(IOVA, Uint8Array.of(1));
    });
    expect(verdict).toMatchObject({ blame: "guest", where: expect.stringMatching(/^at stage 1 level/) });
  });

  it("an address that the second stage does not map is the host's, in the last row", () => {
    const { verdict, grid } = verdictOn(kind, ({ device, stage1 }) => {
      stage1.map(IOVA, 0x1000n, 4096n);
      device.installContext(stage1);
      device.dmaWrite(IOVA, Uint8Array.of(1));
    });
    expect(verdict).toMatchObject({ blame: "host", where: expect.stringMatching(/^at stage 2 level/) });
    expect(grid.rows.at(-1)).toMatchObject({ table: "final", fetch: null });
    expect(grid.blame).toMatch(/^stage 2: the host's fault/);
  });

  it("a table of the guest's that lies where the second stage maps nothing is the host's, in that table's row", () => {
    const { verdict, grid } = verdictOn(kind, ({ vm, device, stage1, page }) => {
      stage1.map(IOVA, page, 4096n);
      device.installContext(stage1);
      const pointer = loadsOf(vm, IOVA, false)
        .filter(({ table }) => table === "stage1")
        .at(-2)!;
      flip(vm, pointer.address, ADDRESS_34[kind]!);
      device.dmaRead(IOVA, 4);
    });
    expect(verdict).toMatchObject({ blame: "host", where: expect.stringMatching(/^at stage 2 level/) });
    expect(grid.rows.at(-1)).toMatchObject({ table: "stage1", fetch: null });
  });

  it("a right that the second stage lacks is the host's", () => {
    const { verdict } = verdictOn(kind, ({ vm, device, stage1, page }) => {
      stage1.map(IOVA, page, 4096n);
      device.installContext(stage1);
      flip(vm, loadsOf(vm, IOVA, true).at(-1)!.address, SECOND_STAGE_WRITE[kind]!);
      device.dmaWrite(IOVA, Uint8Array.of(1));
    });
    expect(verdict).toMatchObject({ blame: "host", where: expect.stringMatching(/^at stage 2 level/) });
  });

  it("a set-up that the host could not take is the host's, by the call and its error, and no more once it has taken one", () => {
    const refused = (again: boolean) =>
      verdictOn(kind, ({ vm, device, stage1, page }) => {
        stage1.map(IOVA, page, 4096n);
        vm.host.inject(["ioctl:IOMMU_HWPT_ALLOC=ENOMEM"]);
        device.installContext(stage1);
        vm.host.inject([]);
        if (again) device.installContext(stage1);
        device.dmaRead(again ? 0x9000n : IOVA, 4);
      }).verdict;
    expect(refused(false)).toMatchObject({
      ...{ blame: "host", headline: "The host's fault" },
      why: expect.stringMatching(/IOMMU_HWPT_ALLOC failed with ENOMEM \(event \d+\)/),
    });
    expect(refused(true)).toMatchObject({ blame: "guest", where: expect.stringMatching(/^at stage 1/) });
  });

  it("the news of a fault is on its way from the hardware's record on: each station has the one before as its cause", () => {
    const told = scenario("a fault", (t) => {
      const vm = t.vm({ kind, assign: [`${HOST}@${GUEST}`] }) as unknown as Vm;
      const stage1 = vm.stage1(undefined, { msiWindow: false });
      vm.device(GUEST).installContext(stage1);
      vm.device(GUEST).dmaRead(IOVA, 4);
    });
    const columns = indexTrace(runOneScenario(told, 0).text);
    const row = rowOf(columns, walkAt(columns, columns.type.lastIndexOf(EVENT_TYPES.indexOf("dma")))!.walk.fault!.seq);
    const stations = consequencesOf(columns, row).map(
      (event) => `${event.type} ${"where" in event ? event.where : ""}`,
    );
    expect(stations).toEqual(expect.arrayContaining(["irq host", "fault kernel"]));
    // Where the architecture's guest hears of it (Linux has no event queue for VT-d), its record and its interrupt are at the end of the same way.
    const { code } = VIOMMU_KINDS[kind].guest.hears("not mapped", false);
    expect(stations.slice(-2)).toEqual(code === null ? ["irq host", "fault kernel"] : ["fault guest", "irq guest"]);
  });

  it("what the guest itself blocks is the guest's, though the host had refused something before", () => {
    const { verdict } = verdictOn(kind, ({ vm, device, stage1, page }) => {
      stage1.map(IOVA, page, 4096n);
      vm.host.inject(["ioctl:IOMMU_HWPT_ALLOC=ENOMEM"]);
      device.installContext(stage1);
      vm.host.inject([]);
      device.installContext(stage1);
      device.installContext("blocked");
      device.dmaRead(IOVA, 4);
    });
    expect(verdict.blame).toBe("guest");
  });
});

describe("a verdict", () => {
  const load = (table: string, kind?: string): WalkStep => ({
    ...{ seq: 1, time: 0, cause: 0, type: "walk", where: "host", iommu: "iommu0", deviceId: 8, table, level: 0 },
    ...{ space: "spa", address: 0n, entry: 0n, cached: false, ...(kind === undefined ? {} : { kind }) },
  });
  const fault = (faultCause: number, where: "hardware" | "kernel" | "guest" = "hardware") => ({
    ...({ seq: 2, time: 0, cause: 0, type: "fault", where, iommu: "iommu0", faultCause, deviceId: 8 } as const),
    ...{ iotval: 0n, iotval2: 0n, ttyp: 2, text: "the record, and more" },
  });
  const walk = (parts: Partial<Walk>): Walk => ({
    ...{ iommu: "iommu0", deviceId: 8, pasid: null, iova: 0x4000n, write: false, seq: 3, time: 0 },
    ...{ steps: [], spa: null, fault: null, result: "aborted", ...parts },
  });
  const irq: TracedEvent = { seq: 9, time: 0, cause: 0, type: "irq", where: "guest", source: "message", vector: 1 };

  it("names the access by what is known of the device, with its PASID", () => {
    expect(verdictOf(walk({ pasid: 5, write: true }), []).access).toBe("device 0x8 writes IOVA 0x4000 with PASID 5");
    expect(verdictOf(walk({}), [], "00:02.0").access).toBe("device 00:02.0 reads IOVA 0x4000");
  });

  it("follows the news from the hardware to the guest's interrupt, or to where it ends", () => {
    const refused = walk({ steps: [load("stage1")], fault: fault(13) });
    expect(verdictOf(refused, [fault(13, "kernel"), fault(13, "guest"), irq]).way).toEqual([
      "iommu0 records it in its hardware queue",
      "the host's kernel passes it on to the VM",
      "the guest finds it in the queue of iommu0: the record, and more",
      "the guest takes an interrupt (message)",
    ]);
    expect(verdictOf(refused, [fault(13, "kernel")]).way.slice(1)).toEqual([
      "the host's kernel reads it",
      "it ends at the host: the guest is told nothing",
    ]);
  });

  it("is open where nothing was loaded and nothing recorded, and guesses nothing", () => {
    expect(verdictOf(walk({}), [])).toMatchObject({
      ...{ blame: "open", headline: "It was refused, and nothing was recorded", where: "", section: "" },
      way: [expect.stringMatching(/nobody is told/)],
    });
    // Both stages let it through, and the device or its bus gave it up.
    expect(verdictOf(walk({ steps: [load("stage1"), load("stage2")] }), [])).toMatchObject({
      blame: "open",
      where: "",
    });
  });

  it("is the device's where it asks for what it may not, whatever the host had refused", () => {
    // RISC-V IOMMU 260, transaction type disallowed.
    const refusal = { call: "IOMMU_HWPT_ALLOC", errno: -12, seq: 1, cause: 1 };
    expect(verdictOf(walk({ fault: fault(260) }), [], undefined, refusal)).toMatchObject({
      ...{ blame: "device", headline: "The device's fault", where: "before any table was read" },
    });
  });

  it("is not of a second stage for a refusal of the host's that is about something else", () => {
    const refusal = { call: "IOMMU_HWPT_ALLOC", errno: -12, seq: 1, cause: 1 };
    const { blame, why } = verdictOf(walk({ steps: [load("stage1")], fault: fault(13) }), [], undefined, refusal);
    expect([blame, why]).toEqual(["guest", expect.not.stringMatching(/ENOMEM/)]);
  });

  it("says of a message and of a transaction that waits what they are", () => {
    expect(verdictOf(walk({ result: "msi", spa: 0x800_0000n }), []).headline).toBe("It was an interrupt");
    expect(verdictOf(walk({ result: "stalled" }), [])).toMatchObject({ blame: "none", headline: "It waits" });
    const stalled = walk({
      result: "stalled",
      steps: [load("stage1", "smmuv3")],
      fault: { ...fault(0x10), kind: "smmuv3" },
    });
    expect(verdictOf(stalled, [])).toMatchObject({ blame: "guest", headline: "It waits for the guest's answer" });
  });

  it("of a cause that no specification has says so instead of guessing", () => {
    for (const kind of KINDS) {
      const { blame, why } = verdictOf(walk({ fault: { ...fault(0xff), kind } }), []);
      expect([blame, why]).toEqual(["open", expect.stringMatching(/not one|without a name|no event|does not/i)]);
    }
  });
});
