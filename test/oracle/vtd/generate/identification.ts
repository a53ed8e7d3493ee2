/** Random units: capability and extended capability registers (§11.4.2, §11.4.3) whose bits go together. */
import type { Random } from "../../random.ts";
import { bit, type Identification } from "../capabilities.ts";

export function randomIdentification(random: Random): Identification {
  const flag = (percent: number, at: number) => random.flag(percent, BigInt(at));
  const scalable = random.chance(75);
  const first = scalable && random.chance(90);
  const second = !scalable || !first || random.chance(85);
  let SAGAW = BigInt(random.below(8)) << 1n;
  if (SAGAW === 0n) SAGAW = 4n;
  // Legacy mode and second stages need one; first stages alone do not.
  if (!second && random.chance(30)) SAGAW = 0n;
  const widest = (SAGAW & 8n) !== 0n ? 57 : (SAGAW & 4n) !== 0n ? 48 : 39;
  const MGAW = random.chance(75) ? widest : 36 + random.below(widest - 35);
  // Large pages of 1 GiB come with those of 2 MiB.
  const SSLPS = random.pick([0n, 1n, 3n, 3n, 3n]);
  const CAP =
    BigInt(random.pick([6, 6, 6, 4, 2, 0])) |
    flag(30, 7) |
    (SAGAW << 8n) |
    (BigInt(MGAW - 1) << 16n) |
    (0x22n << 24n) |
    (SSLPS << 34n) |
    (1n << 39n) |
    (18n << 48n) |
    (3n << 54n) |
    (first ? flag(70, 56) | flag(50, 60) : 0n);
  let ECAP = 0b1011n | flag(90, 2) | flag(60, 4) | flag(80, 6) | flag(60, 7) | (0x40n << 8n);
  if (scalable) {
    const PASID = random.chance(85);
    ECAP |= (1n << 43n) | flag(90, 48) | flag(80, 49);
    if (first) ECAP |= flag(60, 31) | flag(50, 34);
    if (bit(ECAP, 31n)) ECAP |= flag(60, 53);
    if (PASID) ECAP |= (1n << 40n) | (19n << 35n);
    if (second) ECAP |= (1n << 46n) | flag(60, 45);
    if (first) ECAP |= 1n << 47n;
    if (first && second) ECAP |= flag(90, 26);
    if (bit(ECAP, 2n)) ECAP |= flag(50, 29);
  }
  return { VER: 0x60n, CAP, ECAP, HAW: BigInt(random.pick([39, 42, 46, 46, 48, 52])) };
}
