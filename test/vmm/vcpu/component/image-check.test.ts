// What boot refuses before anything runs, each with one line that says what does not fit.

import { readFileSync } from "node:fs";
import { parse } from "@bytecodealliance/jco";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkImage } from "../../../../vmm/vcpu/component/image-check.ts";
import { prepareComponent } from "../../../../vmm/vcpu/component/prepare.ts";
import { REGION_KINDS, WORLD_EXPORTS, WORLD_IMPORTS } from "../../../../vmm/vcpu/component/world.ts";
import { watGuest } from "./wat-guest.ts";

const WIT = readFileSync(new URL("../../../../guest-fixtures/wit/guest.wit", import.meta.url), "utf8");

describe("the check of an image against the world", () => {
  it("a guest that imports nothing but RAM fits", async () => {
    expect(checkImage(await watGuest("(i32.const 0)", { imports: "" }))).toBeNull();
  });

  it("a guest that imports everything fits: the VMM's table is the WIT's", async () => {
    const calls = `(drop (call $load8 (i32.const 0) (i32.const 0)))`;
    expect(checkImage(await watGuest(`${calls} (i32.const 0)`))).toBeNull();
  });

  it("the VMM's table has every function of the WIT and no other", () => {
    const functions: string[] = [];
    let space = "";
    for (const line of WIT.split("\n")) {
      const opened = /^interface ([a-z-]+)/.exec(line);
      if (opened !== null) space = opened[1]!;
      const declared = /^\s+([a-z0-9-]+): func\(/.exec(line);
      if (declared !== null) functions.push(`nestbox:guest/${space}@0.1.0 ${declared[1]}`);
    }
    const known = Object.entries(WORLD_IMPORTS).flatMap(([name, table]) =>
      Object.keys(table).map((key) => `${name} ${key}`),
    );
    expect(functions.length).toBeGreaterThan(15);
    expect(known.sort()).toEqual(functions.sort());
    expect(Object.keys(WORLD_EXPORTS)).toEqual(["run"]);
  });

  it("the region kinds stand in the WIT's order", () => {
    const body = /enum region-kind \{([^}]*)\}/.exec(WIT)![1]!;
    const kinds = body.split("\n").map((line) => /^\s+([a-z0-9-]+),/.exec(line)?.[1]);
    expect(kinds.filter((kind) => kind !== undefined)).toEqual([...REGION_KINDS]);
  });

  it("text is not WebAssembly", () => {
    expect(checkImage(new TextEncoder().encode("#!/bin/sh\necho no\n"))).toMatch(/^not a WebAssembly file/);
  });

  it("an empty file is not WebAssembly", () => {
    expect(checkImage(new Uint8Array(0))).toMatch(/^not a WebAssembly file/);
  });

  it("a core module is told from a component, and the line says what to do", async () => {
    const module = await parse("(module)");
    expect(checkImage(module)).toMatch(/^a core WebAssembly module, not a component; .*make-image/);
  });

  it("an import of another world is named", async () => {
    const bytes = await watGuest("(call $f (i32.const 0)) (i32.const 0)", {
      wit: "package some:other; interface clock { sleep: func(ns: u32); } world other { import clock; export run: func() -> u32; }",
      world: "other",
      imports: '(import "some:other/clock" "sleep" (func $f (param i32)))',
    });
    expect(checkImage(bytes)).toMatch(/another world: imports "some:other\/clock"/);
  });

  it("a function that our interface does not have is named", async () => {
    const bytes = await watGuest("(call $f)", {
      wit: "package nestbox:guest@0.1.0; interface mmio { load128: func() -> u32; } world guest { import mmio; export run: func() -> u32; }",
      imports: '(import "nestbox:guest/mmio@0.1.0" "load128" (func $f (result i32)))',
    });
    expect(checkImage(bytes)).toMatch(/imports "load128" of nestbox:guest\/mmio@0.1.0/);
  });

  it("a function with another signature is shown beside the world's", async () => {
    const bytes = await watGuest("(call $f (i64.const 0))", {
      wit: "package nestbox:guest@0.1.0; interface mmio { load32: func(address: u64) -> u32; } world guest { import mmio; export run: func() -> u32; }",
      imports: '(import "nestbox:guest/mmio@0.1.0" "load32" (func $f (param i64) (result i32)))',
    });
    expect(checkImage(bytes)).toContain("as func(u64) -> u32, but it is func(u32, u32) -> u32");
  });

  it("another version of the world is another world", async () => {
    const bytes = await watGuest("(drop (call $f)) (i32.const 0)", {
      wit: "package nestbox:guest@0.2.0; interface interrupts { poll: func() -> s32; } world guest { import interrupts; export run: func() -> u32; }",
      imports: '(import "nestbox:guest/interrupts@0.2.0" "poll" (func $f (result i32)))',
    });
    expect(checkImage(bytes)).toContain('"nestbox:guest/interrupts@0.2.0"');
  });

  it("a component without run is refused", async () => {
    const bytes = await watGuest("(i32.const 0)", {
      wit: "package some:other; world other {}",
      world: "other",
      imports: "",
    });
    expect(checkImage(bytes)).toMatch(/does not export run: func\(\) -> u32/);
  });

  it("a run of another type is refused", async () => {
    const bytes = await watGuest("(i32.const 0)", {
      wit: "package some:other; world other { export run: func() -> s32; }",
      world: "other",
      imports: "",
    });
    expect(checkImage(bytes)).toContain("exports run as func() -> s32, but it must be func() -> u32");
  });

  it("interfaces nested without end are damage, not our stack's end", () => {
    const depth = 100_000;
    const body = [1, ...Array.from({ length: depth }, () => [0x42, 1, 1]).flat()];
    const size = body.length;
    const header = [0, 0x61, 0x73, 0x6d, 0x0d, 0, 1, 0, 7, (size & 127) | 128, ((size >> 7) & 127) | 128, size >> 14];
    expect(checkImage(Uint8Array.from([...header, ...body]))).toContain("nested too deep");
  });

  it("a name with terminal sequences is shown with them escaped", async () => {
    const bytes = await watGuest("(i32.const 0)", { imports: "" });
    // An import section with one function import whose name clears the screen.
    const name = [...new TextEncoder().encode("\u001b[2J\u009b31m\r\n")];
    const section = [10, name.length + 5, 1, 0, name.length, ...name, 1, 0];
    const line = checkImage(Uint8Array.from([...bytes.slice(0, 8), ...section]));
    expect(line).toContain('a component of another world: imports "\\u{1b}[2J\\u{9b}31m\\u{d}\\u{a}"');
  });

  it("whatever bytes a file has, the check answers", async () => {
    const sound = await watGuest("(i32.const 0)");
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { maxLength: 8 }),
        fc.nat(),
        (edits, cut) => {
          const bytes = sound.slice(0, cut % 3 === 0 ? cut % sound.length : sound.length);
          for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
          const answer = checkImage(bytes);
          return answer === null || (answer.length > 0 && answer.length < 2000);
        },
      ),
    );
  });
});

describe("preparing an image", () => {
  it("a sound one is compiled", async () => {
    const image = await prepareComponent(await watGuest("(i32.const 0)"));
    expect("error" in image ? image.error : image.modules.size).toBeGreaterThan(0);
  });

  it("one that passes the outline check but is damaged inside gives one line, not an exception", async () => {
    const bytes = await watGuest("(i32.const 0x5a5a5a5a)");
    // The constant's opcode; 0x5a5a5a5a as LEB128 starts da b4 e9.
    const at = bytes.findIndex((byte, i) => byte === 0x41 && bytes[i + 1] === 0xda && bytes[i + 2] === 0xb4);
    bytes[at] = 0xff;
    const image = await prepareComponent(bytes);
    expect(image).toMatchObject({ error: expect.stringMatching(/^not a valid component: [^\n]+$/) });
  });
});

describe("what a guest may claim of the host beside RAM", () => {
  const refusalOf = async (fields: string, memory?: string) => {
    const options = memory === undefined ? { fields } : { fields, memory };
    const image = await prepareComponent(await watGuest("(i32.const 0)", options));
    return "error" in image ? image.error : null;
  };

  it("no memory of its own", async () => {
    expect(await refusalOf("", '(memory (export "memory") 1)')).toMatch(/^keeps its memory to itself/);
  });

  it("a table that can grow without end", async () => {
    expect(await refusalOf("(table 1 funcref)")).toMatch(/^has tables without a maximum/);
  });

  it("tables of a million elements together, not of more", async () => {
    expect(await refusalOf("(table 1 1000000 funcref)")).toBeNull();
    expect(await refusalOf("(table 1 1000000 funcref) (table 1 1000000 funcref)")).toMatch(
      /more than 1048576 elements/,
    );
  });

  it("no garbage-collected objects", async () => {
    expect(await refusalOf("(type (array (mut i32)))")).toMatch(/garbage-collected types|not a valid component/);
  });
});
