// Interrupt remapping (VT-d §5.1, §9.9): from a device's dword write to an interrupt, or a fault.

import { describe, expect, it } from "vitest";
import { IRTE, remappableMessage } from "../../../../../host/arch/vtd/interrupt-remapping.ts";
import { GCMD_CFI, GCMD_IRE, GCMD_SIRTP, IRTA_EIME, REG } from "../../../../../host/arch/vtd/registers.ts";
import { CONSUMED, REFUSED, TRANSLATED } from "../../../../../host/hw/iommu/port.ts";
import { Machine, READ, WRITE } from "./machine.ts";

function remapping({ extended = false, size = 7, options = {} } = {}) {
  const machine = new Machine(options);
  machine.start();
  const table = machine.allocate(4);
  machine.write64(REG.IRTA, (BigInt(table) << 12n) | BigInt(size) | BigInt(extended ? IRTA_EIME : 0));
  machine.command(GCMD_SIRTP);
  machine.command(GCMD_IRE);
  const set = (index: number, fields: Record<string, number>): void => {
    const words = [0n, 0n];
    for (const [name, value] of Object.entries({ P: 1, ...fields }))
      IRTE.set(words, name as keyof typeof IRTE.fields, BigInt(value));
    machine.storeWords(table + (index >> 8), (index & 255) * 16, words);
  };
  const send = (source: number, address: number, data = 0) =>
    machine.status(source, BigInt(address), { access: WRITE, data });
  const ask = (source: number, index: number) => send(source, remappableMessage(index).address);
  const reason = (source: number, address: number, data = 0): number => {
    machine.takeFaults();
    return send(source, address, data) === REFUSED ? machine.takeReasons()[0]! : 0;
  };
  return { machine, table, set, send, ask, reason };
}

describe("remappable requests", () => {
  it("become what their entry says: destination and vector, whatever the device wrote", () => {
    const { machine, set, ask } = remapping();
    set(3, { V: 0x61, DST: 1 << 8 });
    expect(ask(0x108, 3)).toBe(CONSUMED);
    expect(machine.messages).toEqual([[0xfee01000, 0x61]]);
  });

  it("32-bit destinations with EIME, delivery mode and level beside the vector", () => {
    const { machine, set, ask } = remapping({ extended: true });
    set(3, { V: 0x61, DST: 5, DLM: 4, TM: 1, RH: 1, DM: 1 });
    ask(0x108, 3);
    expect(machine.messages).toEqual([[0xfee05000, 0x61 | (4 << 8) | 0xc000]]);
    expect(machine.unit.remappedInterrupt).toMatchObject({ logical: true, redirected: true, destination: 5 });
  });

  it("index is handle plus subhandle with SHV, whose upper data is reserved (20); beyond the table 21", () => {
    const { machine, set, send, reason } = remapping();
    set(7, { V: 0x33 });
    const shv = remappableMessage(4).address + 8;
    expect(send(0x108, shv, 3)).toBe(CONSUMED);
    expect(reason(0x108, shv, 0x10003)).toBe(0x20);
    expect(reason(0x108, remappableMessage(256).address)).toBe(0x21);
    send(0x108, remappableMessage(300).address);
    expect(machine.takeFaults()).toMatchObject([{ reason: 0x21, sourceId: 0x108, address: 300n << 48n }]);
  });

  it("absent 22, reserved 24, unreadable 23, source 26; FPD keeps the qualified ones out", () => {
    const { machine, table, set, reason } = remapping();
    const at = (index: number) => remappableMessage(index).address;
    expect(reason(0x108, at(1))).toBe(0x22);
    set(1, { P: 0, FPD: 1 });
    expect(reason(0x108, at(1))).toBeUndefined();
    set(2, { V: 1 });
    machine.store(table, 2 * 16 + 8, 1n << 20n);
    expect(reason(0x108, at(2))).toBe(0x24);
    set(2, { V: 1, IM: 1 });
    expect(reason(0x108, at(2))).toBe(0x24);
    set(4, { V: 1, SVT: 1, SID: 0x108 });
    expect(reason(0x108, at(4))).toBe(0);
    expect(reason(0x109, at(4))).toBe(0x26);
    machine.inject(table, 5 * 16);
    expect(reason(0x108, at(5))).toBe(0x23);
  });

  it("bus ranges: start in the high byte of SID, end in the low one", () => {
    const { set, ask } = remapping();
    set(4, { V: 1, SVT: 2, SID: 0x0103 });
    expect([0x0ff, 0x100, 0x3ff, 0x400].map((source) => ask(source, 4))).toEqual([
      REFUSED,
      CONSUMED,
      CONSUMED,
      REFUSED,
    ]);
  });

  it("entries are cached until the interrupt entry cache is told, by index and mask; absent ones never", () => {
    const { machine, set, ask } = remapping();
    expect(ask(0x108, 9)).toBe(REFUSED);
    set(9, { V: 1, DST: 1 << 8 });
    ask(0x108, 9);
    set(9, { V: 2, DST: 1 << 8 });
    ask(0x108, 9);
    machine.invalidate("interruptEntry", { G: 1, IIDX: 6, IM: 1 });
    ask(0x108, 9);
    machine.invalidate("interruptEntry", { G: 1, IIDX: 10, IM: 2 });
    ask(0x108, 9);
    set(9, { V: 3, DST: 1 << 8 });
    ask(0x108, 9);
    machine.invalidate("interruptEntry", {});
    ask(0x108, 9);
    expect(machine.messages.map(([, data]) => data)).toEqual([1, 1, 1, 2, 2, 3]);
  });

  it("SIRTP forgets them with ESIRTPS, not without", () => {
    const vectors = (ESIRTPS: boolean) => {
      const { machine, set, ask } = remapping({ options: { features: { ESIRTPS } } });
      set(9, { V: 1, DST: 1 << 8 });
      ask(0x108, 9);
      set(9, { V: 2, DST: 1 << 8 });
      machine.command(GCMD_SIRTP);
      ask(0x108, 9);
      return machine.messages.map(([, data]) => data);
    };
    expect([vectors(true), vectors(false)]).toEqual([
      [1, 2],
      [1, 1],
    ]);
  });
});

describe("compatibility format", () => {
  it("is blocked unless CFI is set, and always with EIME (25)", () => {
    const { machine, send, reason } = remapping();
    expect(reason(0x108, 0xfee01000, 0x31)).toBe(0x25);
    machine.command(GCMD_CFI);
    expect(send(0x108, 0xfee01000, 0x31)).toBe(TRANSLATED);
    expect(machine.unit.resultPfn).toBe(0xfee01);
    const extended = remapping({ extended: true });
    extended.machine.command(GCMD_CFI);
    expect(extended.reason(0x108, 0xfee01000, 0x31)).toBe(0x25);
  });

  it("passes with remapping off, whatever the format", () => {
    const machine = new Machine();
    machine.start();
    for (const address of [0xfee01000, remappableMessage(3).address])
      expect(machine.status(0x108, BigInt(address), { access: WRITE, data: 0x31 })).toBe(TRANSLATED);
  });
});

it("what is no dword write has no business there without a PASID (29); off altogether it passes", () => {
  const { machine } = remapping();
  expect(machine.reason(0x108, 0xfee01000n, { access: READ })).toBe(0x29);
  expect(machine.reason(0x108, 0xfee01000n, { access: WRITE, data: -1 })).toBe(0x29);
  expect(machine.reason(0x108, 0xfee01001n, { access: WRITE, data: 0 })).toBe(0x29);
  const off = new Machine();
  expect(off.request(0x108, 0xfee01000n)).toBe(0xfee01000n);
});
