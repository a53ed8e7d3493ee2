// An assigned NVMe drive under a guest's stage 1 on an SMMUv3: queues and data at IOVAs, both levels walked by the hardware.

import { describe, expect, it } from "vitest";
import { F_TRANSLATION } from "../../../../../host/arch/smmuv3/event-records.ts";
import { MemoryBlockStore } from "../../../../../host/devices/nvme/block-store.ts";
import { NvmeController } from "../../../../../host/devices/nvme/controller.ts";
import { name } from "../../machine.ts";
import { A, ASID, GuestMachine, must } from "./guest-machine.ts";

const RID = 0x0120;
const GUEST_STREAM = 0x30n;
/** IOVAs of the admin queues (NVMe 1.4 §7.6.1) and of the data. */
const [SUBMISSION, COMPLETION, DATA] = [0x10_0000n, 0x10_1000n, 0x10_2000n];
/** Register offsets (§3.1). */
const [CC, CSTS, AQA, ASQ, ACQ, DOORBELL] = [0x14, 0x1c, 0x24, 0x28, 0x30, 0x1000];
const IDENTIFY = 0x06;

describe("an assigned NVMe drive", () => {
  it("identifies itself into a page of the guest's stage 1, and fails when the guest has taken that away", () => {
    const machine = new GuestMachine({ devices: [{ rid: A }] });
    const { host, user, ram } = machine;
    const drive = new NvmeController({ name: name(RID), store: new MemoryBlockStore(1 << 20) });
    host.root.plug(RID, drive, host.iommus[0]!);
    must(host.kernel.pci.bind(name(RID), "vfio-pci"));
    const own = machine.take(RID);
    machine.vdevice(GUEST_STREAM, own);
    machine.listen();
    const { stage, entry } = machine.stage1();
    const [submission, completion, data] = [ram.page(), ram.page(), ram.page()];
    stage.map(SUBMISSION, submission);
    stage.map(COMPLETION, completion);
    stage.map(DATA, data);
    machine.install(entry, 0n, { device: own });

    const registers = user.process.mmapRegion(own.vfio, user.regionOffset(own.vfio, 0), 0x2000);
    if (typeof registers === "number") throw new Error(`mmap of BAR 0: ${registers}`);
    registers.mmioWrite(AQA, 4, (1 << 16) | 1, 0);
    registers.mmioWrite(ASQ, 8, Number(SUBMISSION), 0);
    registers.mmioWrite(ACQ, 8, Number(COMPLETION), 0);
    registers.mmioWrite(CC, 4, (4 << 20) | (6 << 16) | 1, 0);
    host.run(1_000_000);
    expect(registers.mmioRead(CSTS, 4) & 1).toBe(1);

    /** Identify Controller through entry `index` of the queue of two; its status. */
    const identify = (index: number): number => {
      const at = submission + BigInt(64 * index);
      ram.store(at, BigInt(IDENTIFY) | (BigInt(index + 1) << 16n));
      ram.store(at + 24n, DATA);
      ram.store(at + 40n, 1n);
      registers.mmioWrite(DOORBELL, 4, (index + 1) % 2, 0);
      host.run(10_000_000);
      registers.mmioWrite(DOORBELL + 4, 4, (index + 1) % 2, 0);
      return Number((ram.load(completion + BigInt(16 * index) + 8n) >> 49n) & 0x7ffn);
    };
    expect(identify(0)).toBe(0);
    expect(String.fromCharCode(...ram.at(data).subarray(24, 36))).toBe("nestbox NVMe");
    expect(machine.events()).toEqual([]);

    stage.unmap(DATA);
    machine.command("TLBI_NH_VA", { ASID, Address: DATA >> 12n });
    ram.at(data).fill(0);
    // Data Transfer Error (§4.5.1.2.1).
    expect(identify(1)).toBe(0x04);
    expect(ram.at(data).every((byte) => byte === 0)).toBe(true);
    const [event] = machine.events();
    expect(event).toMatchObject({ number: F_TRANSLATION, streamId: Number(GUEST_STREAM), read: false });
    expect((event?.inputAddress ?? 0n) >> 12n).toBe(DATA >> 12n);
    expect(machine.end()).toEqual([]);
  });
});
