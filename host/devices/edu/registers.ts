// The programming interface of the edu device: offsets from BAR 0. Up to 0x98 and the buffer it is the public interface of QEMU's
// `edu` device, so that drivers written for that one work. From 0xa0 on stand this model's extensions; which of them exist is said
// in the vendor-specific capability. README.md has the table for driver writers.

export const EDU_VENDOR_ID = 0x1234;
export const EDU_DEVICE_ID = 0x11e8;
/** Of the edu on no bus (device tree: compatible). */
export const EDU_COMPATIBLE = "nestbox,edu";
/** BAR 0: 1 MiB. */
export const EDU_BAR_BYTES = 0x100000;

/** RO: major version, minor version, "0edu". */
export const IDENTIFICATION = 0x00;
export const IDENTIFICATION_VALUE = 0x010000ed;
/** RW: reads the complement of what was written. */
export const LIVENESS = 0x04;
/** RW: write n, read n! modulo 2^32 once STATUS_COMPUTING is clear. */
export const FACTORIAL = 0x08;
export const STATUS = 0x20;
/** RO bit of STATUS. */
export const STATUS_COMPUTING = 0x01;
/** RW bit of STATUS: interrupt when the factorial is done. */
export const STATUS_RAISE_INTERRUPT = 0x80;
/** RO: what raised the interrupt. */
export const INTERRUPT_STATUS = 0x24;
/** WO: ORed into the interrupt status. */
export const INTERRUPT_RAISE = 0x60;
/** WO: cleared from the interrupt status. */
export const INTERRUPT_ACKNOWLEDGE = 0x64;
/** Interrupt status bits that the device itself sets. */
export const INTERRUPT_FACTORIAL = 0x001;
export const INTERRUPT_DMA = 0x100;

/** dmaMask of a device that drives all address bits. */
export const ALL_ADDRESS_BITS = 0xffff_ffff_ffff_ffffn;

/** RW, 64 bits each; writes are ignored while a command runs. */
export const DMA_SOURCE = 0x80;
export const DMA_DESTINATION = 0x88;
export const DMA_COUNT = 0x90;
export const DMA_COMMAND = 0x98;
export const COMMAND_RUN = 1;
/** 0: RAM to device, 1: device to RAM. */
export const COMMAND_TO_RAM = 2;
export const COMMAND_INTERRUPT = 4;

/** The device's buffer in its own DMA address space. */
export const BUFFER = 0x40000;
export const BUFFER_BYTES = 4096;

/** One burst moves up to this many bytes, never across a 4 KiB boundary of RAM, */
export const BURST_BYTES = 64;
/** and takes this long (ns). */
export const BURST_NS = 1000;
/** How long a factorial takes (ns). */
export const FACTORIAL_NS = 1000;

// Extensions, 32-bit registers.

/** RO: how the last command ended (OUTCOME_*). */
export const DMA_OUTCOME = 0xa0;
export const OUTCOME_DONE = 0;
/** The bus refused a burst. */
export const OUTCOME_REFUSED = 1;
/** Source or destination and count are not inside the buffer; nothing was moved. */
export const OUTCOME_OUT_OF_BUFFER = 2;
/** The PASID register names a PASID that software has not enabled or that is too wide; nothing was moved. */
export const OUTCOME_PASID_DISABLED = 3;
/** The ATS request ended with Unsupported Request or Completer Abort, or ATS is not enabled. */
export const OUTCOME_TRANSLATION_REFUSED = 4;
/** Translated, but without the permission needed, and page requests are off or were used up. */
export const OUTCOME_NO_PERMISSION = 5;
/** A page request was answered with Invalid Request or Response Failure, or could not be sent. */
export const OUTCOME_PAGE_REQUEST_FAILED = 6;
/** The function was reset while the command ran. */
export const OUTCOME_RESET = 7;
/** RO: bytes that the last command moved. */
export const DMA_MOVED = 0xa4;

/** RW: PASID of DMA in bits 19:0, valid in bit 31, privileged in bit 30. Needs FEATURE_PASID. */
export const PASID = 0xa8;
export const PASID_VALID = 0x80000000;
export const PASID_PRIVILEGED = 0x40000000;
/** RW: needs FEATURE_ATS / FEATURE_PRI. */
export const TRANSLATION_MODE = 0xac;
/** Translate first, then use translated addresses. */
export const MODE_ATS = 1;
/** On a failed translation ask for the page, wait for the answer, translate again. */
export const MODE_PRI = 2;
/** RW: page requests that one burst may send before the command ends; 1 to 255, reset 4. */
export const PAGE_REQUEST_LIMIT = 0xb0;
/** RW: group index of the next page request, 9 bits; counts up. */
export const PAGE_REQUEST_GROUP = 0xb4;
/** RO: page requests sent, page responses taken, code of the last response, invalidations taken; since reset. */
export const PAGE_REQUESTS_SENT = 0xb8;
export const PAGE_RESPONSES_TAKEN = 0xbc;
export const LAST_RESPONSE_CODE = 0xc0;
export const INVALIDATIONS_TAKEN = 0xc4;
/** RW: ns between an invalidation request and its completion; 0 completes at once. */
export const INVALIDATION_DELAY = 0xc8;
/** RW: how the device breaks the rules. Needs FEATURE_MISBEHAVIOUR. */
export const MISBEHAVIOUR = 0xcc;
/** Page requests all use the group index as it stands. */
export const MISBEHAVE_REUSE_GROUPS = 1;
/** Page requests use group indexes out of order, and every burst sends a second one that nobody waits for. */
export const MISBEHAVE_INVENT_GROUPS = 2;
/** Invalidations are never completed. */
export const MISBEHAVE_NEVER_COMPLETE = 4;
/** Invalidated translations stay in use. */
export const MISBEHAVE_KEEP_STALE = 8;
/** Addresses are sent as translated though nobody translated them. */
export const MISBEHAVE_FORGE_TRANSLATED = 16;
/** Page requests come without the Last flag. */
export const MISBEHAVE_NEVER_LAST = 32;
/** WO: sends a Stop Marker for the PASID written (bits 19:0). Needs FEATURE_PRI and FEATURE_PASID. */
export const STOP_MARKER = 0xd0;

// Vendor-specific capability: revision, features (16 bits, little-endian), and the page of BAR 0 with the extensions (0).
export const EXTENSION_REVISION = 1;
export const FEATURE_PASID = 1;
export const FEATURE_ATS = 2;
export const FEATURE_PRI = 4;
export const FEATURE_MISBEHAVIOUR = 8;
