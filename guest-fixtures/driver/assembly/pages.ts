// Page frames for tables, queues and buffers, taken from the top of RAM downwards; the heap grows from below. Nothing is given back:
// guests are short-lived.

import { fail } from "./console";

export const PAGE_SIZE: usize = 4096;

let top: usize = 0;

/** Pointer to `count` zeroed, contiguous pages, aligned to `alignment` bytes (a power of two, at least a page). */
export function allocatePages(count: u32 = 1, alignment: usize = PAGE_SIZE): usize {
  if (top == 0) top = <usize>memory.size() << 16;
  const size = <usize>count * PAGE_SIZE;
  if (size + alignment > top - __heap_base) fail("out of page frames");
  top = (top - size) & ~(alignment - 1);
  memory.fill(top, 0, size);
  return top;
}

/** Fills a page with bytes that depend on `seed` and position, so that no two pages or shifts look alike. */
export function fillPattern(pointer: usize, seed: u32, size: usize = PAGE_SIZE): void {
  let state = seed * 2654435761 + 1;
  for (let i: usize = 0; i < size; i += 4) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    store<u32>(pointer + i, state);
  }
}

/** Offset of the first byte that differs, or -1. */
export function firstDifference(a: usize, b: usize, size: usize = PAGE_SIZE): i32 {
  for (let i: usize = 0; i < size; i++) if (load<u8>(a + i) != load<u8>(b + i)) return <i32>i;
  return -1;
}
