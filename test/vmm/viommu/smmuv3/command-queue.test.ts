import { describe, expect, it } from "vitest";
import type { CommandName } from "../../../../host/arch/smmuv3/commands.ts";
import { encodeCommand } from "../../../../host/arch/smmuv3/commands.ts";
import { CR0_CMDQEN, CR0_EVENTQEN, CR0_SMMUEN, REG } from "../../../../host/arch/smmuv3/registers.ts";
import { COMMANDS_LOG2, Guest, type GuestOptions, MSI_PAGE, PLACE } from "./guest.ts";

const CERROR_ILL = 1;
const CERROR_ABT = 2;
const CERROR_ATC_INV_SYNC = 3;

/** A guest with a nested device 1, and device 2 with ATS on. */
function ready(options: GuestOptions = {}): Guest {
  const guest = new Guest(options);
  guest.plug(1);
  guest.plug(2, { ats: true });
  guest.bringUp();
  guest.writeStage1Stream(1);
  guest.writeStage1Stream(2, PLACE.contexts, { EATS: 1 });
  guest.run(["CFGI_STE_RANGE", { Range: 31 }]);
  guest.host.batches.length = guest.host.calls.length = 0;
  return guest;
}

describe("batches", () => {
  it("what stands between two CMD_SYNCs is one host call, in order", () => {
    const guest = ready();
    guest.queue(
      ["TLBI_NH_ASID", { ASID: 3 }],
      ["CFGI_CD", { SID: 1, SSID: 5, Leaf: 1 }],
      ["SYNC"],
      ["TLBI_NSNH_ALL"],
      ["SYNC"],
    );
    guest.ring();
    expect(guest.host.batches).toEqual([
      [encodeCommand("TLBI_NH_ASID", { ASID: 3 }), encodeCommand("CFGI_CD", { SID: 1, SSID: 5, Leaf: 1 })],
      [encodeCommand("TLBI_NSNH_ALL")],
    ]);
    expect(guest.cons).toBe(guest.prod);
  });

  it("invalidations without a CMD_SYNC behind them reach the host too, at the end of the queue", () => {
    const guest = ready();
    guest.queue(["TLBI_NH_ALL"]);
    guest.ring();
    expect(guest.host.batches).toEqual([[encodeCommand("TLBI_NH_ALL")]]);
    expect(guest.cons).toBe(guest.prod);
  });

  it("the guest's VMID, and bits that a command does not define, stay here (§4.4.1: RES0 without stage 2)", () => {
    const guest = ready();
    const [word0, word1] = encodeCommand("TLBI_NH_VA", { ASID: 3, VMID: 0xbeef, Leaf: 1, TTL128: 1, Address: 0x12345 });
    guest.queueWords([word0 | (0x1fn << 26n), word1 | (0x3fn << 1n)]);
    guest.ring();
    expect(guest.host.batches).toEqual([[encodeCommand("TLBI_NH_VA", { ASID: 3, Leaf: 1, Address: 0x12345 })]]);
  });

  it("a range goes as it is; TG = 0 has none (§4.4.1.1)", () => {
    const guest = ready();
    const range = { ASID: 1, NUM: 3, SCALE: 2, TG: 1, TTL: 3, Leaf: 1, Address: 0x400 };
    guest.run(["TLBI_NH_VA", range], ["TLBI_NH_VAA", { NUM: 7, SCALE: 1, TTL: 2, Address: 9 }]);
    expect(guest.host.batches).toEqual([
      [encodeCommand("TLBI_NH_VA", range), encodeCommand("TLBI_NH_VAA", { Address: 9 })],
    ]);
  });

  it("commands for streams that nobody has do nothing (§4.3: no effect)", () => {
    const guest = ready();
    guest.run(["CFGI_CD", { SID: 40 }], ["CFGI_CD_ALL", { SID: 0xffffffff }], ["CFGI_STE", { SID: 41 }]);
    expect(guest.host.batches).toEqual([]);
    expect(guest.cons).toBe(guest.prod);
  });

  it("CMD_ATC_INV goes to devices whose stream has ATS on alone (§4.5.1)", () => {
    const guest = ready();
    const fields = { SSV: 1, SSID: 7, Global: 1, Size: 52 };
    guest.run(["ATC_INV", { ...fields, SID: 1 }], ["ATC_INV", { ...fields, SID: 2 }]);
    expect(guest.host.batches).toEqual([[encodeCommand("ATC_INV", { ...fields, SID: 2 })]]);
  });

  it("while SMMUEN is 0 CMD_ATC_INV is ignored, TLB invalidations are not (§6.3.9)", () => {
    const guest = ready();
    guest.write32(REG.CR0, CR0_CMDQEN | CR0_EVENTQEN);
    guest.host.batches.length = 0;
    guest.run(["ATC_INV", { SID: 2, Size: 52 }], ["TLBI_NH_ALL"]);
    expect(guest.host.batches).toEqual([[encodeCommand("TLBI_NH_ALL")]]);
  });

  it("a full queue of invalidations is done within one write", () => {
    const guest = ready();
    const all = 2 ** COMMANDS_LOG2;
    for (let i = 0; i < all; i++) guest.queue(["TLBI_NH_ASID", { ASID: i }]);
    guest.ring();
    expect(guest.host.batches.flat()).toHaveLength(all);
    expect(guest.cons).toBe(guest.prod);
  });

  it("entries are read again before the batch that follows them: new contexts are installed, then invalidated", () => {
    const guest = ready();
    guest.writeStage1Stream(1, PLACE.contexts + 64n);
    const order: string[] = [];
    const { host } = guest;
    const setNested = host.setNested.bind(host);
    host.setNested = (device, data) => {
      order.push("install");
      return setNested(device, data);
    };
    const invalidate = host.invalidate.bind(host);
    host.invalidate = (batch, count) => {
      order.push("invalidate");
      return invalidate(batch, count);
    };
    guest.run(["CFGI_STE", { SID: 1 }], ["TLBI_NH_ALL"]);
    expect(order).toEqual(["install", "invalidate"]);
  });
});

describe("illegal commands", () => {
  const never: readonly [string, readonly [bigint, bigint]][] = [
    ["TLBI_S2_IPA (no stage 2)", encodeCommand("TLBI_S2_IPA", { VMID: 1 })],
    ["TLBI_S12_VMALL (no stage 2)", encodeCommand("TLBI_S12_VMALL", { VMID: 1 })],
    ["TLBI_EL2_ALL (no Hyp)", encodeCommand("TLBI_EL2_ALL")],
    ["TLBI_EL2_ASID (no Hyp)", encodeCommand("TLBI_EL2_ASID", { ASID: 1 })],
    ["TLBI_EL2_VA (no Hyp)", encodeCommand("TLBI_EL2_VA", { ASID: 1 })],
    ["TLBI_EL2_VAA (no Hyp)", encodeCommand("TLBI_EL2_VAA")],
    ["TLBI_EL3_ALL", [0x18n, 0n]],
    ["TLBI_EL3_VA", [0x1an, 0n]],
    ["a reserved range: TG with NUM = SCALE = TTL = 0 (§4.4.1.1)", encodeCommand("TLBI_NH_VA", { TG: 1, ASID: 1 })],
    ["the same of TLBI_NH_VAA", encodeCommand("TLBI_NH_VAA", { TG: 3 })],
    ["SSec = 1 (§4.1.5)", encodeCommand("CFGI_STE", { SSec: 1, SID: 1 })],
    ["SSec = 1 of CMD_SYNC", encodeCommand("SYNC", { SSec: 1 })],
    ["CMD_SYNC with CS = 3 (§4.6.3)", encodeCommand("SYNC", { CS: 3 })],
    ["CMD_ATC_INV of more than everything", encodeCommand("ATC_INV", { SID: 2, Size: 53 })],
    ["CMD_PRI_RESP (no PRI)", encodeCommand("PRI_RESP", { SID: 2, Resp: 2 })],
    ["CMD_RESUME (terminate only)", encodeCommand("RESUME", { SID: 1, Ac: 1 })],
    ["CMD_STALL_TERM (terminate only)", encodeCommand("STALL_TERM", { SID: 1 })],
    ["CMD_CFGI_VMS_PIDM (no MPAM)", [0x07n, 0n]],
    ["a Secure command", [0x50n, 0n]],
    ["opcode 0", [0n, 0n]],
    ["an implementation-defined opcode", [0x80n, 0n]],
  ];

  for (const [what, words] of never) {
    it(`${what} is the guest's own CERROR_ILL and never reaches the host (§7.1)`, () => {
      const guest = ready();
      guest.queue(["TLBI_NH_ASID", { ASID: 1 }]);
      const place = guest.prod;
      guest.queueWords(words);
      guest.queue(["TLBI_NSNH_ALL"], ["SYNC"]);
      guest.ring();
      expect(guest.host.batches).toEqual([[encodeCommand("TLBI_NH_ASID", { ASID: 1 })]]);
      expect([guest.commandError, guest.cons]).toEqual([CERROR_ILL, place]);
    });
  }

  it("without ATS CMD_ATC_INV is one too", () => {
    const guest = ready({ configuration: { ats: false } });
    guest.run(["ATC_INV", { SID: 2, Size: 52 }]);
    expect(guest.commandError).toBe(CERROR_ILL);
  });

  it("Linux's way out: the command becomes a CMD_SYNC, GERRORN the acknowledgement, and the queue goes on without a write of PROD", () => {
    const guest = ready();
    const place = guest.prod;
    guest.queueWords([0n, 0n]);
    guest.queue(["TLBI_NH_ALL"], ["SYNC"]);
    guest.ring();
    expect(guest.cons).toBe(place);
    guest.ring();
    expect(guest.cons).toBe(place);
    const at = PLACE.commands + BigInt((place & (2 ** COMMANDS_LOG2 - 1)) * 16);
    guest.store64(at, encodeCommand("SYNC")[0]);
    guest.acknowledgeErrors();
    expect([guest.commandError, guest.cons]).toEqual([0, guest.prod]);
    expect(guest.host.batches).toEqual([[encodeCommand("TLBI_NH_ALL")]]);
  });

  it("turning CMDQEN off and on does not clear the error (§6.3.9)", () => {
    const guest = ready();
    guest.queueWords([0n, 0n]);
    guest.ring();
    guest.write32(REG.CR0, CR0_EVENTQEN | CR0_SMMUEN);
    guest.write32(REG.CR0, CR0_EVENTQEN | CR0_SMMUEN | CR0_CMDQEN);
    expect(guest.commandError).toBe(CERROR_ILL);
  });

  it("a queue that memory refuses is CERROR_ABT at its first command (§7.1)", () => {
    const guest = ready();
    guest.write32(REG.CR0, CR0_EVENTQEN | CR0_SMMUEN);
    guest.write64(REG.CMDQ_BASE, 0x1000_0000n | 4n);
    guest.write32(REG.CMDQ_PROD, 2);
    guest.write32(REG.CMDQ_CONS, 1);
    guest.write32(REG.CR0, CR0_EVENTQEN | CR0_SMMUEN | CR0_CMDQEN);
    expect([guest.commandError, guest.cons]).toEqual([CERROR_ABT, 1]);
  });

  it("PROD and CONS that cannot be of one queue are left alone (§3.5.1)", () => {
    const guest = ready();
    const { total } = guest.smmu.commands;
    guest.write32(REG.CMDQ_PROD, (guest.prod + 2 ** COMMANDS_LOG2 + 1) & (2 ** (COMMANDS_LOG2 + 1) - 1));
    expect(guest.smmu.commands.total).toBe(total);
  });
});

describe("the host's refusals", () => {
  const three: [CommandName, Record<string, number>][] = [
    ["TLBI_NH_ASID", { ASID: 1 }],
    ["TLBI_NH_ASID", { ASID: 2 }],
    ["TLBI_NH_ASID", { ASID: 3 }],
  ];

  it("CONS stands exactly at the entry where the host stopped", () => {
    const guest = ready();
    const place = guest.prod;
    guest.host.nextReply = { done: 1, errno: -5 };
    guest.run(...three);
    expect([guest.commandError, guest.cons]).toEqual([CERROR_ILL, place + 1]);
    guest.acknowledgeErrors();
    expect(guest.host.batches.at(-1)).toEqual(three.slice(1).map(([name, fields]) => encodeCommand(name, fields)));
    expect(guest.cons).toBe(guest.prod);
  });

  it("EFAULT is CERROR_ABT", () => {
    const guest = ready();
    guest.host.nextReply = { done: 0, errno: -14 };
    guest.run(...three);
    expect(guest.commandError).toBe(CERROR_ABT);
  });

  it("a reply that claims more than was asked, or nothing, is no progress", () => {
    for (const done of [99, -1, Number.NaN]) {
      const guest = ready();
      const place = guest.prod;
      guest.host.nextReply = { done, errno: 0 };
      guest.run(...three);
      expect([guest.commandError, guest.cons]).toEqual([CERROR_ILL, place]);
    }
  });

  it("an ATS invalidation that timed out is CERROR_ATC_INV_SYNC at the CMD_SYNC behind it, the rest done (§7.1)", () => {
    const guest = ready();
    guest.host.nextReply = { done: 0, errno: -110 };
    guest.queue(["ATC_INV", { SID: 2, Size: 52 }], ["TLBI_NH_ALL"]);
    const place = guest.prod;
    guest.queue(["SYNC"]);
    guest.ring();
    expect(guest.host.batches.at(-1)).toEqual([encodeCommand("TLBI_NH_ALL")]);
    expect([guest.commandError, guest.cons]).toEqual([CERROR_ATC_INV_SYNC, place]);
    guest.acknowledgeErrors();
    expect([guest.commandError, guest.cons]).toEqual([0, guest.prod]);
  });
});

describe("CMD_SYNC", () => {
  it("CS = IRQ stores MSIData at MSIAddress, even over itself (as Linux polls), once CONS has passed (§4.6.3)", () => {
    const guest = ready();
    const at = PLACE.commands + BigInt((guest.prod & (2 ** COMMANDS_LOG2 - 1)) * 16);
    guest.queue(["SYNC", { CS: 1, MSIAddress: at >> 2n, MSIData: 0 }]);
    guest.ring();
    expect(guest.load64(at) & 0xffffffffn).toBe(0n);
    expect(guest.cons).toBe(guest.prod);
  });

  it("a message that nobody takes is MSI_CMDQ_ABT_ERR, and the queue goes on (§7.5)", () => {
    const guest = ready();
    guest.run(["SYNC", { CS: 1, MSIAddress: 0x1000_0000n >> 2n }]);
    expect((guest.read32(REG.GERROR) ^ guest.read32(REG.GERRORN)) & (1 << 4)).not.toBe(0);
    expect(guest.cons).toBe(guest.prod);
  });

  it("CS = IRQ without an address goes by wire, where there are wires", () => {
    const guest = ready();
    guest.queue(["SYNC", { CS: 1 }]);
    guest.ring();
    expect(guest.wireChanges.filter(([wire]) => wire === 2)).toEqual([
      [2, true],
      [2, false],
    ]);
    const silent = ready({ configuration: { interrupts: "msi" } });
    silent.queue(["SYNC", { CS: 1 }]);
    silent.ring();
    expect(silent.wireChanges).toEqual([]);
  });

  it("without MSIs its address is RES0: the wire (§6.3.1)", () => {
    const guest = ready({ configuration: { interrupts: "wired" } });
    guest.queue(["SYNC", { CS: 1, MSIAddress: MSI_PAGE >> 2n, MSIData: 7 }]);
    guest.ring();
    expect(guest.messages).toEqual([]);
    expect(guest.wireChanges).toContainEqual([2, true]);
  });

  it("CS = SEV and none complete silently", () => {
    const guest = ready();
    guest.queue(["SYNC", { CS: 2 }], ["SYNC"]);
    guest.ring();
    expect([guest.cons, guest.messages, guest.wireChanges]).toEqual([guest.prod, [], []]);
  });

  it("host events that had arrived are in the queue when it is passed (§4.6.3)", () => {
    const guest = ready();
    const record = new Uint8Array(32);
    new DataView(record.buffer).setBigUint64(0, 0x1_0000_000an, true);
    guest.host.deliver({ kind: "fault", record });
    guest.run();
    expect(guest.takeEvents()).toMatchObject([{ number: 0x0a, streamId: 1 }]);
  });

  it("prefetches do nothing", () => {
    const guest = ready();
    guest.run(["PREFETCH_CONFIG", { SID: 1 }], ["PREFETCH_ADDR", { SID: 1, Address: 5 }]);
    expect([guest.cons, guest.host.batches]).toEqual([guest.prod, []]);
  });
});
