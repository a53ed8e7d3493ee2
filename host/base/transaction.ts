// How a device's transaction through an IOMMU ends.

/** The transaction may proceed at the translated page. */
export const TRANSLATED = 0;
/** Refused: the requester sees UR or CA; a fault record was written if the architecture asks for one. */
export const REFUSED = 1;
/** The write was a message that the IOMMU took itself (MSI stored in a memory-resident interrupt file). */
export const CONSUMED = 2;
/** The transaction completes without reaching memory: a write is ignored, a read returns zeros. */
export const DISCARDED = 3;
/** The transaction waits in the IOMMU for software's decision. A requester that cannot wait (no PCI function can) takes it for refused. */
export const STALLED = 4;
export type TranslationStatus = 0 | 1 | 2 | 3 | 4;

/** How a stalled transaction ends: it is to be made anew, is aborted, or completes as DISCARDED. */
export const STALL_RETRY = 0;
export const STALL_ABORT = 1;
export const STALL_DISCARD = 2;
export type StallEnd = 0 | 1 | 2;
