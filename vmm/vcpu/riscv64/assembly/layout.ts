// Where an RV64 hart's state lies, in the parts of the memory that the engine leaves to an instruction set (engine/assembly/layout.ts). Plain number
// constants, legal in AssemblyScript and TypeScript.

// --- machine: FRONT_END_MACHINE … 0x1ff --------------------------------------------------------------------------------------------------
export const NUM_IDS = 0x180; // u32, interrupt identities of an IMSIC file
export const FEATURES = 0x184; // u32, FEATURE_ bits

export const FEATURE_SVPBMT = 1;
export const FEATURE_SVNAPOT = 2;
export const FEATURE_SV48 = 4;
export const FEATURE_SV57 = 8;

// --- hart: HART_STATE … ENGINE_STATE -------------------------------------------------------------------------------------------------------
export const X = 0x1000; // 32 × u64
export const F = 0x1100; // 32 × u64
export const MODE = 0x1208; // u32, 0 user, 1 supervisor
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
export const FRM = 0x1274; // u32
export const EIDELIVERY = 0x1278; // u32
export const EITHRESHOLD = 0x127c; // u32
export const TOPEI = 0x1280; // u32, lowest pending and enabled identity below the threshold, 0 if none
export const RESERVATION = 0x1288; // u64, host address of lr's word, + 1 if a doubleword; all ones if none
export const RESERVED_VALUE = 0x1290; // u64, what lr read
export const EIP = 0x1400; // 2048 bits
export const EIE = 0x1500; // 2048 bits
