// A machine whose guest has queues of the hardware's, saved, moved on and taken back.

import { expect, it } from "vitest";
import { encodeCommand } from "../../../../host/arch/smmuv3/commands.ts";
import { decodeState, encodeState } from "../../../../host/base/state-text.ts";
import { restoreWhole, saveWhole } from "../../../../vmm/whole-machine.ts";
import { QueueVm, SID } from "./cmdqv-vm.ts";

const IOVA = 0x4000_0000n;
const PAGE0 = 0x30000;

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
