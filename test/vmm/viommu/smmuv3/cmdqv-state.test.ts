// A machine whose guest has queues of the hardware's, saved, moved on and taken back.

import { describe, expect, it } from "vitest";
import { encodeCommand } from "../../../../host/arch/smmuv3/commands.ts";
import { restoreTree, StateError, type StateRecord, type StateValue, saveTree } from "../../../../host/base/state.ts";
import { decodeState, encodeState } from "../../../../host/base/state-text.ts";
import { restoreWhole, saveWhole } from "../../../../vmm/whole-machine.ts";
import { QueueVm, SID } from "./cmdqv-vm.ts";

const IOVA = 0x4000_0000n;
const PAGE0 = 0x30000;

type Changeable = Record<string, StateValue>;

/** A device nested over a page, an error in the guest's queue that the guest has not seen to. */
function story() {
  const vm = new QueueVm({ cmdqv: { log2vcmdqs: 3, log2vintfs: 2 } });
  const stage1 = vm.stage1();
  const page = vm.ram.allocate();
  vm.ram.write(page, Uint8Array.of(42));
  stage1.map(IOVA, page, 4096n);
  vm.driver.installTranslation(SID, { whole: stage1, pasids: new Map(), ats: false, pageRequests: false });
  vm.read(IOVA);
  vm.driver.ownQueues!.push(...encodeCommand("TLBI_NSNH_ALL"));
  vm.driver.ownQueues!.ringDoorbell();
  vm.pass();
  return { vm, stage1 };
}

function save({ vm }: ReturnType<typeof story>): string {
  const { clock, trace, host, machine } = vm;
  return encodeState(saveWhole({ clock, trace, host, machine }));
}

function restore({ vm }: ReturnType<typeof story>, text: string): void {
  const { clock, trace, host, machine } = vm;
  restoreWhole({ clock, trace, host, machine }, decodeState(text));
}

function go({ vm, stage1 }: ReturnType<typeof story>): unknown[] {
  const seen: unknown[] = [vm.driver.ownQueues!.error, vm.get(0x14)];
  vm.driver.ownQueues!.skipCommand();
  stage1.unmap(IOVA, 4096n);
  seen.push(vm.read(IOVA));
  vm.driver.invalidate({ stage1, iova: IOVA });
  const events = vm.during(() => vm.driver.fence());
  seen.push(
    events.map((event) => [event.type, "device" in event ? event.device : ""]),
    vm.read(IOVA),
  );
  vm.put(0x1000, 0);
  vm.put(0x1000, 1);
  seen.push(vm.get(PAGE0 + 0xc), vm.viommu.cmdqv!.queues.hosted, vm.end());
  return seen;
}

it("goes on like its twin: queues, the page between guest and hardware, errors", () => {
  const [twin, told] = [story(), story()];
  const text = save(told);
  expect(save(twin) === text).toBe(true);
  // Queues are freed and made again (ids stay), registers change, the page is trapped meanwhile.
  const { vm } = told;
  vm.put(0x1000, 0);
  vm.put(PAGE0 + 4, 0);
  vm.put(PAGE0, 0);
  vm.put(0x1040, 0x61);
  vm.put(0x1000, 1);
  vm.put(0x1c, 1);
  vm.pass();
  expect(save(told) === text).toBe(false);
  restore(told, text);
  expect(save(told) === text).toBe(true);
  expect(go(told)).toEqual(go(twin));
});

describe("a document that no run has made is refused", () => {
  /** CMDQ_ALLOC: allocated to a VINTF as this logical queue. */
  const allocated = (vintf: number, logical: number): number => ((vintf << 15) | (logical << 1) | 1) >>> 0;

  /** The saved CMDQV with one field of one part changed. */
  function changed(path: readonly string[], field: string, change: (value: StateValue) => StateValue): () => void {
    const { cmdqv } = story().vm.viommu;
    const saved = saveTree(cmdqv!);
    let part = saved as Changeable;
    for (const name of path) part = (part.parts as Changeable)[name] as Changeable;
    const state = part.state as Changeable;
    expect(state[field]).toBeDefined();
    state[field] = change(state[field]!);
    return () => restoreTree(cmdqv!, saved);
  }

  it.each([
    ["a logical queue is left out", allocated(0, 5), 0, "words leave out logical queue 0 of VINTF 0"],
    ["two queues are one", allocated(0, 0), allocated(0, 0), "words have VCMDQ 1 where none can be"],
    ["a VINTF is not there", allocated(9, 0), 0, "words have VCMDQ 0 where none can be"],
  ])("%s", (_name, first, second, complaint) => {
    const restore = changed(["registers", "allocation"], "words", (value) => {
      const words = new Uint32Array((value as Uint8Array).length / 4);
      words.set([first, second]);
      return new Uint8Array(words.buffer);
    });
    expect(restore).toThrow(StateError);
    expect(restore).toThrow(complaint);
  });

  it.each([
    ["a queue that is not there", [99]],
    ["half a queue", [0.5]],
    ["one queue twice", [0, 0]],
  ])("the hardware has %s", (_name, queues) => {
    const restore = changed(["queues"], "hosted", (value) => {
      const [hosted] = value as StateRecord[];
      expect(hosted).toMatchObject({ queue: 0 });
      return queues.map((queue) => ({ ...hosted!, queue }));
    });
    expect(restore).toThrow(StateError);
    expect(restore).toThrow("hosted are not of 2 queues");
  });
});
