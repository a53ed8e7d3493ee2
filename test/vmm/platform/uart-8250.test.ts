import { describe, expect, it } from "vitest";
import { Uart8250 } from "../../../vmm/platform/uart-8250.ts";

const [THR, IER, IIR, LCR, MCR, LSR, MSR] = [0, 1, 2, 3, 4, 5, 6] as const;

function uart() {
  const it = new Uart8250();
  const sent: number[] = [];
  let wire = false;
  it.onOutput = (byte) => sent.push(byte);
  it.onWire = (level) => {
    wire = level;
  };
  return {
    it,
    sent,
    wire: () => wire,
    read: (register: number) => it.mmioRead(register, 1),
    write: (register: number, value: number) => it.mmioWrite(register, 1, value, 0),
  };
}

describe("an 8250", () => {
  it("sends what is stored in THR when DLAB is clear", () => {
    const { sent, write } = uart();
    write(THR, 0x41);
    expect(sent).toEqual([0x41]);
  });

  it("keeps the divisor apart from THR and IER while DLAB is set", () => {
    const { sent, read, write } = uart();
    write(LCR, 0x83);
    write(THR, 0x02);
    write(IER, 0x01);
    expect([read(THR), read(IER)]).toEqual([0x02, 0x01]);
    write(LCR, 0x03);
    expect(sent).toEqual([]);
    expect(read(IER)).toBe(0);
  });

  it("is always ready to send, and connected", () => {
    const { read } = uart();
    expect(read(LSR)).toBe(0x60);
    expect(read(MSR)).toBe(0xb0);
  });

  it("raises THR empty at once on every write that enables it", () => {
    const { read, wire, write } = uart();
    for (let round = 0; round < 2; round++) {
      write(IER, 0x02);
      expect(wire()).toBe(true);
      expect(read(IIR) & 0x0f).toBe(0x02);
      expect(read(IIR) & 0x0f).toBe(0x01);
      expect(wire()).toBe(false);
      write(IER, 0x00);
    }
  });

  it("raises THR empty again after a byte went out", () => {
    const { read, write } = uart();
    write(IER, 0x02);
    read(IIR);
    write(THR, 0x42);
    expect(read(IIR) & 0x0f).toBe(0x02);
  });

  it("shows received data in LSR and IIR until RBR is read", () => {
    const { it: device, read, wire, write } = uart();
    write(IER, 0x01);
    device.receive(0x61);
    expect(wire()).toBe(true);
    expect(read(IIR) & 0x0f).toBe(0x04);
    expect(read(LSR) & 1).toBe(1);
    expect(read(THR)).toBe(0x61);
    expect(wire()).toBe(false);
    expect(read(LSR) & 1).toBe(0);
  });

  it("shows its FIFOs in IIR once they are enabled", () => {
    const { read, write } = uart();
    expect(read(IIR)).toBe(0x01);
    write(IIR, 0x01);
    expect(read(IIR)).toBe(0xc1);
  });

  it("takes sixteen bytes, then refuses more instead of losing them", () => {
    const { it: device } = uart();
    const taken = Array.from({ length: 20 }, (_, i) => device.receive(i));
    expect(taken.filter(Boolean)).toHaveLength(16);
  });

  it("loops back instead of sending when MCR says so", () => {
    const { sent, read, write } = uart();
    write(MCR, 0x10);
    write(THR, 0x55);
    expect(sent).toEqual([]);
    expect(read(THR)).toBe(0x55);
  });
});
