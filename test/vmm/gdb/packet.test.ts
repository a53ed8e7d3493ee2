// The packets' form, against the examples and rules of GDB's manual ("Overview" of the remote protocol).

import { describe, expect, it } from "vitest";
import { encodePacket, MOST_PAYLOAD, PacketReader, type Received } from "../../../vmm/gdb/packet.ts";

const bytes = (text: string): Uint8Array => Uint8Array.from(text, (one) => one.charCodeAt(0));
const take = (reader: PacketReader, text: string): Received[] => [...reader.take(bytes(text))];
const packet = (payload: string): Received => ({ kind: "packet", payload });

describe("packets", () => {
  it("carry the sum of their payload, modulo 256, as two digits", () => {
    expect(Buffer.from(encodePacket("OK")).toString()).toBe("$OK#9a");
    expect(Buffer.from(encodePacket("")).toString()).toBe("$#00");
  });

  it("escape # $ } and * by } and the byte XOR 0x20, which the sum is of", () => {
    const sent = Buffer.from(encodePacket("a#$}*b")).toString("latin1");
    expect(sent.slice(0, -2)).toBe("$a}\x03}\x04}]}\nb#");
    expect(take(new PacketReader(), sent)).toEqual([packet("a#$}*b")]);
  });

  it("come in any pieces, with acknowledgements and Ctrl-C between them", () => {
    const reader = new PacketReader();
    const got = [..."+$g#67\x03-$?#3f"].flatMap((one) => take(reader, one));
    expect(got).toEqual([{ kind: "acknowledged" }, packet("g"), { kind: "interrupt" }, { kind: "again" }, packet("?")]);
  });

  it("are damaged when sum, digits, escape or length are wrong, and the next one is whole again", () => {
    const reader = new PacketReader();
    for (const bad of ["$g#68", "$g#zz", "$g}#e4"]) expect(take(reader, bad)).toEqual([{ kind: "damaged" }]);
    const long = "a".repeat(MOST_PAYLOAD + 1);
    expect(take(reader, `$${long}#${(((MOST_PAYLOAD + 1) * 97) % 256).toString(16)}`)).toEqual([{ kind: "damaged" }]);
    // what was cut off by a new beginning
    expect(take(reader, "$gg$g#67")).toEqual([{ kind: "damaged" }, packet("g")]);
    expect(take(reader, "$g#6$g#67")).toEqual([{ kind: "damaged" }, packet("g")]);
  });
});
