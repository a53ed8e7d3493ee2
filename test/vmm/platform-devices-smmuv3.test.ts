// A machine whose platform device waits in the host's SMMUv3 (IHI 0070 §3.12.2) is written down and read back: the device's command, the transaction
// in the hardware, the kernel's fault, the VMM's cookie and the guest's STAG still belong together.

import { expect, it } from "vitest";
import type { StateRecord } from "../../host/base/state.ts";
import { decodeState, encodeState } from "../../host/base/state-text.ts";
import { builtInHosts } from "../../host/built-in-hosts.ts";
import { NO_PASID } from "../../host/devices/ports.ts";
import { runScenario } from "../../vmm/scenario/run-scenario.ts";
import { scenario } from "../../vmm/scenario/scenario.ts";
import { restoreWhole, saveWhole } from "../../vmm/whole-machine.ts";

const ARM = builtInHosts.find(({ name }) => name === "arm")!;
const GUEST_ID = 0x400;
const IOVA = 0x7000n;

it.each(["success", "invalid"] as const)("taken back, the guest's answer (%s) reaches the device", (answer) => {
  const result = runScenario(
    scenario("s", (t) => {
      const vm = t.vm({ kind: "smmuv3", assign: [`edu0@0x${GUEST_ID.toString(16)}`] });
      const device = vm.platformDevice(GUEST_ID);
      const stage1 = vm.stage1();
      stage1.map(0x1000n, vm.ram.allocate(), 4096n);
      device.installContext(stage1, { stalls: true });
      device.edu.start({ iova: IOVA, length: 256, direction: "to-ram", interrupt: true });
      t.advance(10_000);
      const [request] = vm.takePageRequests();
      expect(request).toMatchObject({ deviceId: GUEST_ID, address: IOVA, write: true });
      const world = { clock: t.clock, trace: t.trace, host: vm.host, machine: vm.machine };
      const document = encodeState(saveWhole(world));
      // What happens between leaves nothing behind: the command is given up, another transaction waits, time passes.
      device.entry.device.reset();
      vm.host.dmaOf("edu0").write(9, 0, Uint8Array.of(1), 0, 1, NO_PASID);
      device.dmaRead(0x1000n, 4);
      t.advance(1_000_000);
      expect(device.edu.running).toBe(false);
      restoreWhole(world, decodeState(document) as StateRecord);
      expect(encodeState(saveWhole(world))).toBe(document);
      expect(device.edu.running).toBe(true);
      const page = vm.ram.allocate();
      vm.ram.write(page, new Uint8Array(256).fill(0xee));
      stage1.map(IOVA, page, 4096n);
      request!.answer(answer);
      t.advance(100_000);
      const done = answer === "success";
      expect([device.edu.outcome, device.edu.moved]).toEqual(done ? ["done", 256] : ["refused", 0]);
      expect(vm.ram.read(page, 256).every((byte) => byte === (done ? 0 : 0xee))).toBe(true);
      expect(vm.takeInterrupts()).toContain(device.interrupt);
      expect(vm.takePageRequests()).toEqual([]);
    }),
    { seed: 0, defaultHost: ARM, findHost: () => ARM },
  );
  if (!result.passed) throw new Error(`${result.message}\n${result.stack}`);
});
