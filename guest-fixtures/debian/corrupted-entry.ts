// A fault that everybody can see: the host corrupts one entry of the guest's stage 1 behind the guest's back, and the guest's kernel prints the event that its SMMU records.

/** Where `nestbox boot` puts the first drive: at the host, and its id at the guest's IOMMU. */
export const DRIVE = { host: "0000:40:00.0", guestId: 0x80, guestName: "0000:00:10.0" } as const;

/**
 * Bit 10 is the access flag (DDI 0487 D8.3.2), which Linux leaves set and does not look at when it unmaps. The driver's queues are among the first
 * entries that are used: without one of those it could not try again.
 */
export const CORRUPTED_ENTRY = `entry:${DRIVE.host}@60=corrupt/10`;

/** What arm-smmu-v3 prints of it (IHI 0070 §7.3.15). */
export const EVENT_ON_CONSOLE =
  /arm-smmu-v3 \S+\.iommu: event: F_ACCESS client: 0000:00:10\.0 sid: 0x80 ssid: 0x0 iova: 0x[0-9a-f]+ ipa: 0x0/;

/** What it prints of a message that its stage 1 does not map: a write at the host's MSI window (Linux: MSI_IOVA_BASE). */
export const MESSAGE_EVENT =
  /arm-smmu-v3 \S+\.iommu: event: F_TRANSLATION client: 0000:00:10\.0 sid: 0x80 ssid: 0x0 iova: 0x8000000 ipa: 0x0/;
