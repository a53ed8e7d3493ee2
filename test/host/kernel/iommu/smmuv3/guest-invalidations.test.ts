// HWPT_INVALIDATE on an SMMUv3 vIOMMU: what the hardware is given, in which batches, what `entry_num` says (Linux: arm_vsmmu_cache_invalidate,
// iommu_copy_struct_from_full_user_array).

import { describe, expect, it } from "vitest";
import { type CommandName, encodeCommand } from "../../../../../host/arch/smmuv3/commands.ts";
import { NO_PASID } from "../../../../../host/devices/ports.ts";
import { ACCESS_READ, TRANSLATED } from "../../../../../host/hw/iommu/port.ts";
import { EINVAL, EIO } from "../../../../../host/uapi/errno.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import * as S from "../../../../../host/uapi/smmuv3-nesting.ts";
import { ASID, B, GuestMachine, IOVA } from "./guest-machine.ts";

const E2BIG = 7;
const EFAULT = 14;
const [OF_A, OF_B] = [0x80000010n, 0x11n];

type Commands = readonly (readonly [bigint, bigint])[];

function setUp() {
  const machine = new GuestMachine();
  const b = machine.take(B);
  machine.vdevice(OF_A);
  machine.vdevice(OF_B, b);
  const { host } = machine;
  // What binding and the vDEVICEs left in the queue is done.
  machine.command("TLBI_NH_ALL");
  host.record();
  /** What the hardware executed meanwhile. */
  const executed = (act: () => unknown): string[] => {
    host.events.length = 0;
    act();
    return host.events.flatMap((event) => (event.type === "command" ? [event.text] : []));
  };
  const request = (values: Partial<Parameters<typeof I.iommuHwptInvalidate.encode>[0]>) => {
    const reply = machine.user.call(machine.iommufd, I.IOMMU_HWPT_INVALIDATE, I.iommuHwptInvalidate, {
      hwpt_id: machine.viommu,
      data_uptr: machine.user.scratch + 4096n,
      data_type: S.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
      entry_len: 16,
      entry_num: 1,
      ...values,
    });
    return { result: reply.result, done: reply.entry_num };
  };
  return { ...machine, machine, b, executed, request };
}

const nh = (count: number): Commands => Array.from({ length: count }, () => encodeCommand("TLBI_NH_ALL"));

describe("the hardware is given", () => {
  it.each<[CommandName, Record<string, bigint | number>, RegExp]>([
    ["TLBI_NSNH_ALL", {}, /^CMD_TLBI_NH_ALL VMID=0x1$/],
    ["TLBI_NH_ALL", { VMID: 9 }, /^CMD_TLBI_NH_ALL VMID=0x1$/],
    ["TLBI_NH_ASID", { VMID: 9, ASID: 5 }, /^CMD_TLBI_NH_ASID VMID=0x1 ASID=0x5$/],
    ["TLBI_NH_VA", { VMID: 9, ASID: 5, Leaf: 1, Address: 0x12345 }, /VMID=0x1 ASID=0x5 Leaf=1 Address=0x12345$/],
    ["TLBI_NH_VAA", { Address: 0x12345 }, /^CMD_TLBI_NH_VAA VMID=0x1 Address=0x12345$/],
    ["CFGI_CD", { SID: OF_A, SSID: 3, Leaf: 1 }, /^CMD_CFGI_CD SSID=0x3 SID=0x108 Leaf=1$/],
    ["CFGI_CD_ALL", { SID: OF_B }, /^CMD_CFGI_CD_ALL SID=0x110$/],
    ["ATC_INV", { SID: OF_A, Size: 52 }, /SID=0x108/],
  ])("for %s the same with the host's VMID and StreamID, and a CMD_SYNC", (commandName, fields, expected) => {
    const { machine, executed } = setUp();
    const commands = executed(() => expect(machine.command(commandName, fields)).toEqual({ result: 0, done: 1 }));
    expect(commands[0]).toMatch(expected);
    expect(commands[1]).toMatch(/^CMD_SYNC/);
    // One that fails is made again: A has no ATS, and never answers.
    expect(commands.slice(2).every((text) => commandName === "ATC_INV" && text.startsWith("CMD_SYNC"))).toBe(true);
    expect(machine.end()).toEqual([]);
  });

  it("63 commands and a CMD_SYNC at a time", () => {
    const { machine, executed } = setUp();
    for (const [count, batches] of [
      [1, [1]],
      [63, [63]],
      [64, [63, 1]],
      [200, [63, 63, 63, 11]],
    ] as const) {
      const commands = executed(() => expect(machine.invalidate(nh(count))).toEqual({ result: 0, done: count }));
      const lengths: number[] = [];
      let length = 0;
      for (const text of commands) {
        if (!text.startsWith("CMD_SYNC")) length++;
        else lengths.push(length);
        if (text.startsWith("CMD_SYNC")) length = 0;
      }
      expect([...lengths, length]).toEqual([...batches, 0]);
    }
    expect(machine.end()).toEqual([]);
  });
});

describe("entry_num", () => {
  it("is the index of the command that is refused, with EIO; what waited for its batch is counted and was never issued", () => {
    const { machine, executed } = setUp();
    const unknown = encodeCommand("CFGI_CD_ALL", { SID: 0x99 });
    for (const at of [0, 1, 62, 63, 64, 130]) {
      const commands = executed(() =>
        expect(machine.invalidate([...nh(at), unknown, ...nh(3)])).toEqual({ result: -EIO, done: at }),
      );
      expect(commands.filter((text) => text.startsWith("CMD_TLBI_NH_ALL")).length).toBe(at - (at % 63));
    }
    expect(machine.end()).toEqual([]);
  });

  it("stops at what the VMM has to do itself, and at what needs a second stage or EL2", () => {
    const { machine } = setUp();
    const refused: CommandName[] = [
      "PREFETCH_CONFIG",
      "CFGI_STE",
      "CFGI_STE_RANGE",
      "TLBI_EL2_ALL",
      "TLBI_EL2_VA",
      "TLBI_S12_VMALL",
      "TLBI_S2_IPA",
      "PRI_RESP",
      "RESUME",
      "STALL_TERM",
      "SYNC",
    ];
    for (const commandName of refused) expect(machine.command(commandName)).toEqual({ result: -EIO, done: 0 });
    expect(machine.globalErrors()).toEqual([0, 0]);
    expect(machine.end()).toEqual([]);
  });

  it("is 0 when the array cannot be copied as a whole, and nothing of it is issued", () => {
    const { machine, executed, request, user } = setUp();
    const unmapped = 0x7fff_0000_0000n;
    const commands = executed(() => {
      expect(request({ data_uptr: unmapped })).toEqual({ result: -EFAULT, done: 0 });
      // The second of two entries of 32 bytes has something in what the kernel does not know.
      const bytes = user.process.memory.bytes(user.scratch + 4096n, 64).fill(0);
      bytes[0] = 0x10;
      bytes[32] = 0x10;
      bytes[63] = 1;
      expect(request({ entry_len: 32, entry_num: 2 })).toEqual({ result: -E2BIG, done: 0 });
    });
    expect(commands).toEqual([]);
    const bytes = user.process.memory.bytes(user.scratch + 4096n, 64);
    bytes[63] = 0;
    expect(request({ entry_len: 32, entry_num: 2 })).toEqual({ result: 0, done: 2 });
    // A shorter entry is completed with zeros.
    expect(request({ entry_len: 8, entry_num: 2 })).toEqual({ result: -EIO, done: 1 });
    expect(machine.end()).toEqual([]);
  });

  it("is 0 with EINVAL for no entry at all, also of the right type, and for another type", () => {
    const { machine, request } = setUp();
    expect(request({ entry_num: 0 })).toEqual({ result: -EINVAL, done: 0 });
    expect(request({ data_type: 0 })).toEqual({ result: -EINVAL, done: 0 });
    expect(request({ data_type: 0xf0520004 })).toEqual({ result: -EINVAL, done: 0 });
    expect(machine.end()).toEqual([]);
  });
});

describe("a command that the hardware calls illegal", () => {
  it("and that Linux passes stops the host's queue for a moment; the caller is not told, and the queue goes on", () => {
    const { machine, executed } = setUp();
    // TG with NUM, SCALE and TTL 0 is Reserved (§4.4.1.1); SSec does not belong on this queue (§4.1.6).
    const reserved = encodeCommand("TLBI_NH_VA", { TG: 1, Address: 1 });
    const secure = encodeCommand("TLBI_NH_ALL", { SSec: 1 });
    for (const illegal of [reserved, secure]) {
      const [before] = machine.globalErrors();
      const commands = executed(() =>
        expect(machine.invalidate([...nh(2), illegal, ...nh(2)])).toEqual({ result: 0, done: 5 }),
      );
      const [error, acknowledged] = machine.globalErrors();
      expect(error).not.toBe(before);
      expect(acknowledged).toBe(error);
      expect(commands.filter((text) => text === "CMD_TLBI_NH_ALL VMID=0x1").length).toBe(4);
    }
    expect(machine.command("TLBI_NH_ALL")).toEqual({ result: 0, done: 1 });
    expect(machine.end()).toEqual([]);
  });
});

describe("invalidations of one vIOMMU", () => {
  it("do not reach what is cached under another parent's VMID", () => {
    const machine = new GuestMachine();
    const { a, host, ram } = machine;
    const b = machine.take(B);
    const other = machine.newViommu(machine.newParent(b), b);
    machine.vdevice(OF_A);
    machine.vdevice(OF_A, b, other);
    const { stage, entry } = machine.stage1();
    const [first, second] = [ram.page(), ram.page()];
    stage.map(IOVA, first);
    machine.install(entry);
    machine.install(entry, 0n, { device: b, viommu: other });
    const reach = (rid: number): number => {
      const smmu = host.iommus[0]!;
      const status = smmu.translate(rid, NO_PASID, false, ACCESS_READ, Number(IOVA >> 12n), 0, false, 0);
      return status === TRANSLATED ? smmu.resultPfn : -1;
    };
    const old = reach(a.rid);
    expect(reach(b.rid)).toBe(old);
    stage.map(IOVA, second);
    expect(machine.command("TLBI_NSNH_ALL")).toEqual({ result: 0, done: 1 });
    expect(reach(a.rid)).toBe(old + 1);
    expect(reach(b.rid)).toBe(old);
    expect(machine.invalidate([encodeCommand("TLBI_NH_ASID", { ASID })], other)).toEqual({ result: 0, done: 1 });
    expect(reach(b.rid)).toBe(old + 1);
    expect(machine.end()).toEqual([]);
  });
});
