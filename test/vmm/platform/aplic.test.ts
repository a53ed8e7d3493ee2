// Expectations: AIA specification chapter 4 (APLIC), MSI delivery mode, leaf supervisor domain.

import { describe, expect, it } from "vitest";
import { Aplic } from "../../../vmm/platform/aplic.ts";

const DOMAINCFG = 0;
const sourcecfg = (source: number) => 4 * source;
const target = (source: number) => 0x3000 + 4 * source;
const SETIPNUM = 0x1cdc;
const CLRIPNUM = 0x1ddc;
const SETIENUM = 0x1edc;
const CLRIENUM = 0x1fdc;

function aplic(sources = 96) {
  const sent: [hart: number, eiid: number][] = [];
  const it = new Aplic(sources, (hart, eiid) => sent.push([hart, eiid]));
  const write = (offset: number, value: number) => it.mmioWrite(offset, 4, value, 0);
  const read = (offset: number) => it.mmioRead(offset, 4);
  const enable = (source: number, mode: number, eiid: number) => {
    write(sourcecfg(source), mode);
    write(target(source), eiid);
    write(SETIENUM, source);
  };
  return { it, sent, write, read, enable };
}

describe("an APLIC in MSI mode (AIA 4.5)", () => {
  it("reads back domaincfg with bits 31:24 = 0x80 and DM set", () => {
    const { read, write } = aplic();
    write(DOMAINCFG, 0);
    write(DOMAINCFG, read(DOMAINCFG) | 0x104);
    expect(read(DOMAINCFG)).toBe(0x80000104);
  });

  it("forwards a rising edge once and clears the pending bit", () => {
    const { it: device, sent, write, read, enable } = aplic();
    write(DOMAINCFG, 0x104);
    enable(10, 4, 33);
    device.setWire(10, true);
    expect(sent).toEqual([[0, 33]]);
    expect(read(0x1c00)).toBe(0);
    device.setWire(10, false);
    device.setWire(10, true);
    expect(sent).toHaveLength(2);
  });

  it("keeps a level source silent after forwarding until software sets it pending while the input is high", () => {
    const { it: device, sent, write, enable } = aplic();
    write(DOMAINCFG, 0x104);
    enable(10, 6, 5);
    device.setWire(10, true);
    expect(sent).toHaveLength(1);
    write(SETIPNUM, 10);
    expect(sent).toHaveLength(2);
    device.setWire(10, false);
    write(SETIPNUM, 10);
    expect(sent).toHaveLength(2);
  });

  it("drops the pending bit of a level source when its input goes low", () => {
    const { it: device, read, write } = aplic();
    write(sourcecfg(3), 6);
    device.setWire(3, true);
    expect(read(0x1c00)).toBe(1 << 3);
    device.setWire(3, false);
    expect(read(0x1c00)).toBe(0);
  });

  it("shows rectified inputs, inverted for falling-edge and low-level sources, in in_clrip", () => {
    const { it: device, read, write } = aplic();
    write(sourcecfg(1), 6);
    write(sourcecfg(2), 7);
    device.setWire(1, true);
    expect(read(0x1d00)).toBe((1 << 1) | (1 << 2));
  });

  it("forwards what became pending before it was enabled", () => {
    const { it: device, sent, write } = aplic();
    write(DOMAINCFG, 0x104);
    write(sourcecfg(7), 4);
    write(target(7), 21);
    device.setWire(7, true);
    expect(sent).toEqual([]);
    write(SETIENUM, 7);
    expect(sent).toEqual([[0, 21]]);
  });

  it("forwards nothing while domaincfg.IE is clear, and all that waits when it is set", () => {
    const { it: device, sent, write, enable } = aplic();
    enable(7, 4, 21);
    device.setWire(7, true);
    expect(sent).toEqual([]);
    write(DOMAINCFG, 0x100);
    expect(sent).toEqual([[0, 21]]);
  });

  it("holds pending, enable and target of an inactive source at zero", () => {
    const { read, write } = aplic();
    write(target(5), 0x123);
    write(SETIENUM, 5);
    write(SETIPNUM, 5);
    expect([read(target(5)), read(0x1e00), read(0x1c00)]).toEqual([0, 0, 0]);
  });

  it("makes a source inactive when software tries to delegate it, for a leaf has no children", () => {
    const { read, write } = aplic();
    write(sourcecfg(5), 0x400);
    expect(read(sourcecfg(5))).toBe(0);
  });

  it("disables by clrienum and unpends by clripnum", () => {
    const { it: device, read, sent, write, enable } = aplic();
    enable(4, 4, 9);
    write(CLRIENUM, 4);
    device.setWire(4, true);
    expect(read(0x1c00)).toBe(1 << 4);
    write(CLRIPNUM, 4);
    write(DOMAINCFG, 0x100);
    write(SETIENUM, 4);
    expect(sent).toEqual([]);
  });

  it("ignores numbers past its last source", () => {
    const { it: device, sent, write } = aplic(8);
    write(DOMAINCFG, 0x100);
    for (const number of [0, 9, 1023, 0xffffffff]) {
      write(SETIPNUM, number);
      write(SETIENUM, number);
      device.setWire(number, true);
    }
    expect(sent).toEqual([]);
  });

  it("sends the hart index and identity of the target register", () => {
    const { it: device, sent, write, enable } = aplic();
    write(DOMAINCFG, 0x100);
    enable(1, 4, (3 << 18) | 77);
    device.setWire(1, true);
    expect(sent).toEqual([[3, 77]]);
  });
});
