// What the vCPU executes, by the names of the ISA manual: what a device tree lists for its guests.

/**
 * Everything listed runs, in canonical order (unprivileged specification, "ISA Extension Naming Conventions": Z by the letter behind it, then Ss and
 * Sv). Blocks of Zicbom, Zicbop and Zicboz have CACHE_BLOCK_BYTES. Zihpm's counters are fixed at zero; Zicclsm: misaligned loads and stores to RAM work.
 */
export const ISA_EXTENSIONS: readonly string[] = [
  ...["i", "m", "a", "f", "d", "c"],
  ...["zicbom", "zicbop", "zicboz", "zicclsm", "zicntr", "zicond", "zicsr", "zifencei", "zihintntl", "zihintpause"],
  ...["zihpm", "zimop", "zawrs", "zfhmin", "zca", "zcb", "zcmop", "zba", "zbb", "zbc", "zbs"],
  ...["ssaia", "sstc", "svadu", "svinval", "svnapot", "svpbmt"],
];

export const CACHE_BLOCK_BYTES = 64;

/** The list as one string, the form that was in use before the lists: single letters together, longer names behind underscores. */
export function isaString(extensions: readonly string[]): string {
  const letters = extensions.filter((name) => name.length === 1);
  return ["rv64", ...letters, ...extensions.filter((name) => name.length > 1).map((name) => `_${name}`)].join("");
}
