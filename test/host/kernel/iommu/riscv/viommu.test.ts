// vIOMMUs over the real hardware model: tags, forwarded commands, unmaps in the parent.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  ATS_INVAL,
  commandName,
  encodeCommand,
  IODIR_INVAL_DDT,
  IODIR_INVAL_PDT,
  IOTINVAL_VMA,
} from "../../../../../host/arch/riscv/commands.ts";
import { NO_PASID } from "../../../../../host/devices/ports.ts";
import { ACCESS_READ, ACCESS_WRITE, TRANSLATED } from "../../../../../host/hw/iommu/port.ts";
import { EBUSY, EINVAL, EIO, EOPNOTSUPP } from "../../../../../host/uapi/errno.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import { GuestRam, GuestSv39, RAM_GPA } from "../../guest.ts";
import { type Machine, type MachineOptions, machine, name, type User } from "../../machine.ts";

const [A, B] = [0x0108, 0x0110];
const IOVA = 0x4000_0000n;
const PSCID = 7;

interface Assigned {
  readonly rid: number;
  readonly vfio: number;
  readonly device: number;
}

function setUp(options: MachineOptions = { devices: [{ rid: A }, { rid: B }] }) {
  const host = machine(options);
  host.assign();
  const user = host.user();
  const ram = new GuestRam();
  const va = user.process.memory.mapBuffer(ram.buffer, 0, ram.buffer.byteLength);
  const iommufd = user.iommufd();
  const ioas = user.ioas(iommufd);
  user.map(iommufd, ioas, va, ram.buffer.byteLength, RAM_GPA);
  const take = (rid: number): Assigned => {
    const vfio = user.open(host.vfio.nodeOf(name(rid))!);
    return { rid, vfio, device: user.bind(vfio, iommufd) };
  };
  const [a, b] = [take(A), take(B)];
  const parent = user.hwpt(iommufd, a.device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT });
  const end = () => {
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  };
  return { host, user, ram, va, iommufd, ioas, a, b, parent, end };
}

/** Installs a first stage that maps IOVA to a page of its own; its tables. */
function install(
  { user, iommufd, ram }: ReturnType<typeof setUp>,
  viommu: number,
  { device, vfio }: Assigned,
): { stage: GuestSv39; page: bigint } {
  const stage = new GuestSv39(ram);
  const page = ram.page();
  stage.map(IOVA, page);
  const words = { tc: 1n, fsc: stage.fsc, ta: BigInt(PSCID) << 12n };
  const nested = user.nested(iommufd, device, viommu, words);
  expect(user.attach(vfio, nested)).toBe(nested);
  return { stage, page };
}

/** Host frame that a read of an IOVA reaches, -1 when refused. */
function reach(host: Machine, rid: number, iova = IOVA): number {
  const iommu = host.iommus[0]!;
  const status = iommu.translate(rid, NO_PASID, false, ACCESS_READ, Number(iova >> 12n), 0, false, 0);
  return status === TRANSLATED ? iommu.resultPfn : -1;
}

describe("two vIOMMUs on one parent", () => {
  it("never mix the PSCIDs of their guests", () => {
    const parts = setUp();
    const { host, user, iommufd, a, b, parent, end } = parts;
    const first = user.viommu(iommufd, a.device, parent);
    const second = user.viommu(iommufd, b.device, parent);
    user.vdevice(iommufd, first, a.device, 0x10n);
    user.vdevice(iommufd, second, b.device, 0x10n);
    install(parts, first, a);
    install(parts, second, b);
    const [fromA, fromB] = [reach(host, A), reach(host, B)];
    expect(fromA).toBeGreaterThan(0);
    expect(fromB).toBeGreaterThan(0);
    expect(fromA).not.toBe(fromB);
    expect([reach(host, A), reach(host, B)]).toEqual([fromA, fromB]);
    end();
  });

  it("have invalidations of their own: one guest's does not reach the other's cache", () => {
    const parts = setUp();
    const { host, user, iommufd, a, b, parent, ram, end } = parts;
    const first = user.viommu(iommufd, a.device, parent);
    const second = user.viommu(iommufd, b.device, parent);
    user.vdevice(iommufd, first, a.device, 0x10n);
    user.vdevice(iommufd, second, b.device, 0x10n);
    const [inA, inB] = [install(parts, first, a), install(parts, second, b)];
    const [oldA, oldB] = [reach(host, A), reach(host, B)];
    const fresh = ram.page();
    inA.stage.map(IOVA, fresh);
    inB.stage.map(IOVA, fresh);
    user.invalidate(iommufd, first, [encodeCommand("IOTINVAL.VMA", { PSCV: 1, PSCID })]);
    expect(reach(host, A)).not.toBe(oldA);
    expect(reach(host, B)).toBe(oldB);
    user.invalidate(iommufd, second, [encodeCommand("IOTINVAL.VMA")]);
    expect(reach(host, B)).toBe(reach(host, A));
    end();
  });

  it("both lose what an unmap in the parent takes away", () => {
    const parts = setUp();
    const { host, user, iommufd, ioas, a, b, parent, end } = parts;
    const first = user.viommu(iommufd, a.device, parent);
    const second = user.viommu(iommufd, b.device, parent);
    user.vdevice(iommufd, first, a.device, 0x10n);
    user.vdevice(iommufd, second, b.device, 0x20n);
    install(parts, first, a);
    install(parts, second, b);
    expect([reach(host, A), reach(host, B)].every((frame) => frame > 0)).toBe(true);
    expect(user.unmap(iommufd, ioas, RAM_GPA, 1n << 20n)).toBe(0);
    expect([reach(host, A), reach(host, B)]).toEqual([-1, -1]);
    end();
  });

  it("a device on the parent itself loses it too", () => {
    const { host, user, iommufd, ioas, a, parent, end } = setUp();
    user.attach(a.vfio, parent);
    expect(reach(host, A, RAM_GPA)).toBeGreaterThan(0);
    user.unmap(iommufd, ioas, RAM_GPA, 1n << 20n);
    expect(reach(host, A, RAM_GPA)).toBe(-1);
    end();
  });
});

describe("a guest's commands", () => {
  function one() {
    const parts = setUp();
    const { user, iommufd, a, b, parent } = parts;
    const viommu = user.viommu(iommufd, a.device, parent);
    user.vdevice(iommufd, viommu, a.device, 0x10n);
    user.vdevice(iommufd, viommu, b.device, 0xabcdefn);
    return { ...parts, viommu };
  }
  /** Commands that the hardware executed meanwhile, fences left out. */
  const executed = (host: Machine, act: () => void): string[] => {
    host.events.length = 0;
    host.record();
    act();
    return host.events.flatMap((event) =>
      event.type === "command" && event.name !== "IOFENCE.C"
        ? [event.text.replace(/ GSCID=0x[0-9a-f]+/, " GSCID=own")]
        : [],
    );
  };

  it("get the host's device ids, and the vIOMMU's GSCID whatever the guest wrote there", () => {
    const { host, user, iommufd, viommu, end } = one();
    const commands = [
      encodeCommand("IOTINVAL.VMA", { GV: 1, GSCID: 0x77, PSCV: 1, PSCID: 9, AV: 1, ADDR: 5 }),
      encodeCommand("IODIR.INVAL_DDT", { DV: 1, DID: 0xabcdef }),
      encodeCommand("IODIR.INVAL_PDT", { DV: 1, DID: 0x10, PID: 3 }),
    ];
    const seen = executed(host, () => {
      expect(user.invalidate(iommufd, viommu, commands)).toEqual({ result: 0, done: 3 });
    });
    expect(seen).toEqual([
      expect.stringMatching(/^IOTINVAL.VMA AV=1 PSCID=0x9 PSCV=1 GV=1 GSCID=own/),
      "IODIR.INVAL_DDT DV=1 DID=0x110",
      "IODIR.INVAL_PDT PID=0x3 DV=1 DID=0x108",
    ]);
    end();
  });

  it("INVAL_DDT without a device becomes one for each vDEVICE", () => {
    const { host, user, iommufd, viommu, end } = one();
    const seen = executed(host, () => user.invalidate(iommufd, viommu, [encodeCommand("IODIR.INVAL_DDT")]));
    expect(seen.sort()).toEqual(["IODIR.INVAL_DDT DV=1 DID=0x108", "IODIR.INVAL_DDT DV=1 DID=0x110"]);
    end();
  });

  it.each<[string, readonly [bigint, bigint]]>([
    ["IOTINVAL.GVMA", encodeCommand("IOTINVAL.GVMA")],
    ["IOFENCE.C", encodeCommand("IOFENCE.C")],
    ["ATS.PRGR", encodeCommand("ATS.PRGR", { RID: 0x10, PRGI: 1 })],
    ["an unknown device", encodeCommand("IODIR.INVAL_DDT", { DV: 1, DID: 0x11 })],
    ["INVAL_PDT without a device", encodeCommand("IODIR.INVAL_PDT", { PID: 1 })],
    ["INVAL_DDT with a process", encodeCommand("IODIR.INVAL_DDT", { DV: 1, DID: 0x10, PID: 1 })],
    ["an ATS.INVAL for an unknown device", encodeCommand("ATS.INVAL", { RID: 0x11 })],
    ["an opcode that does not exist", [0x7fn, 0n]],
    ["a function that does not exist", [1n | (5n << 7n), 0n]],
    ["a reserved bit", [encodeCommand("IOTINVAL.VMA")[0] | (1n << 11n), 0n]],
    ["a reserved bit of the second doubleword", [encodeCommand("IODIR.INVAL_DDT")[0], 1n]],
  ])("are refused: %s; those before are done, those after are not", (_what, bad) => {
    const { host, user, iommufd, viommu, end } = one();
    const good = encodeCommand("IOTINVAL.VMA", { PSCV: 1, PSCID: 1 });
    const seen = executed(host, () => {
      expect(user.invalidate(iommufd, viommu, [good, good, bad, good])).toEqual({ result: -EIO, done: 2 });
    });
    expect(seen.length).toBe(2);
    end();
  });

  it("NL and S are refused where the hardware lacks them", () => {
    const devices = [{ rid: A }, { rid: B }];
    const { user, iommufd, a, parent, end } = setUp({ iommus: [{ capabilities: { NL: false, S: false } }], devices });
    const viommu = user.viommu(iommufd, a.device, parent);
    for (const fields of [
      { AV: 1, NL: 1 },
      { AV: 1, S: 1 },
    ]) {
      expect(user.invalidate(iommufd, viommu, [encodeCommand("IOTINVAL.VMA", fields)]).result).toBe(-EIO);
    }
    end();
  });

  it("of any kind never stop the host's queue", () => {
    const { host, user, iommufd, viommu, end } = one();
    const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
    const field = fc.constantFrom<bigint>(0n, 1n, 0x10n, 0xabcdefn);
    const shaped = fc.oneof(
      fc.tuple(word, word),
      fc.tuple(fc.constantFrom(1n, 2n, 3n, 4n), fc.nat(1), field, word).map(([opcode, f3, did, more]) => {
        const w0 = opcode | (BigInt(f3) << 7n) | (did << 40n) | (1n << 33n);
        return [w0, more & 0x3ffffffffffffe00n] as [bigint, bigint];
      }),
    );
    fc.assert(
      fc.property(fc.array(shaped, { maxLength: 6 }), (commands) => {
        const { result, done } = user.invalidate(iommufd, viommu, commands);
        expect([0, -EIO]).toContain(result);
        expect(done).toBeLessThanOrEqual(commands.length);
        // Whatever was accepted is a command with no bit set that it does not define.
        for (const [word0, word1] of commands.slice(0, done)) {
          const shape = {
            "IOTINVAL.VMA": IOTINVAL_VMA,
            "IODIR.INVAL_DDT": IODIR_INVAL_DDT,
            "IODIR.INVAL_PDT": IODIR_INVAL_PDT,
            "ATS.INVAL": ATS_INVAL,
          }[commandName(word0) as "IOTINVAL.VMA"];
          expect((word0 & ~shape.definedBits(0)) | (word1 & ~shape.definedBits(1))).toBe(0n);
        }
        expect(host.iommus[0]!.registers.mmioRead(72, 4) & 0x700).toBe(0);
      }),
      { numRuns: 300 },
    );
    end();
  });

  it("of another type, or to a vIOMMU that is gone, are refused", () => {
    const { user, iommufd, viommu, end } = one();
    const reply = user.call(iommufd, I.IOMMU_HWPT_INVALIDATE, I.iommuHwptInvalidate, {
      hwpt_id: viommu,
      data_type: 1,
    });
    expect(reply.result).toBe(-EINVAL);
    end();
  });
});

describe("dirty tracking of a nest parent", () => {
  it("sees what DMA wrote through a guest's first stage, by the guest-physical page", () => {
    const parts = setUp();
    const { host, user, ram, iommufd, ioas, a, end } = parts;
    const flags = I.IOMMU_HWPT_ALLOC_NEST_PARENT | I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
    // A page out of step with its frame: small leaves, exact bits.
    user.unmap(iommufd, ioas, RAM_GPA, 1n << 20n);
    const va = user.process.memory.mapBuffer(new ArrayBuffer(64 * 4096), 0, 64 * 4096);
    user.map(iommufd, ioas, parts.va, 1 << 20, RAM_GPA);
    user.map(iommufd, ioas, va + 4096n, 63 * 4096, 0x9000_0000n);
    const parent = user.hwpt(iommufd, a.device, ioas, { flags });
    const viommu = user.viommu(iommufd, a.device, parent);
    user.vdevice(iommufd, viommu, a.device, 0x10n);
    const stage = new GuestSv39(ram);
    stage.map(IOVA, 0x9000_0000n + 5n * 4096n);
    const nested = user.nested(iommufd, a.device, viommu, { tc: 1n, fsc: stage.fsc, ta: 7n << 12n });
    expect(user.attach(a.vfio, nested)).toBe(nested);
    const track = { hwpt_id: parent, flags: I.IOMMU_HWPT_DIRTY_TRACKING_ENABLE };
    user.must(iommufd, I.IOMMU_HWPT_SET_DIRTY_TRACKING, I.iommuHwptSetDirtyTracking, track);
    host.iommus[0]!.translate(A, NO_PASID, false, ACCESS_WRITE, Number(IOVA >> 12n), 0, false, 0);
    const data = user.scratch + 4096n;
    user.process.memory.bytes(data, 8).fill(0);
    const values = { hwpt_id: parent, iova: 0x9000_0000n, length: 63n * 4096n, page_size: 4096n, data };
    user.must(iommufd, I.IOMMU_HWPT_GET_DIRTY_BITMAP, I.iommuHwptGetDirtyBitmap, values);
    expect([...user.process.memory.bytes(data, 8)]).toEqual([1 << 5, 0, 0, 0, 0, 0, 0, 0]);
    end();
  });
});

describe("a vIOMMU's lifetime", () => {
  it("outlasts neither its vDEVICEs nor its nested HWPTs: EBUSY, and they stay as they are", () => {
    const parts = setUp();
    const { host, user, iommufd, a, parent, end } = parts;
    const viommu = user.viommu(iommufd, a.device, parent);
    const vdevice = user.vdevice(iommufd, viommu, a.device, 0x10n);
    install(parts, viommu, a);
    expect(user.destroy(iommufd, viommu)).toBe(-EBUSY);
    expect(user.destroy(iommufd, parent)).toBe(-EBUSY);
    expect(reach(host, A)).toBeGreaterThan(0);
    expect(vdevice).toBeGreaterThan(0);
    end();
  });

  it("needs the type and a nest parent", () => {
    const { user, iommufd, ioas, a, parent, end } = setUp();
    const plain = user.hwpt(iommufd, a.device, ioas);
    expect(user.viommu(iommufd, a.device, parent, 1)).toBe(-EOPNOTSUPP);
    expect(user.viommu(iommufd, a.device, plain)).toBe(-EINVAL);
    end();
  });

  it("a nested domain is refused to a device behind another IOMMU", () => {
    const parts = setUp({ iommus: [{}, {}], devices: [{ rid: A }, { rid: B, iommu: 1 }] });
    const { user, iommufd, a, b, parent, end } = parts;
    const viommu = user.viommu(iommufd, a.device, parent);
    const blocked = user.nested(iommufd, a.device, viommu, { tc: 0n });
    expect(user.attach(b.vfio, blocked)).toBe(-EINVAL);
    expect(user.vdevice(iommufd, viommu, b.device, 1n)).toBe(-EINVAL);
    // The parent itself spans both.
    expect(user.attach(b.vfio, parent)).toBe(parent);
    end();
  });

  it.each([
    ["Sv39x4", { Sv39x4: true, Sv48x4: false, Sv57x4: false }, 41n],
    ["Sv48x4", { Sv39x4: true, Sv48x4: true, Sv57x4: false }, 50n],
    ["Sv57x4", { Sv39x4: false, Sv48x4: false, Sv57x4: true }, 59n],
  ])("works over an %s second stage", (_mode, capabilities, addressBits) => {
    const parts = setUp({ iommus: [{ capabilities }], devices: [{ rid: A }, { rid: B }] });
    const { host, user, iommufd, ioas, va, a, parent, end } = parts;
    const viommu = user.viommu(iommufd, a.device, parent);
    user.vdevice(iommufd, viommu, a.device, 0x10n);
    install(parts, viommu, a);
    expect(reach(host, A)).toBeGreaterThan(0);
    // The aperture is what the mode translates.
    expect(user.map(iommufd, ioas, va, 4096, (1n << addressBits) - 4096n)).toBe(0);
    expect(user.map(iommufd, ioas, va, 4096, 1n << addressBits)).toBe(-EINVAL);
    end();
  });

  it("is refused, with its parent, by hardware without a second stage", () => {
    const capabilities = { Sv39x4: false, Sv48x4: false, Sv57x4: false, T2GPA: false };
    const host = machine({ iommus: [{ capabilities }] });
    host.assign();
    const user: User = host.user();
    const iommufd = user.iommufd();
    const device = user.bind(user.open(host.vfio.nodeOf(name(A))!), iommufd);
    const flags = I.IOMMU_HWPT_ALLOC_NEST_PARENT;
    expect(user.hwpt(iommufd, device, user.ioas(iommufd), { flags })).toBe(-EOPNOTSUPP);
    user.process.exit();
  });
});
