// What the checks of in-memory structures depend on: the unit's features and the host address width. Reserved bits as masks, worked out once, so that
// a check is a few ANDs.
//
// A field whose capability is absent is reserved (§9.4, §9.6), whatever the entry is used for. Pointers beyond the host address width are reserved
// bits, not access faults.

import { domainLimit, type VtdFeatures } from "./capabilities.ts";

// Not state: made of what the unit is
export class StructureRules {
  readonly features: VtdFeatures;
  /** HAW: bits of a host-physical address, 32 to 52. */
  readonly hostBits: number;
  /** First frame beyond HAW. */
  readonly frameLimit: number;
  /** Bits 63:32 of a structure's pointer that lie beyond HAW. */
  readonly pointerReserved: number;
  /** Bits 51:32 of a page-table entry that lie beyond HAW. */
  readonly entryReserved: number;
  /** Bits of a domain id beyond ND, at bit 0. */
  readonly domainReserved: number;
  /** Reserved bits of a scalable-mode context entry (8 halves of quadwords). */
  readonly scalableContextReserved: Int32Array;
  /** Reserved bits of a PASID table entry (16 halves of quadwords). */
  readonly pasidReserved: Int32Array;

  constructor(features: VtdFeatures, hostBits: number) {
    this.features = features;
    this.hostBits = hostBits;
    this.frameLimit = 2 ** (hostBits - 12);
    this.pointerReserved = -1 << (hostBits - 32);
    this.entryReserved = this.pointerReserved & 0xfffff;
    this.domainReserved = 0xffff & ~(domainLimit(features) - 1);
    this.scalableContextReserved = scalableContextReserved(features, this.pointerReserved);
    this.pasidReserved = pasidReserved(features, this.pointerReserved);
  }
}

/** `mask` unless the capability is there. */
const unless = (capability: boolean, mask: number): number => (capability ? 0 : mask);

/** §9.4. */
function scalableContextReserved(features: VtdFeatures, beyond: number): Int32Array {
  const reserved = new Int32Array(8).fill(-1);
  reserved[0] = 0x1e0 | unless(features.DT, 1 << 2) | unless(features.PASID, 1 << 3) | unless(features.PRS, 1 << 4);
  reserved[1] = beyond;
  reserved[2] = ~0x1fffff | unless(features.RPS, 0xfffff) | unless(features.RPRIVS, 1 << 20);
  return reserved;
}

/** §9.6. */
function pasidReserved(features: VtdFeatures, beyond: number): Int32Array {
  const reserved = new Int32Array(16).fill(-1);
  // AW, SSADE and SSPTPTR are the second stage's.
  reserved[0] = 0xc20 | unless(features.SSTS, 0xfffff01c) | unless(features.SSTS && features.SSADS, 1 << 9);
  reserved[1] = features.SSTS ? beyond : -1;
  reserved[2] =
    0xf87f0000 | unless(features.SMPWCS, 1 << 23) | unless(features.SC, 1 << 24) | unless(features.MTS, 3 << 25);
  reserved[3] = unless(features.MTS, -1);
  // FSPM, WPE and FSPTPTR are the first stage's; bits 6:5 are ignored.
  reserved[4] =
    0xf02 | unless(features.FSTS, 0xfffff01c) | unless(features.SRS, 1 << 0) | unless(features.EAFS, 1 << 7);
  reserved[5] = features.FSTS ? beyond : -1;
  return reserved;
}
