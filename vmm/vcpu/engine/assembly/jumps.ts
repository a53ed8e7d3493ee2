// Where translated code goes on when it jumps to an address: a cache of what the fetch TLB, the slot's mark and its entry say together, in one place instead
// of four. A record is made where those have been asked (translated.ts); regions look for one themselves and stay in their own function with it.
//
// A record is valid as long as none of them has changed. Whatever changes one counts JUMP_GENERATION up: an entry of a fetch TLB that is dropped or
// replaced, a decode page that is emptied, blocks that are translated. A fill of an empty TLB entry does not: no record rests on that.
import { JUMPS, JUMP_FOLD, JUMP_GENERATION, JUMP_INDEX, JUMP_TAG } from "./layout";

/** The record where a jump to `va` would be. */
@inline
export function jumpRecord(va: u64): usize {
  const low = <u32>va;
  return JUMPS + (((low ^ (low >> JUMP_FOLD)) << 4) & JUMP_INDEX);
}

/** Jumps are found by the fetch TLB `fetch` from here on. */
@inline
export function jumpIn(fetch: usize): void {
  store<u32>(JUMP_TAG, <u32>fetch);
}

@inline
export function isJump(record: usize, va: u64): bool {
  return load<u64>(record) == va && load<u64>(record, 8) == load<u64>(JUMP_TAG);
}

@inline
export function keepJump(record: usize, va: u64, functionIndex: u32, block: u32, base: u64): void {
  store<u64>(record, va);
  store<u64>(record, load<u64>(JUMP_TAG), 8);
  store<u32>(record, functionIndex, 16);
  store<u32>(record, block, 20);
  store<u64>(record, base, 24);
}

/** No record is valid any more. */
export function forgetJumps(): void {
  const generation = load<u32>(JUMP_GENERATION) + 1;
  store<u32>(JUMP_GENERATION, generation);
  // once in 2³²: a generation that comes again must not find records of the last time
  if (generation == 0) memory.fill(JUMPS, 0, JUMP_TAG - JUMPS);
}
