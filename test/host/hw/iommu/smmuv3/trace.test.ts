// What the trace tells: walks, events, commands and interrupts of this kind, in the order they happen.

import { describe, expect, it } from "vitest";
import { IRQ_EVENTQ, REG } from "../../../../../host/arch/smmuv3/registers.ts";
import type { TracedEvent } from "../../../../../host/base/trace.ts";
import { Machine, USER_RW, WRITE } from "./machine.ts";

describe("the trace", () => {
  const traced = () => {
    const machine = new Machine();
    machine.start();
    const events: TracedEvent[] = [];
    machine.trace.addSink({ event: (event) => events.push(event) });
    return { machine, events };
  };
  const steps = (events: readonly TracedEvent[]) =>
    events.flatMap((event) => (event.type === "walk" ? [`${event.table} ${event.level}`] : []));

  it("has each entry of a walk once, whichever way it is walked, and a hit has none", () => {
    const { machine, events } = traced();
    const root = machine.makeFirstStage(1);
    machine.map(root, 0x10, 0x80500, USER_RW);
    machine.request(1, 0x10000n);
    const whole = ["STE 0", "CD 0", "stage1 0", "stage1 1", "stage1 2", "stage1 3"];
    expect(steps(events)).toEqual(whole);
    expect(events.every((event) => event.type !== "walk" || event.kind === "smmuv3")).toBe(true);
    events.length = 0;
    machine.request(1, 0x10000n);
    expect(events).toEqual([]);
    machine.request(1, 0x11000n);
    // The table that the walk before came to is remembered.
    expect(steps(events)).toEqual(whole.slice(4));
  });

  it("names an event, its stream and its addresses, and what followed from it", () => {
    const { machine, events } = traced();
    machine.makeFirstStage(1);
    machine.write32(REG.IRQ_CTRL, IRQ_EVENTQ);
    machine.request(1, 0x10008n, { access: WRITE });
    const fault = events.find((event) => event.type === "fault");
    expect(fault).toMatchObject({
      where: "hardware",
      kind: "smmuv3",
      faultCause: 0x10,
      deviceId: 1,
      iotval: 0x10008n,
      text: "F_TRANSLATION of stream 0x1: write at 0x10008, stage 1 (IN)",
    });
    expect(events.find((event) => event.type === "irq")).toMatchObject({ vector: 0, cause: fault?.seq });
  });

  it("has each command once", () => {
    const { machine, events } = traced();
    machine.command("TLBI_NH_ASID", { VMID: 1, ASID: 2 });
    expect(events.flatMap((event) => (event.type === "command" ? [event.text] : []))).toEqual([
      "CMD_TLBI_NH_ASID VMID=0x1 ASID=0x2",
      "CMD_SYNC",
    ]);
  });
});
