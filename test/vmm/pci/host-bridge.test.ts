// Functions behind root ports, whose requester ids follow the bus numbers a guest writes (PCI-to-PCI Bridge 1.2 §3.2.5.4).

import { describe, expect, it } from "vitest";
import type { PciFunction } from "../../../host/devices/ports.ts";
import { PciHostBridge, UNREACHABLE } from "../../../vmm/pci/host-bridge.ts";

const SECONDARY_BUS = 0x19;
const PORT_A = 3 << 3;
const PORT_B = 4 << 3;

function endpoint(name: string): PciFunction {
  return { name, bars: [], configRead: () => 0, configWrite() {}, barBase: () => -1, connect() {}, reset() {} };
}

describe("functions of one slot", () => {
  it("say that there are several (Header Type bit 7, PCI 3.0 §6.2.1), however that is read; a function alone does not", () => {
    const pci = new PciHostBridge(256);
    pci.plug(0x10, endpoint("alone"));
    pci.plug(0x18, endpoint("first"));
    pci.plug(0x1b, endpoint("fourth"));
    const read = (id: number, offset: number, size: 1 | 2 | 4) => pci.configRead(id, offset, size);
    expect([read(0x10, 0x0e, 1), read(0x10, 0x0c, 4)]).toEqual([0, 0]);
    for (const id of [0x18, 0x1b]) {
      expect([read(id, 0x0e, 1), read(id, 0x0e, 2), read(id, 0x0c, 4)]).toEqual([0x80, 0x80, 0x80_0000]);
      expect([read(id, 0x0c, 1), read(id, 0x0c, 2), read(id, 0x0f, 1), read(id, 0x10, 4)]).toEqual([0, 0, 0, 0]);
    }
  });
});

describe("bus numbers that a guest swaps between two ports", () => {
  it("leave each function reachable on the other's bus, each id free before it is given again", () => {
    const pci = new PciHostBridge(256);
    const [a, b] = [endpoint("a"), endpoint("b")];
    pci.plugAt({ routingId: PORT_A, behind: 0 }, a);
    pci.plugAt({ routingId: PORT_B, behind: 0 }, b);
    pci.configWrite(PORT_A, SECONDARY_BUS, 1, 1);
    pci.configWrite(PORT_B, SECONDARY_BUS, 1, 2);
    const moves: [string, number, number][] = [];
    pci.onMoved = ({ name }, from, to) => void moves.push([name, from, to]);
    pci.configWrite(PORT_A, SECONDARY_BUS, 1, 2);
    pci.configWrite(PORT_B, SECONDARY_BUS, 1, 1);
    expect(pci.functions.get(0x200)).toBe(a);
    expect(pci.functions.get(0x100)).toBe(b);
    const owners = new Map([
      [0x100, "a"],
      [0x200, "b"],
    ]);
    for (const [name, from, to] of moves) {
      if (from !== UNREACHABLE) {
        expect(owners.get(from)).toBe(name);
        owners.delete(from);
      }
      if (to !== UNREACHABLE) {
        expect(owners.has(to)).toBe(false);
        owners.set(to, name);
      }
    }
    expect([...owners].sort()).toEqual([
      [0x100, "b"],
      [0x200, "a"],
    ]);
  });
});
