import { describe, expect, it } from "vitest";
import { REG } from "../../../host/arch/riscv/registers.ts";
import { Guest, PLACE, RAM, SV39 } from "./guest.ts";
import { RecordingHost } from "./hosts.ts";

const CQMF = 1 << 8;
const CMD_TO = 1 << 9;
const CMD_ILL = 1 << 10;
const FENCE_W_IP = 1 << 11;

function ready(options: ConstructorParameters<typeof Guest>[0] = {}): { guest: Guest; host: RecordingHost } {
  const host = new RecordingHost();
  const guest = new Guest({ host, ...options });
  guest.plug(1);
  guest.plug(2);
  guest.enableDirectory();
  guest.enableQueues({ quiet: true });
  host.calls.length = 0;
  return { guest, host };
}

const status = (guest: Guest) => guest.read32(REG.cqcsr) & 0xf00;

describe("command queue", () => {
  it("invalidations between two fences reach the host as one batch, in order and unchanged", () => {
    const { guest, host } = ready();
    guest.run(
      ["IOTINVAL.VMA", { PSCV: 1, PSCID: 5, AV: 1, ADDR: 0x1234n }],
      ["IOTINVAL.VMA", {}],
      ["IODIR.INVAL_PDT", { DV: 1, DID: 2, PID: 7 }],
      ["IOFENCE.C", { PR: 1, PW: 1 }],
      ["IOTINVAL.VMA", { PSCV: 1, PSCID: 6 }],
      ["IOFENCE.C", {}],
    );
    expect(host.batches).toEqual([
      [
        [0x1n | (1n << 10n) | (5n << 12n) | (1n << 32n), 0x1234n << 10n],
        [0x1n, 0n],
        [0x3n | (1n << 7n) | (7n << 12n) | (1n << 33n) | (2n << 40n), 0n],
      ],
      [[0x1n | (6n << 12n) | (1n << 32n), 0n]],
    ]);
    expect(guest.cqh).toBe(6);
  });

  it("what stands after the last fence is done too", () => {
    const { guest, host } = ready();
    guest.run(["IOTINVAL.VMA", {}]);
    expect(host.batches.length).toBe(1);
    expect(guest.cqh).toBe(1);
  });

  it("an IOFENCE stores its data only when the host has done the batch (§4.1.2)", () => {
    const { guest, host } = ready();
    let before = -1;
    host.invalidate = (_batch, count) => {
      before = guest.load32(PLACE.free);
      return { done: count, errno: 0 };
    };
    guest.run(["IOTINVAL.VMA", {}], ["IOFENCE.C", { AV: 1, ADDR: PLACE.free >> 2n, DATA: 0xcafe }]);
    expect(before).toBe(0);
    expect(guest.load32(PLACE.free)).toBe(0xcafe);
  });

  it("a batch of which the host did k entries leaves cqh exactly on entry k, with cmd_ill", () => {
    const { guest, host } = ready();
    host.nextReply = { done: 2, errno: -22 };
    guest.run(
      ["IOTINVAL.VMA", {}],
      ["IOTINVAL.GVMA", {}],
      ["IOTINVAL.VMA", {}],
      ["IOTINVAL.VMA", {}],
      ["IOFENCE.C", {}],
    );
    // The GVMA is not forwarded: entry 2 of the batch is the queue's command 3.
    expect(guest.cqh).toBe(3);
    expect(status(guest)).toBe(CMD_ILL);
  });

  it.each([
    ["EFAULT", -14, CQMF],
    ["EINVAL", -22, CMD_ILL],
    ["EOPNOTSUPP", -95, CMD_ILL],
    ["ENOENT", -2, CMD_ILL],
    ["EIO", -5, CMD_ILL],
  ] as const)("the host's %s shows as the right status bit", (_name, errno, bit) => {
    const { guest, host } = ready();
    host.nextReply = { done: 0, errno };
    guest.run(["IOTINVAL.VMA", {}], ["IOFENCE.C", {}]);
    expect(status(guest)).toBe(bit);
    expect(guest.cqh).toBe(0);
  });

  it("an ATS invalidation that timed out is reported by the fence behind it (§4.1.4)", () => {
    const { guest, host } = ready();
    host.nextReply = { done: 1, errno: -110 };
    guest.run(["IOTINVAL.VMA", {}], ["IOFENCE.C", {}]);
    expect(guest.cqh).toBe(1);
    expect(status(guest)).toBe(CMD_TO);
    guest.write32(REG.cqcsr, CMD_TO | 1);
    expect(guest.cqh).toBe(2);
    expect(status(guest)).toBe(0);
  });

  it("after a timeout the rest of the batch is done without its device invalidations, and the fence says cmd_to", () => {
    const host = new RecordingHost();
    const guest = new Guest({ host });
    guest.plug(1, { ats: true });
    guest.enableDirectory();
    guest.enableQueues({ quiet: true });
    guest.installContext(1, { tc: 3n, fsc: SV39 | (PLACE.tables >> 12n) });
    host.batches.length = 0;
    host.nextReply = { done: 1, errno: -110 };
    guest.run(["IOTINVAL.VMA", {}], ["ATS.INVAL", { RID: 1 }], ["IOTINVAL.VMA", { PSCV: 1 }], ["IOFENCE.C", {}]);
    expect(host.batches[1]).toEqual([[1n | (1n << 32n), 0n]]);
    expect(status(guest)).toBe(CMD_TO);
    // Two commands installed the context, so the fence is command 5.
    expect(guest.cqh).toBe(5);
  });

  it("after an error the queue stops until the bit is cleared, then goes on at the same command (§6.15)", () => {
    const { guest, host } = ready();
    host.nextReply = { done: 0, errno: -22 };
    guest.run(["IOTINVAL.VMA", {}], ["IOFENCE.C", {}]);
    guest.run(["IOTINVAL.VMA", {}]);
    expect(host.batches.length).toBe(1);
    guest.write32(REG.cqcsr, CMD_ILL | 1);
    expect(host.batches.length).toBe(3);
    expect(guest.cqh).toBe(3);
  });

  it.each([
    ["opcode 0", [0n, 0n]],
    ["a reserved opcode", [0x7n, 0n]],
    ["a custom opcode", [0x40n, 0n]],
    ["IOTINVAL with func3 2", [0x101n, 0n]],
    ["a reserved bit of IOTINVAL", [0x801n, 0n]],
    ["IOTINVAL.GVMA with PSCV", [0x81n | (1n << 32n), 0n]],
    ["IOFENCE.C with WSI while interrupts are messages", [0x802n, 0n]],
    ["INVAL_DDT with a PID", [0x3n | (1n << 12n) | (1n << 33n), 0n]],
    ["INVAL_PDT without DV", [0x83n, 0n]],
    ["INVAL_DDT with dword 1 not 0", [0x3n, 1n]],
  ] as const)("%s is illegal: everything before it is done, cqh stands on it (§4.1)", (_name, words) => {
    const { guest, host } = ready();
    guest.run(["IOTINVAL.VMA", {}]);
    guest.writeCommands(["IOTINVAL.VMA", {}]);
    guest.writeRaw(words);
    guest.writeCommands(["IOTINVAL.VMA", {}]);
    guest.ringDoorbell();
    expect(guest.cqh).toBe(2);
    expect(status(guest)).toBe(CMD_ILL);
    expect(host.batches.length).toBe(2);
  });

  it("NL and S are illegal where the capability is not promised (§4.1.1)", () => {
    const { guest } = ready({ capabilities: { S: false } });
    guest.run(["IOTINVAL.VMA", { AV: 1, ADDR: 0x10n, S: 1 }]);
    expect(status(guest)).toBe(CMD_ILL);
    const other = ready({ capabilities: { NL: false } }).guest;
    other.run(["IOTINVAL.VMA", { AV: 1, NL: 1 }]);
    expect(status(other)).toBe(CMD_ILL);
  });

  it("ATS commands are illegal with ATS = 0 (§4.1)", () => {
    const { guest } = ready({ capabilities: { ATS: false } });
    guest.run(["ATS.INVAL", { RID: 1 }]);
    expect(status(guest)).toBe(CMD_ILL);
  });

  it("a DID wider than the directory is illegal (§4.1.3)", () => {
    const { guest } = ready();
    guest.write64(REG.ddtp, 0n);
    guest.enableDirectory(1);
    guest.run(["IODIR.INVAL_DDT", { DV: 1, DID: 0x80 }]);
    expect(status(guest)).toBe(CMD_ILL);
  });

  it("a PID wider than the promised directories is illegal (§4.1.3)", () => {
    const { guest } = ready({ capabilities: { PD17: false, PD20: false } });
    guest.run(["IODIR.INVAL_PDT", { DV: 1, DID: 1, PID: 0xff }]);
    expect(status(guest)).toBe(0);
    guest.run(["IODIR.INVAL_PDT", { DV: 1, DID: 1, PID: 0x100 }]);
    expect(status(guest)).toBe(CMD_ILL);
  });

  it("a command that cannot be fetched sets cqmf and leaves cqh on it (§6.15)", () => {
    const { guest, host } = ready();
    guest.write32(REG.cqcsr, 0);
    guest.write64(REG.cqb, (0x10n << 10n) | 5n);
    guest.write32(REG.cqcsr, 1);
    guest.write32(REG.cqt, 3);
    expect(guest.cqh).toBe(0);
    expect(status(guest)).toBe(CQMF);
    expect(host.batches.length).toBe(0);
  });

  it("a fence whose store fails sets cqmf and stays (§4.1.2)", () => {
    const { guest } = ready();
    guest.run(["IOTINVAL.VMA", {}], ["IOFENCE.C", { AV: 1, ADDR: 0x1000n >> 2n, DATA: 1 }]);
    expect(guest.cqh).toBe(1);
    expect(status(guest)).toBe(CQMF);
  });

  it("IOFENCE.C with WSI sets fence_w_ip and does not stop the queue (§6.15)", () => {
    const { guest } = ready({ configuration: { interrupts: "wired" } });
    guest.run(["IOFENCE.C", { WSI: 1 }], ["IOTINVAL.VMA", {}]);
    expect(guest.cqh).toBe(2);
    expect(status(guest)).toBe(FENCE_W_IP);
  });

  it("the queue wraps", () => {
    const { guest, host } = ready();
    for (let round = 0; round < 50; round++) guest.run(["IOTINVAL.VMA", {}], ["IOTINVAL.VMA", {}], ["IOFENCE.C", {}]);
    expect(guest.cqh).toBe((50 * 3) % 64);
    expect(host.batches.length).toBe(50);
  });

  it("commands are not taken while the queue is off", () => {
    const { guest, host } = ready();
    guest.write32(REG.cqcsr, 0);
    guest.run(["IOTINVAL.VMA", {}]);
    expect(host.batches.length).toBe(0);
    expect(guest.cqh).toBe(0);
  });

  it.each([-1, 7, Number.NaN, 1.5, Number.POSITIVE_INFINITY])(
    "a host that claims %d entries done does no harm",
    (done) => {
      const { guest, host } = ready();
      host.nextReply = { done, errno: -5 };
      guest.run(["IOTINVAL.VMA", {}], ["IOTINVAL.VMA", {}], ["IOFENCE.C", {}]);
      expect(guest.cqh).toBeLessThanOrEqual(1);
      expect(status(guest)).toBe(CMD_ILL);
    },
  );

  it("a host that did less than asked and gives no errno stops the queue there", () => {
    const { guest, host } = ready();
    host.nextReply = { done: 1, errno: 0 };
    guest.run(["IOTINVAL.VMA", {}], ["IOTINVAL.VMA", {}], ["IOFENCE.C", {}]);
    expect(guest.cqh).toBe(1);
    expect(status(guest)).toBe(CMD_ILL);
  });

  it("device commands for ids nobody has are done without the host", () => {
    const { guest, host } = ready();
    guest.run(["IODIR.INVAL_DDT", { DV: 1, DID: 9 }], ["IODIR.INVAL_PDT", { DV: 1, DID: 9 }], ["IOFENCE.C", {}]);
    expect(host.batches.length).toBe(0);
    expect(guest.cqh).toBe(3);
  });

  it("ATS.INVAL is forwarded for a device whose context enables ATS, dropped for others", () => {
    const host = new RecordingHost();
    const guest = new Guest({ host });
    guest.plug(1, { ats: true });
    guest.plug(2);
    guest.enableDirectory();
    guest.enableQueues({ quiet: true });
    guest.installContext(1, { tc: 3n, fsc: SV39 | (PLACE.tables >> 12n) });
    guest.installContext(2, { tc: 3n, fsc: SV39 | (PLACE.tables >> 12n) });
    host.batches.length = 0;
    guest.run(["ATS.INVAL", { RID: 1 }], ["ATS.INVAL", { RID: 2 }], ["ATS.INVAL", { RID: 3 }], ["IOFENCE.C", {}]);
    expect(host.batches).toEqual([[[0x4n | (1n << 40n), 0n]]]);
  });

  it("a full queue of 8192 commands is one host call", () => {
    const host = new RecordingHost();
    const guest = new Guest({ host });
    guest.plug(1);
    guest.write64(REG.cqb, ((PLACE.free >> 12n) << 10n) | 12n);
    guest.write32(REG.cqcsr, 1);
    for (let i = 0; i < 8191; i++) guest.store64(RAM + 0x2_0000n + BigInt(16 * i), 1n);
    guest.write32(REG.cqt, 8191);
    expect(guest.cqh).toBe(8191);
    expect(host.batches.map((batch) => batch.length)).toEqual([8191]);
  });
});
