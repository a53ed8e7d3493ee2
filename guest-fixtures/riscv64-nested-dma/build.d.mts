/** Path of the image, built if it is out of date; null if this machine has no RISC-V compiler. */
export function buildRiscv64NestedDma(): string | null;
