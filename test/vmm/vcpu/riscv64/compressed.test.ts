// Every one of the 49152 compressed encodings against the instruction it expands to in the specification's tables (reference/compressed.ts).
import { beforeAll, describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";
import { parse, ROWS } from "./reference/compressed.ts";
import { generator } from "./reference/integer.ts";

let board: Board;
const parsed: ReturnType<typeof parse>[] = [];
beforeAll(() => {
  board = new Board();
  for (let halfword = 0; halfword < 0x10000; halfword++) parsed.push((halfword & 3) === 3 ? null : parse(halfword));
});

const FROM = RAM + 0x8800n;
/** Everything an instruction can change, after running `code` at FROM from a fixed state. */
function effect(code: number, length: bigint): string {
  const next = generator(17);
  for (let n = 1; n < 32; n++) {
    board.setX(n, RAM + 0x10000n + BigInt(next() & 0xff8));
    board.setF(n, (BigInt(next()) << 32n) | BigInt(next()));
  }
  board.write("sstatus", 3n << 13n);
  board.write("mode", 1n);
  const data = new Uint8Array(board.core.memory.buffer, board.core.ramOffset + 0x10000, 0x1400);
  data.fill(0x85);
  if (length === 2n) board.ram.setUint16(Number(FROM - RAM), code, true);
  else board.ram.setUint32(Number(FROM - RAM), code, true);
  board.core.fenceInstructions(0);
  board.pc = FROM;
  board.run(1);
  const trap = board.trap;
  const pc = board.pc === FROM + length ? "next" : String(board.pc);
  const state = [trap === null ? pc : `trap ${trap.cause} ${trap.cause === 2n ? 0n : trap.value}`];
  for (let n = 0; n < 32; n++) {
    // a link differs by the length of the jump
    const x = board.x(n);
    state.push(x === FROM + length ? "link" : x.toString(16), board.f(n).toString(16));
  }
  const at = data.findIndex((byte) => byte !== 0x85);
  if (at >= 0) state.push(`${at}: ${Array.from(data.subarray(at, at + 8)).join(" ")}`);
  return state.join(" ");
}

describe("compressed instructions", () => {
  it.each(ROWS.map((row) => row.name))("%s does what its expansion does", (name) => {
    let seen = 0;
    const next = generator(3);
    for (let halfword = 0; halfword < 0x10000; halfword++) {
      if ((halfword & 3) === 3) continue;
      const found = parsed[halfword] ?? null;
      if (found === null || found.row.name !== name) continue;
      // a jump by 2 or 4 bytes ends where one of the two forms would go on anyway
      if (/^c\.(j|beqz|bnez)$/.test(name) && (found.fields.imm === 2 || found.fields.imm === 4)) continue;
      // a sample keeps this to seconds
      if (seen++ > 16 && next() % 48 !== 0) continue;
      const wanted = effect(found.row.expand(found.fields), 4n);
      const got = effect(halfword, 2n);
      if (got !== wanted) expect(got, `${name} 0x${halfword.toString(16)}`).toBe(wanted);
    }
    expect(seen).toBeGreaterThan(0);
  });

  it("every encoding that is reserved, and no other, is illegal, with the halfword as stval", () => {
    for (let halfword = 0; halfword < 0x10000; halfword++) {
      if ((halfword & 3) === 3) continue;
      const found = parsed[halfword] ?? null;
      board.write("mode", 1n);
      board.write("sstatus", 3n << 13n);
      board.ram.setUint16(Number(FROM - RAM), halfword, true);
      board.core.fenceInstructions(0);
      board.pc = FROM;
      board.run(1);
      const illegal = board.trap?.cause === 2n;
      if (illegal !== (found === null))
        expect(illegal, `0x${halfword.toString(16)} ${found?.row.name}`).toBe(found === null);
      if (illegal) expect(board.trap?.value).toBe(BigInt(halfword));
    }
  });
});
