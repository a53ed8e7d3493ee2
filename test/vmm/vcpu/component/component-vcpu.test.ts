// A component guest's life on a scripted machine: traps arrive with the right address, size and halves; each way to end is told from
// the others (guest-fixtures/wit/guest.wit).

import { describe, expect, it } from "vitest";
import { runGuarded } from "../../../../vmm/cli/wall-limit.ts";
import { ComponentVcpu } from "../../../../vmm/vcpu/component/component-vcpu.ts";
import { ScriptedMachine, soundImage } from "./scripted-machine.ts";
import { type WatGuestOptions, watGuest } from "./wat-guest.ts";

async function boot(body: string, machine = new ScriptedMachine(), options: WatGuestOptions = {}) {
  const image = await soundImage(await watGuest(body, options));
  return machine.boot(image);
}

describe("traps of a component guest", () => {
  it("a load gives the machine the whole 64-bit address", async () => {
    const machine = new ScriptedMachine();
    machine.answers = [0x1234_5678n];
    const outcome = await boot("(call $load32 (i32.const 0xfffffff0) (i32.const 7))", machine);
    expect(machine.accesses).toEqual([{ address: 0x7_ffff_fff0, size: 4 }]);
    expect(outcome).toEqual({ kind: "exited", status: 0x1234_5678 });
  });

  it.each([
    ["load8", 1, 0xffn],
    ["load16", 2, 0xffffn],
    ["load32", 4, 0xffff_ffffn],
  ] as const)("%s has size %i", async (name, size, value) => {
    const machine = new ScriptedMachine();
    const outcome = await boot(`(call $${name} (i32.const 64) (i32.const 0))`, machine);
    expect(machine.accesses).toEqual([{ address: 64, size }]);
    expect(outcome).toEqual({ kind: "exited", status: Number(value) });
  });

  it("an 8-byte load is one access, its high half read afterwards", async () => {
    const machine = new ScriptedMachine();
    machine.answers = [0x8765_4321_0000_0005n];
    const outcome = await boot("(i32.xor (call $load64 (i32.const 8) (i32.const 0)) (call $high-half))", machine);
    expect(machine.accesses).toEqual([{ address: 8, size: 8 }]);
    expect(outcome).toEqual({ kind: "exited", status: 0x8765_4324 });
  });

  it("a narrow store carries only its own bits", async () => {
    const machine = new ScriptedMachine();
    await boot(
      `(call $store8 (i32.const 0) (i32.const 0) (i32.const 0x12345678))
       (call $store16 (i32.const 2) (i32.const 0) (i32.const -1))
       (call $store32 (i32.const 4) (i32.const 0) (i32.const -1))
       (call $store64 (i32.const 8) (i32.const 0) (i32.const 5) (i32.const -2)) (i32.const 0)`,
      machine,
    );
    expect(machine.accesses.map(({ value }) => value)).toEqual([0x78n, 0xffffn, 0xffff_ffffn, 0xffff_fffe_0000_0005n]);
  });

  it("console bytes come from RAM", async () => {
    const machine = new ScriptedMachine();
    await boot("(call $write (i32.const 16) (i32.const 6)) (i32.const 0)", machine, {
      fields: '(data (i32.const 16) "hello\\n")',
    });
    expect(machine.output).toBe("hello\n");
  });

  it("RAM is the machine's memory, all of it", async () => {
    const machine = new ScriptedMachine(4);
    new Uint32Array(machine.memory.buffer)[0x3f_fffc / 4] = 42;
    const outcome = await boot("(i32.store (i32.const 0) (i32.const 7)) (i32.load (i32.const 0x3ffffc))", machine);
    expect(outcome).toEqual({ kind: "exited", status: 42 });
    expect(new Uint32Array(machine.memory.buffer)[0]).toBe(7);
  });

  it("memory.grow fails: RAM has the size the machine gave it", async () => {
    expect(await boot("(memory.grow (i32.const 1))")).toEqual({ kind: "exited", status: 0xffff_ffff });
  });

  it("wait and poll return what the machine gives", async () => {
    const machine = new ScriptedMachine();
    machine.interrupts = [100, 20];
    expect(await boot("(i32.sub (call $wait) (call $poll))", machine)).toEqual({ kind: "exited", status: 80 });
  });

  it("the platform's regions are found by kind and index; what is not there is 0", async () => {
    const outcome = await boot(
      `(i32.or (i32.or
         (i64.ne (call $base (i32.const 4) (i32.const 0)) (i64.const 0x400000000))
         (i64.ne (call $size (i32.const 0) (i32.const 0)) (i64.const 0x400000)))
       (i32.or (i32.or
         (i32.ne (call $count (i32.const 4)) (i32.const 1))
         (i32.ne (call $count (i32.const 1)) (i32.const 0)))
       (i32.or
         (i64.ne (call $base (i32.const 0) (i32.const -1)) (i64.const 0))
         (i32.ne (call $count (i32.const 99)) (i32.const 0)))))`,
    );
    expect(outcome).toEqual({ kind: "exited", status: 0 });
  });

  it("lines, time and alarms reach the machine", async () => {
    const machine = new ScriptedMachine();
    const outcome = await boot(
      `(call $alarm (i64.const 5000000000) (i32.const 77))
       (i32.add (i32.wrap_i64 (call $now))
         (i32.add (call $iommu-line (i32.const 0) (i32.const 1))
           (i32.add (call $pci-line (i32.const 5) (i32.const 1)) (call $iommu-of (i32.const 0x10)))))`,
      machine,
    );
    expect(machine.alarms).toEqual([{ delay: 5_000_000_000, number: 77 }]);
    expect(outcome).toEqual({ kind: "exited", status: 12345 + 9 - 1 + 3 });
  });
});

describe("the end of a component guest", () => {
  it("exit ends the run from anywhere", async () => {
    expect(await boot("(call $exit (i32.const 3)) (i32.const 0)")).toEqual({ kind: "exited", status: 3 });
  });

  it("a trap gives the engine's message and the guest's own stack, innermost first", async () => {
    const outcome = await boot("(call $inner) (i32.const 0)", new ScriptedMachine(), {
      fields: "(func $inner (call $innermost)) (func $innermost unreachable)",
    });
    expect(outcome.kind).toBe("trapped");
    if (outcome.kind !== "trapped") return;
    expect(outcome.message).toContain("unreachable");
    expect(outcome.stack.map((frame) => frame.replace(/ \(\+0x[0-9a-f]+\)$/, ""))).toEqual([
      expect.stringContaining("innermost"),
      expect.stringContaining("inner"),
      expect.stringContaining("run"),
    ]);
  });

  it("a pointer past RAM traps and says how much RAM there is", async () => {
    const outcome = await boot("(i32.load (i32.const 0x400000))");
    expect(outcome).toMatchObject({ kind: "trapped", message: expect.stringContaining("RAM has 4194304 bytes") });
  });

  it("console bytes past RAM trap", async () => {
    const outcome = await boot("(call $write (i32.const 0x3ffffe) (i32.const 4)) (i32.const 0)");
    expect(outcome).toMatchObject({ kind: "trapped", message: expect.stringContaining("past RAM") });
  });

  it("endless recursion is the guest's trap, not ours", async () => {
    const outcome = await boot("(call $run)");
    expect(outcome).toMatchObject({ kind: "trapped", message: "stack overflow" });
  });

  it("a machine that stops gets control back at the next trap", async () => {
    const machine = new ScriptedMachine();
    machine.stopAfter = 10;
    const outcome = await boot("(loop (drop (call $load8 (i32.const 0) (i32.const 0))) (br 0)) (unreachable)", machine);
    expect(outcome).toEqual({ kind: "stopped" });
    expect(machine.accesses).toHaveLength(10);
  });

  it("a guest that ignores -2 from wait is left at its next wait", async () => {
    const machine = new ScriptedMachine();
    machine.stopping = true;
    expect(await boot("(loop (drop (call $wait)) (br 0)) (unreachable)", machine)).toEqual({ kind: "stopped" });
  });

  it("an endless loop that never traps ends at the wall limit", async () => {
    const image = await soundImage(await watGuest("(loop (br 0)) (unreachable)"));
    const outcome = new ScriptedMachine().boot(image, (body) => runGuarded(body, 50));
    expect(outcome).toEqual({ kind: "wall-limit" });
  });

  it("an endless loop at instantiation ends at the wall limit too", async () => {
    const image = await soundImage(
      await watGuest("(i32.const 0)", { fields: "(func $start (loop (br 0))) (start $start)" }),
    );
    const outcome = new ScriptedMachine().boot(image, (body) => runGuarded(body, 50));
    expect(outcome).toEqual({ kind: "wall-limit" });
  });

  it("the guard lets a guest that ends in time through", async () => {
    const image = await soundImage(await watGuest("(i32.const 5)"));
    const outcome = new ScriptedMachine().boot(image, (body) => runGuarded(body, Number.POSITIVE_INFINITY));
    expect(outcome).toEqual({ kind: "exited", status: 5 });
  });

  it("a bug of the VMM inside a trap is not taken for a fault of the guest", async () => {
    const machine = new ScriptedMachine();
    machine.onAccess = () => {
      throw new TypeError("a bug of ours");
    };
    await expect(boot("(call $load8 (i32.const 0) (i32.const 0))", machine)).rejects.toThrow("a bug of ours");
  });

  it("an ended guest cannot be run again", async () => {
    const machine = new ScriptedMachine();
    const image = await soundImage(await watGuest("(i32.const 0)"));
    const vcpu = new ComponentVcpu({ image, memory: machine.memory, port: machine, platform: machine.platform });
    vcpu.run();
    expect(vcpu.dead).toBe(true);
    expect(() => vcpu.run()).toThrow("ended already");
  });

  it("two guests of one image share nothing", async () => {
    const image = await soundImage(
      await watGuest("(global.set 0 (i32.add (global.get 0) (i32.const 1))) (global.get 0)", {
        fields: "(global (mut i32) (i32.const 0))",
      }),
    );
    expect(new ScriptedMachine().boot(image)).toEqual({ kind: "exited", status: 1 });
    expect(new ScriptedMachine().boot(image)).toEqual({ kind: "exited", status: 1 });
  });

  it("an image that wants more RAM than there is, is refused with the machine's size", async () => {
    const outcome = await boot("(i32.const 0)", new ScriptedMachine(4), {
      memory: '(import "env" "memory" (memory 1000)) (export "memory" (memory 0))',
    });
    expect(outcome).toMatchObject({ kind: "refused", message: expect.stringContaining("4 MiB of RAM") });
  });

  it("an image that takes no RAM is refused", async () => {
    const outcome = await boot("(i32.const 0)", new ScriptedMachine(), { memory: "", imports: "" });
    expect(outcome).toMatchObject({ kind: "refused", message: expect.stringContaining("imported memory") });
  });
});
