// The monitor over its socket: every command, on a component guest and on a kernel; and clients that do not behave.

import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { UART_BASE } from "../../../vmm/memory-map.ts";
import { COMMANDS } from "../../../vmm/monitor/command-shapes.ts";
import { Program, S0 } from "../rv64-program.ts";
import { addi } from "../vcpu/riscv64/encode.ts";
import { nestbox } from "./command-line.ts";
import { Monitored } from "./monitored.ts";

let folder: string;
let machine: Monitored | null = null;
let count = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-monitor-"));
});
afterEach(() => {
  machine?.child.kill("SIGKILL");
  machine = null;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const socketPath = () => join(folder, `monitor${count}`);
async function start(...args: string[]) {
  count++;
  machine = await Monitored.start(socketPath(), ...args);
  return { machine, monitor: await machine.connect() };
}

/** Counts in s0 for ever. */
function counting(): string {
  const program = new Program().print(UART_BASE, "on\n");
  const loop = program.here;
  program.emit(addi(S0, S0, 1)).jump(loop);
  const path = join(folder, "counting");
  writeFileSync(path, program.imageFile);
  return path;
}

describe("the monitor of a component guest", () => {
  it("does every command, while the guest stands at its traps", async () => {
    const { machine, monitor } = await start("--paused");
    expect(await monitor.result("status")).toEqual({ state: "paused", reason: "start", virtualNs: 100, traps: 1 });
    const help = await monitor.result("help");
    for (const { name } of COMMANDS) expect(help.lines.some((line: string) => line.startsWith(name))).toBe(true);
    expect((await monitor.result("help walk")).lines[0]).toMatch(/^walk --device <bdf> --iova <address>/);

    expect(await monitor.result("step 3")).toMatchObject({ state: "paused", reason: "step", traps: 4, virtualNs: 400 });
    const event = await monitor.result("step --event");
    expect(event).toMatchObject({ reason: "event", traps: 5, event: { seq: 1, type: "mmio" } });

    // What the command of the same name says of a machine that is put together the same way.
    const inspected = JSON.parse(nestbox("inspect", "vm/pci", "--json").output);
    const pci = await monitor.result("inspect vm/pci");
    expect(Object.keys(pci)).toEqual(Object.keys(inspected));
    expect(pci["00:01.0"].id).toBe(inspected["00:01.0"].id);
    const caps = JSON.parse(nestbox("caps", "--json").output);
    expect((await monitor.result("caps"))[0].rows).toEqual(caps.rows);
    expect(await monitor.result("ids")).toMatchObject([
      { guestBdf: "00:02.0", guestDeviceId: 0x10, hostBdf: "0000:00:01.0", hostDeviceId: 8 },
      { guestBdf: "00:01.0", guestDeviceId: 8, hostBdf: "0000:00:02.0", hostDeviceId: 0x10 },
    ]);

    // Nothing is set up yet: cause 258 (RISC-V IOMMU §3.3.1).
    const early = await monitor.result("walk --device 00:02.0 --iova 0x1000 --why");
    expect(early.grid.walk.fault.faultCause).toBe(258);
    expect(early.why).toMatch(/§/);
    const dma = await monitor.result("until dma");
    expect(dma).toMatchObject({ reason: "event", event: { type: "dma", result: "ok" } });
    const { iova, spa, deviceId } = dma.event;
    const guest = (await monitor.result("ids")).find((row: { hostDeviceId: number }) => row.hostDeviceId === deviceId);
    const now = await monitor.result(`walk --device ${guest.guestBdf} --iova ${iova}`);
    expect([now.grid.walk.spa, now.cached]).toEqual([spa, spa]);
    expect(now.grid.rows.length).toBeGreaterThan(3);

    await monitor.result("inject ioctl:IOMMU_HWPT_ALLOC=ENOMEM");
    const injected = await monitor.result("until injection");
    expect(injected.event).toMatchObject({ type: "injection", name: "IOMMU_HWPT_ALLOC" });
    await monitor.result("inject");
    await monitor.result("device-remove 00:01.0");
    expect((await monitor.result("ids")).map((row: { guestBdf: string }) => row.guestBdf)).toEqual(["00:02.0"]);
    await monitor.result("device-add 0000:00:02.0@00:01.0");
    expect((await monitor.result("ids")).length).toBe(2);

    expect(await monitor.result("continue")).toMatchObject({ state: "running" });
    await machine.ended();
    expect(existsSync(socketPath())).toBe(false);
  });

  it("pausing changes nothing: the trace is that of a run nobody watched", async () => {
    const [alone, watched] = ["alone", "watched"].map((name) => join(folder, `${name}.jsonl`));
    nestbox("boot", "--trace", alone!);
    const { machine, monitor } = await start("--paused", "--trace", watched!);
    for (let i = 0; i < 20; i++) await monitor.result(`step ${1 + 7 * i}`);
    for (let i = 0; i < 20; i++) await monitor.result(`step --event ${1 + 11 * i}`);
    for (const question of ["inspect", "ids", "caps", "walk --device 00:02.0 --iova 0x1234567000"])
      await monitor.result(question);
    await monitor.result("continue");
    expect(await machine.ended()).toBe(0);
    expect(readFileSync(watched!, "utf8")).toBe(readFileSync(alone!, "utf8"));
  });

  it("is told of the end; what was asked and can no longer happen is answered first", async () => {
    const { machine, monitor } = await start("--paused");
    expect(await monitor.ask('{"id":3,"command":"until","type":"group"}')).toEqual({
      ...{ id: 3, ok: false, error: "the machine has ended" },
    });
    expect(await monitor.next()).toMatchObject({ event: "ended", status: 0 });
    expect(await machine.ended()).toBe(0);
  });
});

describe("the monitor of a kernel", () => {
  const boot = (...args: string[]) => start("--kernel", counting(), "--memory", "4M", "--report", "json", ...args);

  it("stands at any instruction, and goes on from there", async () => {
    const { machine, monitor } = await boot("--paused");
    const first = await monitor.result("status");
    expect(first).toMatchObject({ state: "paused", reason: "start", instructions: 0 });
    expect(first.cpus).toEqual([{ cpu: 0, state: "runs", pc: "0x80000000" }]);
    const second = await monitor.result("step");
    expect(second).toMatchObject({ reason: "step", instructions: 1, virtualNs: 10 });
    // Past the header, to which the first instruction jumps.
    expect(second.cpus[0].pc).toBe("0x80000040");
    expect((await monitor.result("step 1000")).instructions).toBe(1001);
    expect((await monitor.result("step 20000000")).instructions).toBe(20_001_001);
    await monitor.result("continue");
    const paused = await monitor.result("pause");
    expect(paused).toMatchObject({ state: "paused", reason: "pause" });
    expect((await monitor.result("status")).instructions).toBe(paused.instructions);
    expect(await monitor.ask("quit")).toEqual({ ok: true, result: {} });
    expect(await machine.ended()).toBe(0);
    expect(JSON.parse(machine.output)).toMatchObject({ result: "pass", detail: "ended on request" });
  });

  it("a step is answered when somebody else pauses first", async () => {
    const { machine, monitor } = await boot("--paused");
    const other = await machine.connect();
    monitor.send("step 4000000000000\n");
    await other.result("status");
    await other.result("pause");
    expect(await monitor.next()).toMatchObject({ ok: true, result: { state: "paused", reason: "pause" } });
  });

  it("Ctrl-A c gives the console's keys to the monitor, and back", async () => {
    const { machine } = await boot("--interactive", "--wall-limit", "10m");
    const say = (text: string) => machine.child.stdin!.write(text);
    const seen = async (pattern: RegExp) => {
      while (!pattern.test(machine.output + machine.errors))
        await new Promise((resolve) => machine.child.stdout!.once("data", resolve));
    };
    say("\x01c");
    await seen(/\(nestbox\) /);
    say("pause\r");
    await seen(/reason: pause/);
    say("stat\t");
    await seen(/status /);
    say("\x15ids\r");
    await seen(/vDEVICE/);
    say("nonsense\r");
    await seen(/there is no command "nonsense"/);
    say("continue\r");
    await seen(/state: running/);
    say("\x01c\x01x");
    expect(await machine.ended()).toBe(0);
  });
});

describe("clients of the monitor's socket", () => {
  it("nestbox monitor asks one thing, or a pipe's lines", async () => {
    await start("--paused");
    const one = nestbox("monitor", socketPath(), "walk", "--device", "00:02.0", "--iova", "0x1000", "--why");
    expect([one.status, one.output]).toEqual([0, expect.stringMatching(/the device is not set up/)]);
    const json = nestbox("monitor", "--json", socketPath(), "status");
    expect(JSON.parse(json.output)).toMatchObject({ ok: true, result: { state: "paused" } });
    const wrong = nestbox("monitor", socketPath(), "wobble");
    expect([wrong.status, wrong.output]).toEqual([1, expect.stringMatching(/there is no command "wobble"/)]);
  });

  it("nobody who listens is said in a line", () => {
    const result = nestbox("monitor", join(folder, "nobody"), "status");
    expect([result.status, result.errors]).toEqual([2, expect.stringMatching(/nobody listens there \(ENOENT\)/)]);
  });

  it("the socket is its owner's alone; one in use, or a file, is left alone", async () => {
    await start("--paused");
    expect(statSync(socketPath()).mode & 0o777).toBe(0o600);
    const second = nestbox("boot", "--monitor", socketPath());
    expect([second.status, second.errors]).toEqual([2, expect.stringMatching(/in use by another process/)]);
    const file = join(folder, "file");
    writeFileSync(file, "mine");
    const third = nestbox("boot", "--monitor", file);
    expect([third.status, third.errors]).toEqual([2, expect.stringMatching(/there is a file of that name/)]);
    const nowhere = nestbox("boot", "--monitor", join(folder, "no", "where"));
    expect([nowhere.status, nowhere.errors]).toEqual([2, expect.stringMatching(/--monitor .*(ENOENT|EACCES)/)]);
  });

  it("a socket that a killed machine has left is taken over", async () => {
    const { machine } = await start("--paused");
    machine.child.kill("SIGKILL");
    await machine.ended();
    const again = await Monitored.start(socketPath(), "--paused");
    expect(await (await again.connect()).result("status")).toMatchObject({ state: "paused" });
    again.child.kill("SIGKILL");
  });

  it("garbage, endless lines, half lines and clients that go bring nothing down", async () => {
    const { machine, monitor } = await start("--paused");
    expect(await monitor.ask("\u0000\u0001 {]")).toMatchObject({ ok: false });
    expect(await monitor.ask('{"id":9,"command":"step","n":{}}')).toMatchObject({ ok: false, id: 9 });
    for (const request of ["walk --device 99:1f.7 --iova 0", "device-add x", "device-remove 00:09.0", "inject bogus"])
      expect(await monitor.ask(request), request).toMatchObject({ ok: false });
    expect(await monitor.ask("inspect vm/__proto__")).toMatchObject({ ok: false });
    expect(await monitor.ask("until everything")).toMatchObject({ ok: false });
    const endless = await machine.connect();
    endless.send("x".repeat(200_000));
    expect(await endless.next()).toMatchObject({ ok: false, error: expect.stringMatching(/65536 bytes/) });
    expect(await endless.next()).toEqual({ event: "closed" });
    const gone = await machine.connect();
    gone.send("step 1000000\nstatus\nhalf a li");
    gone.socket.destroy();
    // Eight at a time.
    const many = await Promise.all(Array.from({ length: 6 }, () => machine.connect()));
    for (const each of many) expect(await each.ask("status")).toMatchObject({ ok: true });
  });

  it("64 requests wait for the machine to stand, the next is refused in a line", async () => {
    const { monitor } = await start("--kernel", counting(), "--memory", "4M", "--paused");
    for (let id = 1; id <= 70; id++) monitor.send(`{"id":${id},"command":"until","type":"dma"}\n`);
    for (let id = 65; id <= 70; id++) {
      expect(await monitor.next()).toEqual({ id, ok: false, error: expect.stringMatching(/^64 requests wait[^\n]*$/) });
    }
    // What is answered at once still is, and a pause answers those that wait.
    expect(await monitor.result("status")).toMatchObject({ state: "running" });
    monitor.send('{"id":0,"command":"pause"}\n');
    const answered = [];
    for (let n = 0; n < 65; n++) answered.push((await monitor.next()).id);
    expect(answered).toEqual([...Array.from({ length: 64 }, (_, n) => n + 1), 0]);
  });

  it("a guest that cannot be started ends the process, and what it cannot do is said", async () => {
    const text = `(module (import "env" "memory" (memory 4096)) (func (export "run") (result i32) i32.const 0))`;
    writeFileSync(join(folder, "large.wat"), text);
    expect(nestbox("make-image", join(folder, "large.wat"), join(folder, "large.wasm")).status).toBe(0);
    const large = join(folder, "large.wasm");
    const result = nestbox("boot", large, "--memory", "1M", "--monitor", join(folder, "large"));
    expect([result.status, result.errors]).toEqual([2, expect.stringMatching(/does not fit this machine's 1 MiB/)]);
    expect(existsSync(join(folder, "large"))).toBe(false);
  });

  it("--paused without anybody who could let it go on is refused", () => {
    const result = nestbox("boot", "--paused");
    expect([result.status, result.errors]).toEqual([2, expect.stringMatching(/--paused needs --monitor/)]);
  });
});
