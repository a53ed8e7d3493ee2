/** Random identification registers, within what an architecture version allows (§6.3.1 to §6.3.8). */
import type { Random } from "../../random.ts";
import type { Identification } from "../identification.ts";

export function randomIdentification(random: Random): Identification {
  const version = random.pick([2n, 2n, 3n, 4n]);
  const S1P = random.chance(95);
  const S2P = !S1P || random.chance(85);
  const ATS = random.chance(70);
  const twoLevels = random.chance(70);
  let IDR0 = (2n << 2n) | (1n << 4n);
  if (S2P) IDR0 |= 1n;
  if (S1P) IDR0 |= 2n;
  IDR0 |= BigInt(random.below(4)) << 6n;
  // Mandatory with both stages from SMMUv3.2.
  if (S1P && S2P) IDR0 |= 1n << 9n;
  if (ATS) IDR0 |= (1n << 10n) | random.flag(30, 11n) | random.flag(60, 23n);
  IDR0 |= random.flag(60, 12n);
  if (S2P) IDR0 |= random.flag(60, 18n);
  if (S1P) IDR0 |= random.flag(70, 19n);
  IDR0 |= random.pick([0n, 0n, 2n, 2n, 3n]) << 21n;
  IDR0 |= random.pick([0n, 0n, 0n, 1n, 2n]) << 24n;
  IDR0 |= random.flag(25, 26n);
  if (twoLevels) IDR0 |= 1n << 27n;
  const SIDSIZE = BigInt(twoLevels ? 7 + random.below(10) : random.below(7));
  const SSIDSIZE = S1P && random.chance(80) ? BigInt(1 + random.below(20)) : 0n;
  const IDR1 = SIDSIZE | (SSIDSIZE << 6n) | (8n << 11n) | (8n << 16n) | (8n << 21n) | random.flag(15, 26n);
  let IDR3 = (1n << 8n) | (1n << 10n) | (2n << 11n) | random.flag(50, 9n);
  if (S1P) IDR3 |= 1n << 2n;
  if (S2P) IDR3 |= 1n << 4n;
  if (version >= 3n) IDR3 |= 3n << 13n;
  if (version >= 4n) IDR3 |= 1n << 17n;
  let granules = BigInt(random.below(8));
  if (granules === 0n) granules = 1n;
  const OAS = random.pick([0n, 1n, 2n, 3n, 4n, 5n, 5n, 6n]);
  const VAX = OAS === 6n && random.chance(70) ? 1n : 0n;
  const IDR5 = OAS | (granules << 4n) | (VAX << 10n) | (16n << 16n);
  return { IDR0, IDR1, IDR3, IDR5, AIDR: version };
}
