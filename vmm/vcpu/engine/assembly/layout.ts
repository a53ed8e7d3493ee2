// Where a core keeps its state in the low part of the VMM's memory, in bytes: what is the same for every instruction set. Read by the AssemblyScript
// core and by the TypeScript around it alike, so that no address is written down twice: plain number constants, legal in both languages.
//
//   0x000000  machine: time, run budget, RAM window, limits      shared by all harts; from FRONT_END_MACHINE on the instruction set's own
//   0x001000  the running hart's state block (4 KiB)             swapped by selectHart; up to ENGINE_STATE the instruction set's own
//   0x002000  saved state blocks of the other harts, 8 × 4 KiB
//   0x00a000  a spare decode page, for what an instruction set cannot keep in the page it belongs to
//   0x00f100  what a debugger waits for (debug.ts); not state: a run is the same with it and without
//   0x050000  entries of translated code, {first 8 bytes of the original slot, function u32, block u32, distance of its page from the region's first, bytes, i64}
//   0x0c0000  jumps that have been found, and how translated code was left; not state (jumps.ts, translated.ts)
//   0x100000  page map: physical page of RAM → decode page + 1 (u16)
//   0x200000  TLBs, 128 KiB a hart
//   0x300000  decode pages; behind them, 64 KiB aligned, the guest's RAM

// --- machine -------------------------------------------------------------------------------------------------------------------------
export const SAMPLE = 0xfc; // u32, instructions until the next sample of pc
export const NOW = 0x100; // u64, virtual time in ns at the last synchronisation
export const NS_PER_INSTRUCTION = 0x108; // u32
export const NS_PER_TICK = 0x10c; // u32, 1e9 / frequency of the architecture's timer
export const REMAINING = 0x110; // u32, instructions left of run()'s budget, the current chunk included
export const CHUNK = 0x114; // u32, value of the interpreter's countdown at the last synchronisation
export const STOP = 0x118; // u32, non-zero: leave run() after the current instruction
export const RAM_OFFSET = 0x11c; // u32, where guest RAM starts in this memory
export const RAM_BYTES = 0x120; // u32, multiple of 4096, at most 2 GiB
export const DECODE_PAGES = 0x124; // u32, capacity of the decode pool
export const DECODE_USED = 0x128; // u32
export const EPOCH = 0x12c; // u32, counts "all code may have changed"; a decode page of an older epoch is compared with RAM before use
export const FETCH_TABLE = 0x130; // u32, with EXIT_TRANSLATE: the fetch TLB that PC was found in
export const TAIL = 0x134; // u32, non-zero: the next sample will meet a translated block, which was longer than what was left
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
export const TINY_BEFORE_ROUNDING = 0x17c; // u32, whether underflow is told before rounding (AArch64) or after it (RISC-V)
export const FRONT_END_MACHINE = 0x180; // to 0x1ff

// --- hart ----------------------------------------------------------------------------------------------------------------------------
export const HART_STATE = 0x1000;
export const HART_STATE_BYTES = 0x1000;
export const ENGINE_STATE = 0x1e00;
export const PC = 0x1e00; // u64
export const PAGE_VA = 0x1e08; // u64, virtual page of the current instruction
export const PAGE_BASE = 0x1e10; // u32, its decode page
export const INSTRET = 0x1e18; // u64, instructions this hart has executed
export const SUPERPAGES = 0x1e20; // u32, used entries of SUPERPAGE_LIST; 9 = too many
export const SUPERPAGE_LIST = 0x1e28; // 8 × u64, virtual GiB that have superpage fragments in a TLB

export const FLOAT_FLAGS = 0x1e68; // u32, exceptions of float operations so far: NX 1, UF 2, OF 4, DZ 8, NV 16

export const TLB_USED = 0x1e70; // 8 × u64, for each table of the TLBs: bit n, its 16 entries from the 16n-th on may hold something

export const SAVED_HARTS = 0x2000;
export const MAX_HARTS = 8;

// --- TLBs: entries of 16 bytes {virtual page u64, host address − virtual address u32 | decode page u32} ---------------------------------
// 1024 entries a table, by the low bits of the virtual page. Three contexts of data accesses (what may be accessed from where is the instruction set's):
// loads at +0, stores at +TLB_STORE; two of fetches
export const TLBS = 0x200000;
export const TLB_BYTES = 0x20000;
export const TLB_CONTEXT_BYTES = 0x8000;
export const TLB_STORE = 0x4000;
export const TLB_FETCH = 0x18000;
export const TLB_TABLES = 8;
export const TLB_INDEX = 0x3ff0; // of (va ^ (va >>> TLB_FOLD)) >>> 8, 32 bits of va: an entry's place in its table (tlb.ts)
export const TLB_FOLD = 11;

// --- decode cache -----------------------------------------------------------------------------------------------------------------------
// A slot is 4 bytes for each byte of code: that of an instruction at byte n of its page is at the page + 4n, whatever its length and the
// instruction set's shortest one. Its first u16 is the operation; these are the engine's, FIRST_OPERATION and above the instruction set's.
export const UNDECODED = 0; // (or 1) not met yet
export const REFETCH = 2; // (or 3) behind a page: look up where pc is
export const TRANSLATED = 4; // (or 5) head of a translated block: u32 at +4 is the index of its entry
export const FIRST_OPERATION = 6;

export const SPARE_DECODE_PAGE = 0xa000;
export const PAGE_MAP = 0x100000;
export const DECODE_POOL = 0x300000;
export const DECODE_PHYSICAL = 16400; // u32, RAM page number; before it the slots of 4096 bytes and two sentinels
export const DECODE_EPOCH = 16404; // u32
export const DECODE_LINES = 16408; // u32, bit n: DECODE_CODE holds the n-th 128 bytes of the page
export const DECODE_VERSION = 16412; // u32, counts how often the page was emptied, whatever it belonged to
export const DECODE_CODE = 16416; // 4096 bytes: copies of the lines that have been decoded from
export const DECODE_HEAT = 20512; // 32 × u8: samples of pc met in each 128 bytes
export const DECODE_PAGE_BYTES = 20544;

// --- a debugger's breakpoints and watchpoints (debug.ts) ---------------------------------------------------------------------------------
export const DEBUG = 0xf100; // to DEBUG_END
export const BREAKPOINTS = 0xf100; // u32, used entries of BREAKPOINT_LIST
export const WATCHPOINTS = 0xf104; // u32, used entries of WATCHPOINT_LIST
export const MARKED = 0xf108; // u32, the page of PC holds a breakpoint
export const WATCH_HIT = 0xf10c; // u32, 0: none; else 1 + index of the watchpoint that the instruction at PC is about to touch
export const WATCH_ADDRESS = 0xf110; // u32, where: host address of the first byte touched
export const REPORTED = 0xf120; // 8 × u64, for each hart: INSTRET + 1 of the instruction whose breakpoint has been reported
export const REPORTED_WATCH = 0xf160; // 8 × u64, the same of watchpoints
export const BREAKPOINT_LIST = 0xf200; // 256 × u64, virtual addresses
export const WATCHPOINT_LIST = 0xfa00; // 32 × {first host address u32, last u32, WATCH_LOADS | WATCH_STORES u32, 0}
export const DEBUG_END = 0xfc00;
export const MAX_BREAKPOINTS = 256;
export const MAX_WATCHPOINTS = 32;
export const WATCH_LOADS = 1;
export const WATCH_STORES = 2;
/** In the low bits of a TLB entry's virtual page: the entry is valid, but no inline comparison may hit it. */
export const TLB_MARK = 1;

// --- translated code ------------------------------------------------------------------------------------------------------------------------
export const ENTRIES = 0x50000;
export const ENTRY_BYTES = 24;
export const MAX_ENTRIES = 16384;
// Jumps to addresses (jumps.ts): 2048 records {virtual address u64, JUMP_TAG as it was, function u32, block u32, the function's base u64}
export const JUMPS = 0xc0000;
export const JUMP_FOLD = 11;
export const JUMP_INDEX = 0xffe0; // of (va ^ (va >>> JUMP_FOLD)) << 4, 32 bits of va: a record's place
export const JUMP_TAG = 0xd0000; // u64, a record with another one is not valid: the fetch TLB in use u32, JUMP_GENERATION
export const JUMP_GENERATION = 0xd0004; // u32
export const UNDONE = 0xd0008; // u32, not 0 in its low UNDONE_BITS: translated code left an instruction that it would have done
export const UNDONE_BITS = 13; // a page has fewer than 8192 instructions
export const JUMPS_END = 0xd000c;

export const RAM_BASE_PAGE = 0x80000; // guest RAM starts at guest-physical 0x80000000

// --- why run() returns --------------------------------------------------------------------------------------------------------------------
export const EXIT_BUDGET = 0;
export const EXIT_WFI = 1;
export const EXIT_CALL = 2; // a call of the firmware (SBI, PSCI)
export const EXIT_STOP = 3;
export const EXIT_BREAK = 5; // before an instruction that a debugger waits for: a breakpoint, or WATCH_HIT
export const EXIT_TRANSLATE = 4; // to core.ts only: the code at SLOT of decode page PAGE_BASE is hot; resume() goes on
