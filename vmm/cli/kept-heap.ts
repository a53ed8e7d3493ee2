// Memory that V8's compilers free is kept for their next function. glibc gives the top of a heap back to the system as soon as 128 KiB of it are free, and
// what a region of translated code is compiled in comes as fresh pages each time: half of all page faults of a boot, an eighth of its CPU time.
//
// glibc is told by example (mallopt(3), M_MMAP_THRESHOLD): once a block that was mapped by itself has been freed, twice its size is what may stay. Other
// C libraries take no notice.

/** Freed with the first garbage, and never touched: it costs address space only. */
const EXAMPLE_BYTES = 8 * 2 ** 20 - 65536;

/** Once, before much is compiled. */
export function keepFreedMemory(): void {
  Buffer.allocUnsafeSlow(EXAMPLE_BYTES);
}
