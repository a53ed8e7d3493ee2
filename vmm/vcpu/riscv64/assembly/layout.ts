// Where the core keeps its state in the low part of the VMM's memory, in bytes. Read by the AssemblyScript core and by hart.ts alike, so that
// no address is written down twice: plain number constants, legal in both languages.
//
//   0x000000  machine: time, run budget, RAM window, limits      shared by all harts
//   0x001000  the running hart's state block (4 KiB)             swapped by selectHart
//   0x002000  saved state blocks of the other harts, 8 × 4 KiB
//   0x00a000  a spare decode page for an instruction that straddles two pages
//   0x010000  TLBs, 32 KiB a hart
//   0x050000  entries of translated code, {original slot u64, function u32, block u32}
//   0x100000  page map: physical page of RAM → decode page + 1 (u16)
//   0x200000  decode pages; behind them, 64 KiB aligned, the guest's RAM

// --- machine -------------------------------------------------------------------------------------------------------------------------
export const NOW = 0x100; // u64, virtual time in ns at the last synchronisation
export const NS_PER_INSTRUCTION = 0x108; // u32
export const NS_PER_TICK = 0x10c; // u32, 1e9 / timebase frequency
export const REMAINING = 0x110; // u32, instructions left of run()'s budget, the current chunk included
export const CHUNK = 0x114; // u32, value of the interpreter's countdown at the last synchronisation
export const STOP = 0x118; // u32, non-zero: leave run() after the current instruction
export const RAM_OFFSET = 0x11c; // u32, where guest RAM starts in this memory
export const RAM_BYTES = 0x120; // u32, multiple of 4096, at most 2 GiB
export const DECODE_PAGES = 0x124; // u32, capacity of the decode pool
export const DECODE_USED = 0x128; // u32
export const EPOCH = 0x12c; // u32, counts fence.i; a decode page of an older epoch is compared with RAM before use
export const NUM_IDS = 0x130; // u32, interrupt identities of an IMSIC file
export const FEATURES = 0x134; // u32, FEATURE_ bits
export const MMIO_VALUE = 0x138; // u64, what an MMIO load returns
export const HART = 0x140; // u32, index of the running hart
export const HARTS = 0x144; // u32, how many there are
export const TLB = 0x148; // u32, TLBs of the running hart
export const LEFT = 0x14c; // u32, interpreter's countdown when it returned or called out
export const VALUE = 0x150; // u64, second result of internal calls
export const PHYSICAL = 0x158; // u64, result of a translation
export const LEAF_BITS = 0x160; // u32, log2 of the size of the leaf that translated
export const SLOT = 0x164; // u32, slot of the instruction for step()
export const EXECUTED = 0x168; // u64, instructions of all harts so far
export const ENTRIES_USED = 0x170; // u32, used entries of ENTRIES
export const TRANSLATE = 0x174; // u32, samples after which code is hot and to be translated; 0: never
export const INTERVAL = 0x178; // u32, instructions between samples of pc; no call of execute() is longer (engines move to the better code at calls)

export const FEATURE_SVPBMT = 1;
export const FEATURE_SVNAPOT = 2;
export const FEATURE_SV48 = 4;
export const FEATURE_SV57 = 8;

// --- hart ----------------------------------------------------------------------------------------------------------------------------
export const HART_STATE = 0x1000;
export const HART_STATE_BYTES = 0x1000;
export const X = 0x1000; // 32 × u64
export const F = 0x1100; // 32 × u64
export const PC = 0x1200; // u64
export const MODE = 0x1208; // u32, 0 user, 1 supervisor
export const PAGE_BASE = 0x120c; // u32, decode page of the current instruction
export const PAGE_VA = 0x1210; // u64, its virtual page
export const SSTATUS = 0x1218; // u64, without UXL and SD
export const SIE = 0x1220; // u64
export const STVEC = 0x1228; // u64
export const SSCRATCH = 0x1230; // u64
export const SEPC = 0x1238; // u64
export const SCAUSE = 0x1240; // u64
export const STVAL = 0x1248; // u64
export const SATP = 0x1250; // u64
export const SCOUNTEREN = 0x1258; // u32
export const SENVCFG = 0x125c; // u32
export const STIMECMP = 0x1260; // u64, in ticks
export const SISELECT = 0x1268; // u32
export const SSIP = 0x126c; // u32, 0 or 2
export const FFLAGS = 0x1270; // u32
export const FRM = 0x1274; // u32
export const EIDELIVERY = 0x1278; // u32
export const EITHRESHOLD = 0x127c; // u32
export const TOPEI = 0x1280; // u32, lowest pending and enabled identity below the threshold, 0 if none
export const RESERVATION = 0x1288; // u64, host address of lr's word, + 1 if a doubleword; all ones if none
export const RESERVED_VALUE = 0x1290; // u64, what lr read
export const INSTRET = 0x1298; // u64
export const SUPERPAGES = 0x12a0; // u32, used entries of SUPERPAGE_LIST; 9 = too many
export const CONTEXTS = 0x12a4; // u32, bits 2:0: data TLB of context n holds entries; 4:3: fetch TLB of user, supervisor
export const SUPERPAGE_LIST = 0x12a8; // 8 × u64, virtual GiB that have superpage fragments in a TLB
export const EIP = 0x1400; // 2048 bits
export const EIE = 0x1500; // 2048 bits

export const SAVED_HARTS = 0x2000;
export const MAX_HARTS = 8;

// --- TLBs: entries of 16 bytes {virtual page u64, host address − virtual address u32 | decode page u32} ---------------------------------
// contexts 0 user, 1 supervisor, 2 supervisor with SUM: loads at +0, stores at +0x1000; then fetches of user and supervisor
export const TLBS = 0x10000;
export const TLB_BYTES = 0x8000;
export const TLB_CONTEXT_BYTES = 0x2000;
export const TLB_STORE = 0x1000;
export const TLB_FETCH = 0x6000;

// --- decode cache -----------------------------------------------------------------------------------------------------------------------
export const STRADDLE_PAGE = 0xa000;
export const PAGE_MAP = 0x100000;
export const DECODE_POOL = 0x200000;
export const DECODE_SLOTS = 2050; // one per halfword and two sentinels
export const DECODE_PHYSICAL = 16400; // u32, RAM page number
export const DECODE_EPOCH = 16404; // u32
export const DECODE_LINES = 16408; // u32, bit n: DECODE_CODE holds the n-th 128 bytes of the page
export const DECODE_CODE = 16416; // 4096 bytes: copies of the lines that have been decoded from
export const DECODE_HEAT = 20512; // 32 × u8: samples of pc met in each 128 bytes
export const DECODE_PAGE_BYTES = 20544;

// --- translated code ------------------------------------------------------------------------------------------------------------------------
export const ENTRIES = 0x50000;
export const ENTRY_BYTES = 16;
export const MAX_ENTRIES = 16384;

export const RAM_BASE_PAGE = 0x80000; // guest RAM starts at guest-physical 0x80000000

// --- why run() returns --------------------------------------------------------------------------------------------------------------------
export const EXIT_BUDGET = 0;
export const EXIT_WFI = 1;
export const EXIT_SBI = 2;
export const EXIT_STOP = 3;
export const EXIT_TRANSLATE = 4; // to core.ts only: the code at SLOT of decode page PAGE_BASE is hot; resume() goes on
