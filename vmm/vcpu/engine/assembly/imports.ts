// The one way out of the core.

/**
 * A load (isStore 0) or store of 1, 2, 4 or 8 bytes, naturally aligned, at a guest-physical address that is not RAM. A load's result is written to
 * MMIO_VALUE before returning. Returns 0, or 1 to refuse: an access fault. May raise interrupts, advance NOW, lower REMAINING, set STOP.
 */
@external("vmm", "mmio")
export declare function mmio(addressLow: u32, addressHigh: u32, size: u32, isStore: u32, valueLow: u32, valueHigh: u32): u32;
