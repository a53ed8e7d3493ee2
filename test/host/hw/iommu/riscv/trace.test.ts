import { describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../../../host/base/trace.ts";
import { A, D, Machine, R, U, USER_RW, USER_RWX, V, W, WRITE } from "./machine.ts";

/** Walk events as "table level[/serves]". */
const walks = (events: readonly TracedEvent[]): string[] =>
  events.flatMap((event) =>
    event.type === "walk"
      ? [`${event.table} ${event.level}${event.serves === undefined ? "" : `/${event.serves}`}`]
      : [],
  );

const build = (fields: object, leaf: number) => {
  const machine = new Machine({}, 1024);
  const events: TracedEvent[] = [];
  machine.enableFaultQueue();
  machine.enableCommandQueue();
  machine.useDirectory(1);
  const guest = machine.makeSecondStageRoot();
  machine.mapMemoryOneToOne(guest, 3, USER_RWX);
  const root = machine.makeRoot();
  const place = machine.map(root, 3, 0x10, 0x80100, leaf);
  machine.setDevice(1, { fsc_MODE: 8, fsc_PPN: root, iohgatp_MODE: 8, iohgatp_PPN: guest, GSCID: 1, ...fields });
  // Once untraced, so that the walker has its window of memory; then everything is forgotten.
  machine.request(1, 0x999000n);
  machine.command("IODIR.INVAL_DDT");
  machine.command("IOTINVAL.VMA", { GV: 1, GSCID: 1 });
  machine.trace.addSink({ event: (event) => events.push(event) });
  return { machine, events, place };
};

const second = (serves: number | null): string[] =>
  [2, 1, 0].map((level) => `stage2 ${level}${serves === null ? "" : `/${serves}`}`);
const table = (level: number): string[] => [...second(level), `stage1 ${level}`];

describe("a traced walk", () => {
  it("shows every load in order, with what each second-stage load serves", () => {
    const { machine, events } = build({}, USER_RW);
    expect(machine.request(1, 0x10000n, { access: WRITE })).toBe(0x80100000n);
    expect(walks(events)).toEqual(["DDT 0", ...table(2), ...table(1), ...table(0), ...second(null)]);
  });

  it("shows each load once where an entry needs a closer look", () => {
    const { machine, events } = build({ SADE: 1 }, V | R | W | U);
    expect(machine.request(1, 0x10000n, { access: WRITE })).toBe(0x80100000n);
    // Setting A and D goes through the second stage once more, as a write.
    expect(walks(events)).toEqual(["DDT 0", ...table(2), ...table(1), ...table(0), ...second(0), ...second(null)]);
  });

  it("gives the entry and the host address it was loaded from", () => {
    const { machine, events, place } = build({}, USER_RW);
    machine.request(1, 0x10000n);
    const leaf = events.find((event) => event.type === "walk" && event.table === "stage1" && event.level === 0);
    expect(leaf).toMatchObject({
      where: "host",
      deviceId: 1,
      space: "spa",
      address: (BigInt(place.frame) << 12n) | BigInt(place.offset),
      entry: machine.pte(place),
    });
  });

  it("translates as an untraced one does, and a fault has the walk before it", () => {
    const { machine, events } = build({}, V | R | U | A | D);
    expect(machine.request(1, 0x10000n, { access: WRITE })).toBeNull();
    expect(events.at(-1)).toMatchObject({ type: "fault", where: "hardware", faultCause: 15, iotval: 0x10000n });
    expect(walks(events).length).toBe(1 + 12);
  });

  it("commands are events, and what they cause has them as cause", () => {
    const { machine, events } = build({}, USER_RW);
    machine.write32(72, 3);
    machine.command("IOTINVAL.VMA", { GV: 1, GSCID: 1 });
    machine.queueWords(0x7fn, 0n);
    machine.iommu.drain();
    const commands = events.filter((event) => event.type === "command");
    expect(commands.map((event) => event.text)).toEqual([
      "IOTINVAL.VMA GV=1 GSCID=0x1",
      expect.stringMatching(/illegal/),
    ]);
    const irq = events.find((event) => event.type === "irq");
    expect(irq?.cause).toBe(commands[1]?.seq);
  });
});
