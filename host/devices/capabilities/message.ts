// How a message-signalled interrupt leaves a function: a 4-byte posted write, data little-endian, to the address software chose
// (PCIe 6.0 §6.1.4). It takes the same way as any DMA write, through the IOMMU, without a PASID.

/** Sends `data` to the address high:low. */
export type MessageSender = (addressLow: number, addressHigh: number, data: number) => void;
